"""The built-in texts are what their readers expect: enough of them, varied, of matched length and style."""

import json
from collections import Counter

import pytest

from stratalens.corpus.builtin import text_file

PASSAGES = {"financial": 150, "general": 150, "medical": 75, "legal": 75}
MIN_TOPICS = {"financial": 12, "general": 12, "medical": 8, "legal": 8}


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text_file(name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", PASSAGES)
def test_number_length_and_variety(name):
    passages = rows(name)
    assert len(passages) == PASSAGES[name]
    assert all(60 <= len(passage["text"].split()) <= 100 for passage in passages)
    assert len({passage["topic"] for passage in passages}) >= MIN_TOPICS[name]
    assert len({passage["id"] for passage in passages}) == len(passages)


@pytest.mark.parametrize("name", ["financial", "medical", "legal"])
def test_styles_are_mixed_as_on_the_general_side(name):
    general, domain = (Counter(p["kind"] for p in rows(side)) for side in ("general", name))
    assert set(domain) == set(general)
    for style, count in general.items():
        assert abs(count / PASSAGES["general"] - domain[style] / PASSAGES[name]) < 0.03


def test_general_text_is_as_full_of_numbers_as_financial_text():
    share = {
        name: sum(sum(ch.isdigit() for ch in p["text"]) >= 6 for p in rows(name)) / PASSAGES[name]
        for name in ("financial", "general")
    }
    assert abs(share["financial"] - share["general"]) < 0.1


def test_no_boilerplate_is_shared_between_passages():
    seen: dict[tuple[str, ...], str] = {}
    for name in PASSAGES:
        for passage in rows(name):
            words = passage["text"].lower().split()
            for start in range(len(words) - 6):
                run = tuple(words[start : start + 7])
                assert seen.setdefault(run, passage["id"]) == passage["id"], " ".join(run)
