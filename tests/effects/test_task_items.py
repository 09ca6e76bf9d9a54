"""Task items of a user: read in order or refused with one line, and tokenised so that both continuations compare."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from error_book import Documented
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import named_error
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from stratalens.effects.task_items import (
    MAX_TASK_BYTES,
    MAX_TASK_ITEMS,
    MIN_SOLVED_ITEMS,
    TaskItem,
    kinds_of,
    load_task_items,
    shipped_tasks,
)
from stratalens.effects.task_tokens import tokenised_items
from stratalens.errors import ConfigError
from stratalens.models.tokens import PassageCutter

ITEM = {"prompt": "Rain makes the river", "correct": " rise", "wrong": " fall"}
KIND = "Feature lists, lexicons and prompts"


def rows(number: int = MIN_SOLVED_ITEMS, **fields: str) -> list[dict[str, str]]:
    return [{**ITEM, "prompt": f"On day {i} rain makes the river", **fields} for i in range(number)]


def written(path: Path, *lines: object) -> str:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts), encoding="utf-8")
    return str(path)


def test_items_come_in_the_order_of_the_files_with_what_they_leave_out(tmp_path):
    full = {**ITEM, "kind": "water", "side": "general", "id": "w1"}
    one = written(tmp_path / "one.jsonl", *rows(), "", "  ")
    two = written(tmp_path / "two.jsonl", full)
    items = load_task_items("weather", [one, two])
    assert [item.prompt for item in items] == [*(row["prompt"] for row in rows()), ITEM["prompt"]]
    assert items[-1] == TaskItem(f"{two}, line 1", "w1", False, "water", ITEM["prompt"], " rise", " fall")
    assert {(item.domain, item.kind) for item in items[:-1]} == {(True, "task")}
    assert len({item.id for item in items}) == len(items)
    assert load_task_items("weather", [two, one])[1:] == items[:-1], "ids do not depend on the place"


def test_general_items_that_ship_stand_in_where_a_user_has_none(tmp_path):
    own = written(tmp_path / "own.jsonl", *rows())
    items = load_task_items("weather", [own])
    shipped = [json.loads(line) for line in shipped_tasks("general").read_text().splitlines()]
    assert [item.id for item in items[MIN_SOLVED_ITEMS:]] == [row["id"] for row in shipped]
    assert not any(item.domain for item in items[MIN_SOLVED_ITEMS:])


def test_a_domain_without_items_has_none():
    assert load_task_items("medical") == load_task_items("weather") == []


def test_kinds_are_those_with_enough_items_of_the_domain(tmp_path):
    few = [{**row, "prompt": row["prompt"] + " f"} for row in rows(MIN_SOLVED_ITEMS - 1, kind="few")]
    other = [{**row, "prompt": row["prompt"] + " g"} for row in rows(kind="other", side="general")]
    more = [{**row, "prompt": row["prompt"] + " m"} for row in rows(MIN_SOLVED_ITEMS + 1, kind="more")]
    lines = [*rows(kind="b"), *few, *other, *more, *[{**row, "prompt": row["prompt"] + " a"} for row in rows(kind="a")]]
    assert kinds_of(load_task_items("x", [written(tmp_path / "own.jsonl", *lines)])) == ["more", "a", "b"]


LINES: dict[str, tuple[object, str]] = {
    "a task item that is no JSON": ("rise", "line 2: not JSON; expected lines such as"),
    "a task item nested without end": ("[" * 100_000, "line 2: not JSON; expected lines such as"),
    "a task item that is a list": ([1], "line 2: no item; expected lines such as"),
    "a task item without a prompt": ({"correct": " a", "wrong": " b"}, "line 2: `prompt` is missing; expected lines"),
    "a task item without a wrong continuation": ({"prompt": "a", "correct": " a"}, "line 2: `wrong` is missing"),
    "a task item with another field": ({**ITEM, "answer": "x"}, "line 2: `answer` is unknown; the fields are prompt, "),
    "a task item with a number": ({**ITEM, "correct": 7}, "line 2: `correct` is no text"),
    "a task item with an empty continuation": ({**ITEM, "wrong": " "}, "line 2: `wrong` is empty"),
    "a task item with an unknown side": ({**ITEM, "side": "left"}, "`side` is `left`; expected domain or general"),
    "a task item of all kinds": ({**ITEM, "kind": "all"}, "`kind` is `all`, which stands for all kinds together"),
    "a task item with an endless kind": ({**ITEM, "kind": "k" * 61}, "`kind` has 61 characters; at most 60"),
    "a task item with an endless prompt": ({**ITEM, "prompt": "rain " * 2000}, "has 10,000 characters; at most 8,000"),
    "a task item with half a character": ({**ITEM, "prompt": "a \ud800"}, "`prompt` holds a control character or half"),
    "a task item with one continuation": ({**ITEM, "wrong": " rise"}, "line 2: `correct` and `wrong` are the same"),
    "a prompt that ends in a space": ({**ITEM, "prompt": "The river will "}, "`prompt` ends in white space"),
    "one continuation without its space": ({**ITEM, "wrong": "fall"}, "only one begins with a space; both or none"),
    "a task item that is there twice": ({**ITEM, "correct": " fall", "wrong": " rise"}, "the same item as in "),
    "two task items of one id": ({**ITEM, "prompt": "Snow makes it", "id": "x"}, "line 2: the same id as in "),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_that_is_no_item_is_refused_with_its_number(tmp_path, documented: Documented, case):
    line, telling = LINES[case]
    with pytest.raises(ConfigError) as error:
        load_task_items("financial", [written(tmp_path / "tasks.jsonl", {**ITEM, "id": "x"}, line)])
    assert telling in str(error.value)
    assert len(str(error.value)) < 400
    documented(KIND, case, f"stratalens: {error.value}")


def test_a_file_that_cannot_hold_items_is_refused(tmp_path, documented: Documented):
    cases = {
        "task items that are not there": (lambda _: None, "cannot be read: No such file"),
        "task items in an empty file": (lambda path: path.write_text("\n\n"), "no task item in this file; expected"),
        "task items that are not UTF-8": (lambda path: path.write_bytes(b"caf\xe9"), "not UTF-8 text"),
        "task items in a named pipe": (os.mkfifo, "a regular file was expected, this is a named pipe"),
        "task items in a large file": (lambda path: path.write_bytes(b" " * (MAX_TASK_BYTES + 1)), "16 MiB"),
        "too few task items": (
            lambda path: written(path, *rows(MIN_SOLVED_ITEMS - 1), {**ITEM, "side": "general"}),
            "9 items of the side `domain`; at least 10 are needed",
        ),
        "more task items than are read": (
            lambda path: written(path, *rows(MAX_TASK_ITEMS + 1)),
            f"line {MAX_TASK_ITEMS + 1}: more than {MAX_TASK_ITEMS:,} task items; leave some out",
        ),
    }
    for number, (case, (make, telling)) in enumerate(cases.items()):
        path = tmp_path / f"{number}.jsonl"
        make(path)
        with pytest.raises(ConfigError) as error:
            load_task_items("financial", [str(path)])
        assert telling in str(error.value), case
        documented(KIND, case, f"stratalens: {error.value}")


TEXT = st.text(max_size=8)
ROW = st.dictionaries(st.sampled_from([*ITEM, "kind", "side", "id", "x"]), TEXT | st.integers(), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.lists(ROW | TEXT, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows))))
def test_any_bytes_are_items_or_a_named_error(tmp_path, content):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    named_error(lambda: load_task_items("x", [str(path)]))


def item(prompt: str, correct: str, wrong: str) -> TaskItem:
    return TaskItem("tasks.jsonl, line 1", "x", True, "task", prompt, correct, wrong)


def cutter_of(backend: Tokenizer, max_length: int = 64) -> PassageCutter:
    return PassageCutter(PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>"), max_length, min_length=1)


def joining() -> Tokenizer:
    """A tokenizer of single letters that reads `ab` as one token, also across the end of a prompt."""
    backend = Tokenizer(
        models.BPE({text: number for number, text in enumerate(["a", "b", "c", "x", "ab"])}, [("a", "b")])
    )
    backend.add_special_tokens(["<s>"])
    return backend


def test_special_tokens_frame_the_sequences_and_are_not_marked():
    backend = tiny_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    cutter = PassageCutter(PreTrainedTokenizerFast(tokenizer_object=backend), 64, min_length=1)
    [(correct, wrong)] = tokenised_items([item("x", " ban", " loan")], cutter)
    for text, sequence in ((" ban", correct), (" loan", wrong)):
        assert sequence.token_ids[[0, -1]].tolist() == [0, 0]
        assert sequence.marked.tolist() == [False, False, True, False]
        assert cutter.tokenizer.decode(sequence.token_ids[sequence.marked].tolist()) == text


def test_a_continuation_that_joins_the_end_of_the_prompt_is_compared_from_there_on():
    cutter = cutter_of(joining())
    [(correct, wrong)] = tokenised_items([item("xxca", "bc", "ca")], cutter)
    read = [cutter.tokenizer.decode([int(number)]) for number in (*correct.token_ids, *wrong.token_ids)]
    assert read == ["x", "x", "c", "ab", "c", *"xxcaca"]
    assert correct.marked.tolist() == [False] * 3 + [True] * 2
    assert wrong.marked.tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(correct.token_ids[~correct.marked], wrong.token_ids[~wrong.marked])


def test_an_item_that_the_tokenizer_cannot_compare_is_refused(tokenizer, documented: Documented):
    lower = joining()
    lower.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    plain = PassageCutter(tokenizer, max_length=64, min_length=1)
    cases = {
        "a task item longer than a passage": (plain, item("rain " * 40, " a", " b"), "tokens, and the result was made"),
        "a prompt of one token": (plain, item("x", " a", " b"), "`prompt` is too short for the model's tokenizer"),
        "a continuation without tokens": (cutter_of(joining()), item("xx", "ü", "b"), "has no token for `correct`"),
        "continuations of the same tokens": (cutter_of(lower), item("xx", "B", "b"), "are the same tokens"),
    }
    for case, (cutter, one, telling) in cases.items():
        with pytest.raises(ConfigError) as error:
            tokenised_items([one], cutter)
        assert telling in str(error.value), case
        documented(KIND, case, f"stratalens: {error.value}")


def test_an_item_may_fill_a_passage_to_its_last_token(tokenizer):
    fits = PassageCutter(tokenizer, max_length=7, min_length=1)
    [(correct, wrong)] = tokenised_items([item("xxxxxx", "c", "d")], fits)
    assert [sequence.marked.sum() for sequence in (correct, wrong)] == [1, 1]
    with pytest.raises(ConfigError, match=r"with `correct` it has 8 tokens, and .* --max_length 7; shorten the prompt"):
        tokenised_items([item("xxxxxxx", "c", "d")], fits)
