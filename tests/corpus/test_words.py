"""Text as words, numbers and marks: nothing is lost, and phrases end where a reader would end them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratalens.corpus.words import (
    MAX_SEGMENT_UNITS,
    UnitKind,
    Words,
    phrase_stems,
    stem,
)


def units(text: str) -> list[tuple[str, str]]:
    words = Words.of([text])
    return [(UnitKind(kind).name.lower(), unit) for kind, unit in zip(words.kind, words.texts, strict=True)]


def joins(text: str) -> list[str]:
    words = Words.of([text])
    return [unit for unit, joined in zip(words.texts, words.joined, strict=True) if joined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's £3.50", [("word", "It's"), ("mark", "£"), ("number", "3.50")]),
        ("AT&T’s 3rd 1,000", [("word", "AT&T’s"), ("word", "3rd"), ("number", "1,000")]),
        ("snake_case", [("word", "snake"), ("mark", "_"), ("word", "case")]),
        ("Zürich 東京", [("word", "Zürich"), ("word", "東京")]),
        ("'quoted' 5.", [("mark", "'"), ("word", "quoted"), ("mark", "'"), ("number", "5"), ("mark", ".")]),
        (" \n\t ", []),
    ],
)
def test_units_are_words_numbers_and_marks(text, expected):
    assert units(text) == expected


@given(st.lists(st.text(max_size=80), max_size=4))
def test_units_stand_where_they_say_and_leave_out_white_space_only(texts):
    words = Words.of(texts)
    left = [list(text) for text in texts]
    for unit, owner, start in zip(words.texts, words.passage, words.start, strict=True):
        assert texts[owner][start : start + len(unit)] == unit
        left[owner][start : start + len(unit)] = " " * len(unit)
    assert not any("".join(rest).strip() for rest in left)
    assert (np.diff(words.segment) >= 0).all()
    assert (np.diff(words.segment) <= 1).all()
    new_passage = np.diff(words.passage) > 0
    assert (np.diff(words.segment)[new_passage] == 1).all(), "no sentence spans two passages"
    assert not words.joined[1:][new_passage].any()


@pytest.mark.parametrize(
    "text", ["interest rate", "interest-rate", "interest  rate", "interest - rate", "interest‑rate"]
)
def test_space_and_hyphens_join_words(text):
    assert joins(text) == ["rate"]


@pytest.mark.parametrize(
    "text", ["interest, rate", "interest. Rate", "interest (rate)", "interest/rate", "interest -- rate"]
)
def test_any_other_mark_parts_words(text):
    assert joins(text) == []


def test_numbers_join_as_words_do():
    assert joins("the S&P 500 index") == ["S&P", "500", "index"]


def test_a_sentence_ends_at_its_mark_and_not_inside_a_number():
    words = Words.of(["Up 3.5 points. Then down, again! And so on"])
    firsts = [words.texts[np.flatnonzero(words.segment == s)[0]] for s in np.unique(words.segment)]
    assert firsts == ["Up", "Then", "And"]


def test_long_sentences_are_cut():
    words = Words.of(["word " * (2 * MAX_SEGMENT_UNITS + 1)])
    assert np.bincount(words.segment).tolist() == [MAX_SEGMENT_UNITS, MAX_SEGMENT_UNITS, 1]


def test_stems_unite_the_forms_of_a_word():
    assert stem("Dividends") == stem("dividend")
    assert stem("company’s") == stem("company's") == stem("company")
    assert stem("loan") != stem("lawn")
    assert phrase_stems("Mark-to-Market losses") == phrase_stems("mark to market loss")
    assert phrase_stems("!?") == ()


def test_no_text_has_no_units():
    words = Words.of(["", "a"])
    assert words.passages == 2
    assert words.passage.tolist() == [1]
    assert Words.of([]).texts == ()
