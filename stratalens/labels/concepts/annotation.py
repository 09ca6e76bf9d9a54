"""Passages as running words, with the concepts and phrases that stand in them: all that a label may speak of."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from stratalens.corpus import Half, Side
from stratalens.corpus.words import FUNCTION_WORDS, Kind, Words
from stratalens.evidence.evidence import LayerEvidence, first_tokens
from stratalens.evidence.passages import Passage
from stratalens.labels.concepts.lexicon import Lexicon, Matches

LONGEST_PHRASE = 3
PHRASE_SEGMENTS = 3
"""A phrase counts when it stands in at least so many sentences, of at least two passages."""


class Units(NamedTuple):
    """The units of passages, and the unit that each token belongs to."""

    words: Words
    of_token: Int[np.ndarray, "token"]
    """-1 at special tokens and at white space."""


def split_units(passages: Sequence[Passage]) -> Units:
    """Units of all passages; a token belongs to the unit in which its last visible character stands."""
    words = Words.of([passage.text for passage in passages])
    starts = first_tokens(passages)
    first_unit = np.searchsorted(words.passage, np.arange(len(passages) + 1))
    of_token = np.full(starts[-1], -1)
    for number, passage in enumerate(passages):
        own = words.start[first_unit[number] : first_unit[number + 1]]
        last = np.array([start + len(passage.text[start:end].rstrip()) - 1 for start, end in passage.offsets])
        unit = np.searchsorted(own, last, side="right") - 1
        visible = (last >= passage.offsets[:, 0]) & (unit >= 0)
        of_token[starts[number] : starts[number + 1]] = np.where(visible, unit + first_unit[number], -1)
    return Units(words, of_token)


def unit_activations(evidence: LayerEvidence, units: Units) -> Float[np.ndarray, "unit feature"]:
    """Activation of each feature on each unit: the maximum over its tokens."""
    values = np.zeros((len(units.words.texts), len(evidence.features)), np.float32)
    for column in range(len(evidence.features)):
        token, activation = evidence.entries(column)
        unit = units.of_token[token]
        np.maximum.at(values[:, column], unit[unit >= 0], activation[unit >= 0])
    return values


class Phrases(NamedTuple):
    """Words and phrases that recur in the text, and where they stand."""

    names: list[str]
    """As most often written."""
    stems: list[tuple[str, ...]]
    phrase: Int[np.ndarray, "occurrence"]
    first: Int[np.ndarray, "occurrence"]
    """First unit of the occurrence."""


def find_phrases(
    words: Words, longest: int = LONGEST_PHRASE, counted: Bool[np.ndarray, "unit"] | None = None
) -> Phrases:
    """Words and phrases of up to so many words, without function words at their ends, that recur.

    Args:
        words: where to look.
        longest: words of a phrase, at most.
        counted: units that decide which phrases there are and how they are written; None for all.
    """
    counted = np.ones(len(words.texts), bool) if counted is None else counted
    positions = [int(at) for at in np.flatnonzero(words.kind == Kind.WORD)]
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    written: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    for place, at in enumerate(positions):
        if not _content(words.texts[at]):
            continue
        for length in range(1, longest + 1):
            run = positions[place : place + length]
            if len(run) < length or not words.joined[run[1:]].all():
                break
            if not _content(words.texts[run[-1]]):
                continue
            key = tuple(words.stems[unit] for unit in run)
            places[key].append(at)
            if counted[at]:
                written[key][" ".join(words.texts[unit] for unit in run).lower()] += 1
    kept = {key: found for key, found in places.items() if _recurs(words, [at for at in found if counted[at]])}
    return Phrases(
        names=[_usual(written[key]) for key in kept],
        stems=list(kept),
        phrase=np.repeat(np.arange(len(kept)), [len(found) for found in kept.values()]),
        first=np.array([at for found in kept.values() for at in found], dtype=np.int64),
    )


def _usual(spellings: Counter[str]) -> str:
    """The most frequent spelling; of several the longest, which says most."""
    return max(spellings, key=lambda written: (spellings[written], len(written), written))


def _recurs(words: Words, places: list[int]) -> bool:
    return len(set(words.segment[places])) >= PHRASE_SEGMENTS and len(set(words.passage[places])) >= 2


def _content(word: str) -> bool:
    return len(word) > 1 and word.lower() not in FUNCTION_WORDS


def presence(
    candidate: Int[np.ndarray, "occurrence"], segment: Int[np.ndarray, "occurrence"], candidates: int, segments: int
) -> sparse.csr_array:
    """Whether each segment holds each candidate, `[segment, candidate]`, 0 or 1."""
    matrix = sparse.coo_array((np.ones(len(candidate)), (segment, candidate)), shape=(segments, candidates)).tocsr()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True)
class AnnotatedPassages:
    """Passages as units, with everything in them that a label may speak of. Candidates are concepts, then phrases."""

    passages: Sequence[Passage]
    units: Units
    lexicon: Lexicon
    matches: Matches
    phrases: Phrases
    holds: sparse.csr_array
    """Whether each sentence holds each candidate, `[segment, candidate]`."""
    holds_more: sparse.csr_array
    """As `holds`, of concepts only, without each concept's most frequent term, `[segment, concept]`."""
    covers: sparse.csr_array
    """Whether each unit lies in a term of each concept, `[unit, concept]`."""
    counts: sparse.csr_array
    """How often each passage holds each candidate, `[passage, candidate]`."""
    segment_passage: Int[np.ndarray, "segment"]
    counted: Bool[np.ndarray, "unit"]
    """Units of the discovery half, which alone decide what a label may say and how it is spelt."""

    @classmethod
    def of(
        cls, passages: Sequence[Passage], lexicon: Lexicon, longest_phrase: int = LONGEST_PHRASE
    ) -> "AnnotatedPassages":
        """Split passages and find concepts, and phrases of at most so many words, in them."""
        units = split_units(passages)
        words = units.words
        counted = np.array([passage.half == Half.DISCOVERY for passage in passages], dtype=bool)[words.passage]
        matches, phrases = lexicon.find(words), find_phrases(words, longest_phrase, counted)
        concepts = len(lexicon.concepts)
        candidates = concepts + len(phrases.names)
        candidate = np.concatenate([matches.concept, phrases.phrase + concepts])
        first = np.concatenate([matches.first, phrases.first])
        segments = int(words.segment.max(initial=-1)) + 1
        segment_passage = np.zeros(segments, np.int64)
        segment_passage[words.segment] = words.passage
        other = ~_of_most_frequent_term(matches, counted[matches.first])
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
            holds=presence(candidate, words.segment[first], candidates, segments),
            holds_more=presence(matches.concept[other], words.segment[matches.first[other]], concepts, segments),
            covers=presence(np.repeat(matches.concept, lengths), inside, concepts, len(words.texts)),
            counts=counts.tocsr(),
            segment_passage=segment_passage,
            counted=counted,
        )

    @property
    def concepts(self) -> int:
        """Number of concepts; phrases come after them."""
        return len(self.lexicon.concepts)

    @property
    def lengths(self) -> Int[np.ndarray, "passage"]:
        """Units of each passage."""
        return np.bincount(self.units.words.passage, minlength=len(self.passages))

    def count_words(self, stems: Sequence[str]) -> Float[np.ndarray, "passage"]:
        """How often words of these stems stand in each passage."""
        words = self.units.words
        hit = np.array([own in stems for own in words.stems], dtype=np.float64)
        return np.bincount(words.passage, hit, len(self.passages))

    def phrase_stems(self, candidate: int) -> tuple[str, ...]:
        """Stems of a candidate that is a phrase."""
        return self.phrases.stems[candidate - self.concepts]

    def phrase_name(self, candidate: int) -> str:
        """A candidate that is a phrase, as most often written."""
        return self.phrases.names[candidate - self.concepts]

    def written(self, stem: str) -> str:
        """The most frequent word of a stem in the discovery half."""
        words = self.units.words
        at = [unit for unit in np.flatnonzero(self.counted) if words.stems[unit] == stem]
        return _usual(Counter(words.texts[unit].lower() for unit in at))

    def members(self, concept: int) -> dict[str, str]:
        """Stems of the units that lie in terms of a concept, each with its most frequent spelling there."""
        words = self.units.words
        spellings: dict[str, Counter[str]] = defaultdict(Counter)
        for unit in self.covers[:, [concept]].tocoo().row:
            if self.counted[unit]:
                spellings[words.stems[unit]][words.texts[unit].lower()] += 1
        return {stem: _usual(counts) for stem, counts in spellings.items()}

    def mean_by_segment(self, activation: Float[np.ndarray, "unit feature"]) -> Float[np.ndarray, "segment feature"]:
        """Mean activation of the units of each sentence."""
        segment = self.units.words.segment
        columns = [np.bincount(segment, column, len(self.segment_passage)) for column in activation.T]
        return np.stack(columns, axis=1) / np.bincount(segment, minlength=len(self.segment_passage))[:, None]

    def of_half(self, half: Half, side: Side | None = None) -> Bool[np.ndarray, "passage"]:
        """Whether each passage belongs to a half, and to a side where one is named."""
        return np.array([p.half == half and side in (None, p.side) for p in self.passages])


def _of_most_frequent_term(matches: Matches, counted: Bool[np.ndarray, "match"]) -> Bool[np.ndarray, "match"]:
    """Whether each match is by its concept's most frequent term, as far as matches are counted."""
    terms, index = np.unique(matches.term, return_inverse=True)
    counts = np.bincount(index, counted, len(terms))
    concept = np.zeros(len(terms), np.int64)
    concept[index] = matches.concept
    order = np.lexsort((terms, -counts, concept))
    leads = np.zeros(len(terms), bool)
    leads[order[np.diff(concept[order], prepend=-1) != 0]] = True
    return leads[index]
