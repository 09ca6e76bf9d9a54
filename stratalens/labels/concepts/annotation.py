"""Passages split into words, numbers and marks, with the concepts and phrases in them that a label may use."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from stratalens.corpus import Half, Side
from stratalens.corpus.words import FUNCTION_WORDS, UnitKind, Words
from stratalens.evidence.evidence import LayerEvidence, first_tokens
from stratalens.evidence.passages import Passage
from stratalens.labels.concepts.lexicon import Lexicon, Matches

MAX_PHRASE_WORDS = 3
MIN_PHRASE_SENTENCES = 3
"""A phrase is used if it is in at least this many sentences, of at least two passages."""


class Units(NamedTuple):
    """The units (words, numbers, marks) of passages, and the unit that each token belongs to."""

    words: Words
    of_token: Int[np.ndarray, "token"]
    """Number of the unit; -1 for special tokens and white space."""


def split_units(passages: Sequence[Passage]) -> Units:
    """Split all passages into units; a token belongs to the unit that holds its last visible character."""
    words = Words.of([passage.text for passage in passages])
    starts = first_tokens(passages)
    first_unit = np.searchsorted(words.passage, np.arange(len(passages) + 1))
    of_token = np.full(starts[-1], -1)
    for number, passage in enumerate(passages):
        unit_starts = words.start[first_unit[number] : first_unit[number + 1]]
        last_visible = np.array([start + len(passage.text[start:end].rstrip()) - 1 for start, end in passage.offsets])
        unit = np.searchsorted(unit_starts, last_visible, side="right") - 1
        visible = (last_visible >= passage.offsets[:, 0]) & (unit >= 0)
        of_token[starts[number] : starts[number + 1]] = np.where(visible, unit + first_unit[number], -1)
    return Units(words, of_token)


def unit_activations(evidence: LayerEvidence, units: Units) -> Float[np.ndarray, "unit feature"]:
    """Return the activation of each feature on each unit: the maximum over the tokens of the unit."""
    values = np.zeros((len(units.words.texts), len(evidence.features)), np.float32)
    for column in range(len(evidence.features)):
        token, activation = evidence.entries(column)
        unit = units.of_token[token]
        np.maximum.at(values[:, column], unit[unit >= 0], activation[unit >= 0])
    return values


class Phrases(NamedTuple):
    """Words and phrases that recur in passages, and where they occur; arrays have one entry per occurrence."""

    names: list[str]
    """The most frequent spelling of each phrase."""
    stems: list[tuple[str, ...]]
    phrase: Int[np.ndarray, "occurrence"]
    """Number of the phrase."""
    first: Int[np.ndarray, "occurrence"]
    """First unit of the occurrence."""


def find_phrases(
    words: Words, max_words: int = MAX_PHRASE_WORDS, counted: Bool[np.ndarray, "unit"] | None = None
) -> Phrases:
    """Find the words and phrases that recur and do not begin or end with a function word.

    Args:
        words: units of the passages.
        max_words: limit on the words of a phrase.
        counted: units that decide which phrases recur and how they are spelt; None for all.
    """
    counted = np.ones(len(words.texts), bool) if counted is None else counted
    positions = [int(unit) for unit in np.flatnonzero(words.kind == UnitKind.WORD)]
    occurrences: dict[tuple[str, ...], list[int]] = defaultdict(list)
    spellings: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for position, unit in enumerate(positions):
        if not _is_content_word(words.texts[unit]):
            continue
        for length in range(1, max_words + 1):
            run = positions[position : position + length]
            if len(run) < length or not words.joined[run[1:]].all():
                break
            if not _is_content_word(words.texts[run[-1]]):
                continue
            key = tuple(words.stems[unit] for unit in run)
            occurrences[key].append(unit)
            if counted[unit]:
                spellings[key][" ".join(words.texts[unit] for unit in run).lower()] += 1
    kept = {
        key: units for key, units in occurrences.items() if _recurs(words, [unit for unit in units if counted[unit]])
    }
    return Phrases(
        names=[_most_frequent(spellings[key]) for key in kept],
        stems=list(kept),
        phrase=np.repeat(np.arange(len(kept)), [len(units) for units in kept.values()]),
        first=np.array([unit for units in kept.values() for unit in units], dtype=np.int64),
    )


def _most_frequent(spellings: Counter[str]) -> str:
    """Return the most frequent spelling; of equally frequent ones the longest, which is the most informative."""
    return max(spellings, key=lambda spelling: (spellings[spelling], len(spelling), spelling))


def _recurs(words: Words, units: list[int]) -> bool:
    return len(set(words.segment[units])) >= MIN_PHRASE_SENTENCES and len(set(words.passage[units])) >= 2


def _is_content_word(word: str) -> bool:
    return len(word) > 1 and word.lower() not in FUNCTION_WORDS


def presence_matrix(
    candidate: Int[np.ndarray, "occurrence"], segment: Int[np.ndarray, "occurrence"], candidates: int, segments: int
) -> sparse.csr_array:
    """Return whether each segment holds each candidate, `[segment, candidate]`, as 0 or 1."""
    matrix = sparse.coo_array((np.ones(len(candidate)), (segment, candidate)), shape=(segments, candidates)).tocsr()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class AnnotatedPassages:
    """Passages split into units, with the candidates for labels in them, which are numbered: concepts, then phrases."""

    passages: Sequence[Passage]
    units: Units
    lexicon: Lexicon
    matches: Matches
    phrases: Phrases
    holds: sparse.csr_array
    """Whether each sentence holds each candidate, `[segment, candidate]`."""
    holds_other_terms: sparse.csr_array
    """As `holds`, for concepts only and without each concept's most frequent term, `[segment, concept]`."""
    covers: sparse.csr_array
    """Whether each unit is part of a term of each concept, `[unit, concept]`."""
    counts: sparse.csr_array
    """How often each passage holds each candidate, `[passage, candidate]`."""
    segment_passage: Int[np.ndarray, "segment"]
    """Number of the passage that each sentence is in."""
    counted: Bool[np.ndarray, "unit"]
    """Whether each unit is of the discovery half, which alone decides which phrases recur and how words are spelt."""

    @classmethod
    def of(
        cls, passages: Sequence[Passage], lexicon: Lexicon, max_phrase_words: int = MAX_PHRASE_WORDS
    ) -> "AnnotatedPassages":
        """Split passages into units, and find in them concepts, and phrases of at most `max_phrase_words` words."""
        units = split_units(passages)
        words = units.words
        counted = np.array([passage.half == Half.DISCOVERY for passage in passages], dtype=bool)[words.passage]
        matches, phrases = lexicon.find(words), find_phrases(words, max_phrase_words, counted)
        concepts = len(lexicon.concepts)
        candidates = concepts + len(phrases.names)
        candidate = np.concatenate([matches.concept, phrases.phrase + concepts])
        first = np.concatenate([matches.first, phrases.first])
        segments = int(words.segment.max(initial=-1)) + 1
        segment_passage = np.zeros(segments, np.int64)
        segment_passage[words.segment] = words.passage
        other_terms = ~_of_most_frequent_term(matches, counted[matches.first])
        lengths = matches.last - matches.first + 1
        inside = np.repeat(matches.first, lengths) + np.concatenate([np.arange(n) for n in lengths] or [lengths])
        shape = (len(passages), candidates)
        counts = sparse.coo_array((np.ones(len(first)), (words.passage[first], candidate)), shape=shape)
        return cls(
            passages=passages,
            units=units,
            lexicon=lexicon,
            matches=matches,
            phrases=phrases,
            holds=presence_matrix(candidate, words.segment[first], candidates, segments),
            holds_other_terms=presence_matrix(
                matches.concept[other_terms], words.segment[matches.first[other_terms]], concepts, segments
            ),
            covers=presence_matrix(np.repeat(matches.concept, lengths), inside, concepts, len(words.texts)),
            counts=counts.tocsr(),
            segment_passage=segment_passage,
            counted=counted,
        )

    @property
    def concepts(self) -> int:
        """Number of concepts, which is the number of the first phrase among the candidates."""
        return len(self.lexicon.concepts)

    @property
    def lengths(self) -> Int[np.ndarray, "passage"]:
        """Number of units of each passage."""
        return np.bincount(self.units.words.passage, minlength=len(self.passages))

    def count_words(self, stems: Sequence[str]) -> Float[np.ndarray, "passage"]:
        """Count the words with one of these stems in each passage."""
        words = self.units.words
        hit = np.array([own in stems for own in words.stems], dtype=np.float64)
        return np.bincount(words.passage, hit, len(self.passages))

    def phrase_stems(self, candidate: int) -> tuple[str, ...]:
        """Return the stems of a candidate that is a phrase."""
        return self.phrases.stems[candidate - self.concepts]

    def phrase_name(self, candidate: int) -> str:
        """Return the most frequent spelling of a candidate that is a phrase."""
        return self.phrases.names[candidate - self.concepts]

    def usual_spelling(self, stem: str) -> str:
        """Return the most frequent word with this stem in the discovery half."""
        words = self.units.words
        units = [unit for unit in np.flatnonzero(self.counted) if words.stems[unit] == stem]
        return _most_frequent(Counter(words.texts[unit].lower() for unit in units))

    def concept_spellings(self, concept: int) -> dict[str, str]:
        """Return stem -> most frequent spelling, for the units in terms of a concept in the discovery half."""
        words = self.units.words
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for unit in self.covers[:, [concept]].tocoo().row:
            if self.counted[unit]:
                spellings[words.stems[unit]][words.texts[unit].lower()] += 1
        return {stem: _most_frequent(counts) for stem, counts in spellings.items()}

    def mean_by_segment(self, activation: Float[np.ndarray, "unit feature"]) -> Float[np.ndarray, "segment feature"]:
        """Return the mean activation over the units of each sentence."""
        segment = self.units.words.segment
        columns = [np.bincount(segment, column, len(self.segment_passage)) for column in activation.T]
        return np.stack(columns, axis=1) / np.bincount(segment, minlength=len(self.segment_passage))[:, None]

    def of_half(self, half: Half, side: Side | None = None) -> Bool[np.ndarray, "passage"]:
        """Return whether each passage belongs to the half and, if one is given, to the side."""
        return np.array([p.half == half and side in (None, p.side) for p in self.passages])


def _of_most_frequent_term(matches: Matches, counted: Bool[np.ndarray, "match"]) -> Bool[np.ndarray, "match"]:
    """Return whether each match is of its concept's most frequent term, by the number of counted matches."""
    terms, index = np.unique(matches.term, return_inverse=True)
    counts = np.bincount(index, counted, len(terms))
    concept = np.zeros(len(terms), np.int64)
    concept[index] = matches.concept
    order = np.lexsort((terms, -counts, concept))
    is_most_frequent = np.zeros(len(terms), bool)
    is_most_frequent[order[np.diff(concept[order], prepend=-1) != 0]] = True
    return is_most_frequent[index]
