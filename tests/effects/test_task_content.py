"""The task items that ship: as many of each kind on both sides, true sums, and no answer is given away by its form."""

import json
import re
from collections import Counter
from fractions import Fraction

import pytest
from text_quality import shared_runs

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, text_file
from stratalens.corpus.words import Words
from stratalens.effects.task_items import TaskItem, kinds_of, load_task_items
from stratalens.effects.task_tokens import MarkedTokens, tokenised_items
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.models.tokens import PassageCutter

KINDS = ["arithmetic", "direction", "news", "term"]
PER_KIND = 50
MAX_UNBALANCED = 2
"""How much more often a continuation may be right than wrong, among the items of a kind."""
MAX_LONGER = 6
"""Characters by which one continuation of an item may be longer."""
NUMBER_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve"]
SUM = re.compile(r"((?:[\d.]+ [-+x/] )+[\d.]+) =$")


@pytest.fixture(scope="module")
def items() -> list[TaskItem]:
    return load_task_items("financial")


def of(items: list[TaskItem], kind: str, domain: bool) -> list[TaskItem]:
    return [item for item in items if (item.kind, item.domain) == (kind, domain)]


def number(text: str) -> int:
    return int(re.findall(r"\d+", text)[0])


def value(expression: str) -> Fraction:
    """From left to right: no expression mixes operations."""
    first, *rest = expression.split()
    result = Fraction(first)
    for operation, operand in zip(rest[::2], map(Fraction, rest[1::2]), strict=True):
        changed = {"+": result + operand, "-": result - operand, "x": result * operand, "/": result / operand}
        result = changed[operation]
    return result


def test_each_kind_has_as_many_items_of_both_sides(items):
    assert kinds_of(items) == KINDS
    assert Counter((item.domain, item.kind) for item in items) == {
        (domain, kind): PER_KIND for domain in (True, False) for kind in KINDS
    }
    for item in items:
        side = "financial" if item.domain else "general"
        assert re.fullmatch(rf"{side}-{item.kind}-\d\d", item.id)


def test_no_two_prompts_are_alike_up_to_a_number(items):
    numbers = re.compile(rf"\b(?:\d+|{'|'.join(NUMBER_WORDS)})\b")
    times = Counter(numbers.sub("#", item.prompt.lower()) for item in items)
    assert [prompt for prompt, times in times.items() if times > 1] == []


def test_no_item_repeats_a_built_in_text(items):
    own = {item.id: item.prompt + item.correct for item in items}
    texts = {
        row["id"]: row["text"]
        for name in (*BUILT_IN_DOMAINS, GENERAL)
        for row in map(json.loads, text_file(name).read_text(encoding="utf-8").splitlines())
    }
    assert [run for run, where in shared_runs(texts | own, 9).items() if not set(where) <= set(own)] == []


@pytest.mark.parametrize("domain", [True, False], ids=["financial", "general"])
@pytest.mark.parametrize("kind", ["direction", "news", "term"])
def test_a_continuation_is_right_about_as_often_as_wrong(items, kind, domain):
    own = of(items, kind, domain)
    right, wrong = (Counter(getattr(item, name) for item in own) for name in ("correct", "wrong"))
    assert {text for text in right | wrong if abs(right[text] - wrong[text]) > MAX_UNBALANCED} == set()


@pytest.mark.parametrize("domain", [True, False], ids=["financial", "general"])
def test_directions_and_news_have_each_answer_in_one_half_and_its_opposite_in_the_other(items, domain):
    """The same words are right in one half of a kind and wrong in the other, so no word is the answer."""
    for kind in ("direction", "news"):
        own = of(items, kind, domain)
        halves = [
            {(item.correct, item.wrong) for item in half} for half in (own[: PER_KIND // 2], own[PER_KIND // 2 :])
        ]
        assert halves[0] & halves[1] == set()
        swapped = {(wrong, correct) for correct, wrong in halves[1]}
        assert len(halves[0] & swapped) >= 0.7 * len(halves[0])


@pytest.mark.parametrize("domain", [True, False], ids=["financial", "general"])
def test_neither_the_word_that_a_prompt_has_nor_the_other_one_is_the_answer(items, domain):
    """Most directions say first what happens in another case: as often the same as the opposite."""
    own = of(items, "direction", domain)
    right, wrong = (
        sum(bool(re.search(rf"{getattr(item, name)}\b", item.prompt)) for item in own) for name in ("correct", "wrong")
    )
    assert min(right, wrong) >= 10
    assert abs(right - wrong) <= 6


@pytest.mark.parametrize("domain", [True, False], ids=["financial", "general"])
def test_sums_are_right_and_the_right_number_is_the_larger_one_half_of_the_time(items, domain):
    own = of(items, "arithmetic", domain)
    for item in own:
        found = SUM.search(item.prompt)
        assert found, item.prompt
        assert value(found[1]) == number(item.correct), item
        assert number(item.correct) != number(item.wrong), item
        assert number(item.correct) <= 100
    larger = sum(number(item.correct) > number(item.wrong) for item in own)
    assert abs(larger - PER_KIND / 2) <= MAX_UNBALANCED


def test_the_form_of_a_continuation_does_not_give_it_away(items):
    for item in items:
        assert re.fullmatch(r"[A-Z].*\S", item.prompt), item
        for text in (item.correct, item.wrong):
            assert re.fullmatch(r" \S(?:.*\w)?", text), item
        assert len(item.correct.split()) == len(item.wrong.split()), item
        assert abs(len(item.correct) - len(item.wrong)) <= MAX_LONGER, item
    longer = [len(item.correct) - len(item.wrong) for item in items]
    assert abs(sum(longer)) <= 0.1 * len(items)


def test_all_items_of_the_domain_speak_of_it_and_no_other_does(items):
    lexicon = load_lexicon("financial")
    for item in items:
        found = lexicon.find(Words.of([item.prompt + item.correct]))
        assert item.domain == any(lexicon.is_specific(int(concept)) for concept in found.concept), item


def check_tokens(items: list[TaskItem], tokenizer) -> None:
    cutter = PassageCutter(tokenizer, max_length=256, min_length=1)
    for item, sequences in zip(items, tokenised_items(items, cutter), strict=True):
        prompts = []
        for text, sequence in zip((item.correct, item.wrong), sequences, strict=True):
            assert isinstance(sequence, MarkedTokens)
            assert tokenizer.decode(sequence.token_ids[sequence.marked]) == text
            prompts.append(sequence.token_ids[~sequence.marked].tolist())
        assert prompts[0] == prompts[1]
        assert tokenizer.decode(prompts[0]) == item.prompt


def test_the_marked_tokens_are_those_of_the_continuations(items, tokenizer):
    check_tokens(items, tokenizer)


@pytest.mark.real
def test_the_marked_tokens_of_the_embedded_model_are_those_of_the_continuations(items, real_tokenizer):
    check_tokens(items, real_tokenizer)
