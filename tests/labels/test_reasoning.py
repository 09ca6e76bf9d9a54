"""Reasoning is told from the answer, whatever marks stand around it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratalens.labels.llm.chat import CutOff, NoReply, usable_text
from stratalens.labels.llm.reasoning import ends_in_reasoning, is_mark, opening_of, remove_reasoning

ANSWER = '{"label": "interest rates"}'
DRAFT = 'We could say {"label": "draft"}.\nOr not.'
PAIRS = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<THINK>", "</THINK>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<reason>", "</reason>"),
    ("<analysis>", "</analysis>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<reflection>", "</reflection>"),
    ("<inner_monologue>", "</inner_monologue>"),
    ("<chain-of-thought>", "</chain-of-thought>"),
    ('<think time="3">', "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("<antThinking>", "</antThinking>"),
    ("[THINK]", "[/THINK]"),
    ("[think]", "[/think]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|think|>", "<|/think|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("<|channel|>analysis", "<|channel|>final"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysisWe think. ", "assistantfinal"),
    ("Here is my thought process:", "Here is my response:"),
]


@pytest.mark.parametrize("between", ["", "\n", "\n\n"])
@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_reasoning_between_marks_is_left_out(opening, closing, between):
    assert remove_reasoning(f"{opening}{between}{DRAFT}{between}{closing}{between}{ANSWER}") == ANSWER
    assert remove_reasoning(f"\n {opening}{closing}{between}{ANSWER}\n") == ANSWER


@pytest.mark.parametrize(
    "text", ["<think>x</think>\n<|begin_of_box|>loans<|end_of_box|>", "loans<｜end▁of▁sentence｜>", "loans<eos>"]
)
def test_marks_around_the_answer_are_left_out(text):
    assert remove_reasoning(text) == "loans"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_a_text_that_ends_in_the_reasoning_has_no_answer(opening, closing):
    text = f"{opening}{DRAFT}"
    assert (remove_reasoning(text), ends_in_reasoning(text)) == ("", True)
    with pytest.raises(CutOff, match=r"^cut off before the answer began$"):
        usable_text(text, cut_off=False)


def test_reasoning_that_never_ends_may_follow_a_first_line():
    assert ends_in_reasoning("Sure.\n<think>still going")


@pytest.mark.parametrize("closing", ["</think>", "</thinking>", "[/THINK]", "<|end_of_thought|>", "</reasoning>"])
@pytest.mark.parametrize("between", ["", " ", "\n", "\n\n```json\n"])
def test_the_opening_may_be_part_of_the_prompt(closing, between):
    assert remove_reasoning(f"{DRAFT}{closing}{between}{ANSWER}") == f"{between.strip()}\n{ANSWER}".strip()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a <think>b</think> c</think>yes", "yes"),
        ("<think>a <thinking>b</thinking> c</think>yes", "yes"),
        ("<think>a</think>\n<think>b</think>\nyes", "yes"),
        ("<think>\n\n</think>\n\nmore of it\n</think>\n\nyes", "yes"),
        ("<think>the tag <think> is odd</think>yes", "yes"),
        ("hm, the tag <think> is odd</think>\nyes", "yes"),
        ("Sure.\n<think>a</think>\nyes", "Sure.\n\nyes"),
        (f"{ANSWER}\n<think>is that right?</think>", ANSWER),
        ("We need it.<|end|><|start|>assistant<|channel|>final<|message|>yes<|return|>", "yes"),
        ("<|channel|>commentary<|message|>plan<|end|><|start|>assistant<|channel|>final<|message|>yes", "yes"),
        ("<|channel|>final<|message|>yes<|return|>", "yes"),
        ("final<|message|>yes", "yes"),
        ("<|message|>yes<|end|>", "yes"),
        ("<think>a</think><answer>yes</answer>", "yes"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n\n<|begin_of_solution|>yes<|end_of_solution|>", "yes"),
        ("<think>a</think>yes<|im_end|>", "yes"),
        ("yes</s>", "yes"),
    ],
)
def test_what_is_left_is_the_answer(text, answer):
    assert remove_reasoning(text) == answer
    assert not ends_in_reasoning(text)


@pytest.mark.parametrize(
    "answer",
    [
        '{"label": "text between <think> and </think>"}',
        '{"label": "the tag </think>"}',
        '```json\n{"label": "the tags <think> and [/THINK]"}\n```',
        "the tag <think>",
        "text between <think> and </think>",
        "Analysis of loans",
        "analysis of loans",
        "Loans [thoughtful ones]",
        "x < y",
    ],
)
def test_an_answer_may_speak_of_marks(answer):
    assert remove_reasoning(answer) == answer
    assert remove_reasoning(f"<think>{DRAFT}</think>{answer}") == answer


def test_a_text_whose_end_is_missing_ends_in_the_outermost_reasoning():
    text = f"<think>a <think>b</think> {ANSWER}"
    assert remove_reasoning(text) == ANSWER
    assert remove_reasoning(text, cut_off=True) == ""


@pytest.mark.parametrize(
    ("text", "cut_off", "reasoned", "reason"),
    [
        ("", False, False, "empty answer"),
        ("<think>a</think>", False, False, "empty answer"),
        ("", True, True, "cut off before the answer began"),
        ("", False, True, "reasoning without an answer"),
    ],
)
def test_a_text_without_an_answer_is_no_reply(text, cut_off, reasoned, reason):
    with pytest.raises(NoReply, match=f"^{reason}$") as caught:
        usable_text(text, cut_off, reasoned=reasoned)
    assert isinstance(caught.value, CutOff) is cut_off


def test_a_prompt_may_open_the_reasoning():
    assert opening_of("<|assistant|>\n<think>\n") == "<think>\n"
    assert opening_of("<|assistant|>\n[THINK]") == "[THINK]"
    assert opening_of("<|assistant|>\n<think>\n\n</think>\n\n") == ""
    assert opening_of("What is a <think> tag?") == ""


def test_special_tokens_around_reasoning_are_marks():
    for token in ("<|channel|>", "<|message|>", "<|start|>", "<think>", "[/THINK]", "<|END_THINKING|>", "<channel|>"):
        assert is_mark(token)
    for token in ("<|im_end|>", "</s>", "<pad>", "<|eot_id|>"):
        assert not is_mark(token)


HOSTILE = {
    "nested objects": '{"a":' * 300_000,
    "objects in lists": ('{"a":[{},' * 900 + "</think>") * 150,
    "braces": "{" * 1_000_000 + "</think>",
    "keys": '{"' * 500_000 + "</think>",
    "closings": "</think>" * 200_000,
    "openings": "<think>" * 200_000,
    "channels": "<|channel|>" * 100_000,
    "brackets": "<" * 1_000_000,
    "begun tags": "<think " * 200_000,
    "begun names": "<" + "a" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_text_made_to_take_long_does_not(name):
    started = time.monotonic()
    remove_reasoning(HOSTILE[name])
    assert time.monotonic() - started < 5


marks = st.sampled_from([mark for pair in PAIRS for mark in pair] + ["{", "}", '"', "\n", ANSWER, "```"])


@given(st.lists(marks | st.text(max_size=8), max_size=8).map("".join), st.booleans())
def test_any_text_is_split(text, cut_off):
    answer = remove_reasoning(text, cut_off)
    assert answer == answer.strip()
    assert not (answer and ends_in_reasoning(text, cut_off))
