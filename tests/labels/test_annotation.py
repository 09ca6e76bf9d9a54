"""Tokens, words, phrases and concepts of passages are aligned."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from planted import LAYER, at_random, passage, planted_evidence, written_passages

from stratalens.corpus.populations import Half, Population, Side
from stratalens.corpus.words import Words
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.labels.concepts.annotation import (
    AnnotatedPassages,
    Units,
    find_phrases,
    split_units,
    unit_activations,
)
from stratalens.labels.concepts.lexicon import Concept, Lexicon
from stratalens.models.tokens import PassageCutter

TEXTS = [
    "  The bank’s rate rose by 3.5%, and re-invested (in Zürich) fell.\n\n \n Then 😀😃 came  internationalization.",
    "£1,234.50 snake_case <file_sep> 東京 ... Émile's",
    "\t\n",
    "plain words here",
]


@pytest.fixture(scope="module")
def tokenised(tokenizer) -> list[Passage]:
    cutter = PassageCutter(tokenizer, 100, 1)
    found = []
    for text in TEXTS:
        (span,) = cutter.spans(text)
        found.append(
            Passage(
                PassageLocation(1, 0, 1),
                0,
                Population.numbered(0),
                text,
                cutter.sequence(span),
                cutter.token_offsets(span),
            )
        )
    return found


def unit_at(units: Units, passage_number: int, character: int) -> int:
    """The unit that covers a character of a passage."""
    words = units.words
    (own,) = [
        n
        for n, (owner, start, text) in enumerate(zip(words.passage, words.start, words.texts, strict=True))
        if owner == passage_number and start <= character < start + len(text)
    ]
    return own


def test_a_token_belongs_to_the_unit_that_holds_its_last_visible_character(tokenised):
    units = split_units(tokenised)
    seen, several = Counter(), 0
    token = 0
    for number, one in enumerate(tokenised):
        for start, end in one.offsets:
            visible = [at for at in range(start, end) if not one.text[at].isspace()]
            expected = unit_at(units, number, visible[-1]) if visible else -1
            assert units.of_token[token] == expected, (one.text[start:end], token)
            several += len({unit_at(units, number, at) for at in visible}) > 1
            seen[expected] += 1
            token += 1
    assert token == len(units.of_token)
    assert several > 0, "a token over two units is among the cases"
    assert max(count for unit, count in seen.items() if unit >= 0) > 1
    assert seen[-1] > 1


def test_a_unit_has_the_strongest_activation_of_its_tokens():
    evidence = planted_evidence(written_passages(3), [at_random(0, 0.4), at_random(1, 0.02)])
    units = split_units(evidence.passages)
    values = unit_activations(evidence.layers[LAYER], units)
    by_token = evidence.layers[LAYER].activations.toarray()
    for unit in range(len(units.words.texts)):
        own = by_token[units.of_token == unit]
        assert len(own)
        assert np.array_equal(values[unit], own.max(0))


def phrase_counts(*texts: str, max_words: int = 3) -> dict[str, int]:
    found = find_phrases(Words.of(texts), max_words)
    counts = Counter(found.phrase.tolist())
    return {name: counts[number] for number, name in enumerate(found.names)}


def test_phrases_recur_and_hold_no_function_word_at_their_ends():
    text = "The cost of capital rose. The cost of capital fell!"
    assert phrase_counts(text, "What is the Cost of Capital?") == {
        "cost": 3,
        "capital": 3,
        "cost of capital": 3,
    }
    assert phrase_counts(text + " Cost of capital.") == {}, "one passage is not enough"
    assert phrase_counts(text, "unrelated") == {}, "two sentences are not enough"
    assert set(phrase_counts(text, "What is the Cost of Capital?", max_words=1)) == {"cost", "capital"}


def test_phrases_end_at_marks_and_join_over_hyphens():
    assert phrase_counts("bond-yield", "bond yield. Bond yields")["bond yield"] == 3
    assert set(phrase_counts("bond, yield", "bond. Yield; bond/yield")) == {"bond", "yield"}


@pytest.mark.parametrize(
    "phrase", ["interest rate", "treasury bill", "call option", "banking system", "fire insurance"]
)
def test_words_that_mean_something_are_no_function_words(phrase):
    assert phrase in phrase_counts(f"The {phrase}. A {phrase}", f"some {phrase}")


def test_a_phrase_is_named_as_most_often_written():
    found = find_phrases(Words.of(["dividends rose. Dividends fell", "a dividend"]))
    assert found.names == ["dividends"]
    assert [Words.of(["dividend"]).stems] == found.stems


RATES = Lexicon(
    [
        Concept("Rates", "", ("interest rate", "yield"), specific=True),
        Concept("Bonds", "", ("bond", "yield"), specific=True),
        Concept("Never", "", ("unicorn",), specific=True),
    ]
)
PARTS = [
    passage("The interest rate rose. Bond yields rose! Bonds and bonds.", Side.DOMAIN, Half.DISCOVERY),
    passage("Nothing here. A yield of interest.", Side.GENERAL, Half.DISCOVERY),
    passage("A bond.", Side.DOMAIN, Half.DISCOVERY),
]


@pytest.fixture(scope="module")
def annotated() -> AnnotatedPassages:
    return AnnotatedPassages.of(PARTS, RATES)


def named(annotated: AnnotatedPassages, matrix) -> list[set[str]]:
    names = [concept.name for concept in RATES.concepts] + annotated.phrases.names
    return [{names[at] for at in np.flatnonzero(row)} for row in matrix.toarray()]


def test_sentences_units_and_passages_hold_their_concepts_and_phrases(annotated):
    assert named(annotated, annotated.holds) == [
        {"Rates"},
        {"Rates", "Bonds", "bonds"},
        {"Bonds", "bonds"},
        set(),
        {"Rates", "Bonds"},
        {"Bonds", "bonds"},
    ]
    assert set(np.unique(annotated.holds.toarray())) == {0, 1}
    assert annotated.segment_passage.tolist() == [0, 0, 0, 1, 1, 2]
    covered = {
        (annotated.units.words.texts[unit], RATES.concepts[concept].name)
        for unit, concept in zip(*annotated.covers.nonzero(), strict=True)
    }
    assert covered == {
        *(("interest", "Rates"), ("rate", "Rates"), ("yields", "Rates"), ("yield", "Rates")),
        *(("yields", "Bonds"), ("yield", "Bonds"), ("Bond", "Bonds"), ("Bonds", "Bonds"), ("bonds", "Bonds")),
        ("bond", "Bonds"),
    }
    assert annotated.counts.toarray()[:, :3].tolist() == [[2, 4, 0], [1, 1, 0], [0, 1, 0]]
    assert annotated.lengths.tolist() == [13, 8, 3]


def test_the_most_frequent_term_of_each_concept_is_left_out_of_holds_more(annotated):
    assert named(annotated, annotated.holds_other_terms) == [{"Rates"}, {"Bonds"}, set(), set(), {"Bonds"}, set()]


def test_names_and_stems_are_those_of_the_text(annotated):
    assert annotated.usual_spelling("bond") == "bonds"
    assert annotated.count_words(("bond",)).tolist() == [3, 0, 1]
    assert annotated.count_words(("bond", "yield")).tolist() == [4, 1, 1]
    assert annotated.phrase_name(annotated.concepts) == "bonds"
    assert annotated.phrase_stems(annotated.concepts) == ("bond",)
    assert annotated.concept_spellings(0) == {"interest": "interest", "rate": "rate", "yield": "yields"}
    assert annotated.concept_spellings(2) == {}


def test_halves_and_sides_pick_passages():
    held_out = [replace(part, population=part.population._replace(half=Half.CONFIRMATION)) for part in PARTS[1:]]
    parts = [PARTS[0], *held_out]
    annotated = AnnotatedPassages.of(parts, RATES)
    assert annotated.of_half(Half.CONFIRMATION).tolist() == [False, True, True]
    assert annotated.of_half(Half.CONFIRMATION, Side.DOMAIN).tolist() == [False, False, True]


def test_the_mean_of_a_sentence_is_over_its_units(annotated):
    values = np.random.default_rng(0).random((len(annotated.units.words.texts), 3))
    means = annotated.mean_by_segment(values)
    segment = annotated.units.words.segment
    for number in range(len(means)):
        assert np.allclose(means[number], values[segment == number].mean(0))


def test_passages_without_a_word_are_annotated_as_empty():
    empty = AnnotatedPassages.of([passage("   ", Side.DOMAIN, Half.DISCOVERY)], RATES)
    assert empty.lengths.tolist() == [0]
    assert empty.holds.shape == (0, 3)
    assert empty.units.of_token.tolist() == [-1, -1]
