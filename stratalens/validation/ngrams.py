"""The n-grams of tokens on which a feature fires most: what the token test pastes into other text.

In a causal model the activation on a token depends on what ends there, so an n-gram is counted at its last token.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from stratalens.corpus import Half
from stratalens.evidence import Evidence
from stratalens.evidence.evidence import LayerEvidence
from stratalens.hookpoint import Hookpoint

NGRAM_SIZES = (1, 2, 3)
MAX_NGRAMS = 8
"""At most so many n-grams of each size are pasted."""
MIN_NGRAMS = 3
"""With fewer of a size, rarer ones are taken as well."""
FLOORS: Mapping[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 2), (2, 2), (1, 1)),
    2: ((2, 2), (2, 1), (1, 1)),
    3: ((2, 2), (2, 1), (1, 1)),
}
"""Size -> the fewest occurrences and passages of an n-gram: first the floor, then what takes its place where too few
n-grams reach it."""

Ngram = tuple[int, ...]
"""Token ids."""
Ngrams = dict[int, list[Ngram]]
"""Size -> n-grams, best first; sizes without any are left out."""


@dataclass(frozen=True)
class _Occurrences:
    """The n-grams of one size in the passages that choose."""

    number: Int[np.ndarray, "token"]
    """Number of the n-gram that ends at each token of the evidence; -1 where none does."""
    ids: Int[np.ndarray, "ngram size"]
    """In rising order."""
    count: Int[np.ndarray, "ngram"]
    passages: Int[np.ndarray, "ngram"]
    """In how many passages each occurs."""


@dataclass(frozen=True)
class _Tokens:
    """The tokens of all passages of the evidence."""

    ids: Int[np.ndarray, "token"]
    passage: Int[np.ndarray, "token"]
    ordinary: Bool[np.ndarray, "token"]
    """Whether it is no special token."""
    counted: Bool[np.ndarray, "token"]
    """Whether it is ordinary, in a passage of the half that chooses, and not at position 0."""

    @classmethod
    def of(cls, evidence: Evidence, half: Half, special_ids: Collection[int]) -> "_Tokens":
        passages = evidence.passages
        ids = np.concatenate([passage.token_ids for passage in passages])
        owner = np.repeat(np.arange(len(passages)), np.diff(evidence.starts))
        ordinary = ~np.isin(ids, np.array(sorted(special_ids), np.int64))
        counted = ordinary & np.array([passage.half == half for passage in passages])[owner]
        counted[evidence.starts[:-1]] = False
        return cls(ids, owner, ordinary, counted)


def strongest_ngrams(
    evidence: Evidence, half: Half, special_ids: Collection[int]
) -> dict[Hookpoint, dict[int, Ngrams]]:
    """Choose the n-grams of each reported feature by their pointwise mutual information (PMI) with its activation.

    PMI(g) = log((share of the feature's activation on tokens where g ends) / (share of the tokens where g ends)). Only
    n-grams of positive PMI are taken. Ties go to the larger activation, then to the lower ids.
    Church and Hanks 1990, *Word association norms, mutual information, and lexicography*.

    Args:
        evidence: passages of both sides, token by token.
        half: whose passages choose.
        special_ids: tokens that are in no n-gram.

    Returns:
        Hookpoint -> feature -> its n-grams; a feature that fires on none of these passages has none.
    """
    tokens = _Tokens.of(evidence, half, special_ids)
    occurrences = {size: _occurrences(tokens, size) for size in NGRAM_SIZES}
    total = max(1, int(tokens.counted.sum()))
    return {
        hookpoint: {
            int(feature): _of_feature(own, column, tokens.counted, occurrences, total)
            for column, feature in enumerate(own.features)
        }
        for hookpoint, own in evidence.layers.items()
    }


def _occurrences(tokens: _Tokens, size: int) -> _Occurrences:
    """Find the n-grams of one size: runs of ordinary tokens of one passage that end at a counted token."""
    ends = np.flatnonzero(tokens.counted)
    ends = ends[ends >= size - 1]
    runs = ends[:, None] + np.arange(1 - size, 1)
    inside = (tokens.passage[runs] == tokens.passage[ends][:, None]) & tokens.ordinary[runs]
    ends, runs = ends[inside.all(1)], runs[inside.all(1)]
    number = np.full(len(tokens.ids), -1, np.int64)
    ids, number[ends] = np.unique(tokens.ids[runs], axis=0, return_inverse=True)
    pairs = np.unique(np.stack([number[ends], tokens.passage[ends]], axis=1), axis=0)
    count, passages = (np.bincount(own, minlength=len(ids)) for own in (number[ends], pairs[:, 0]))
    return _Occurrences(number, ids, count, passages)


def _of_feature(
    evidence: LayerEvidence,
    column: int,
    counted: Bool[np.ndarray, "token"],
    occurrences: Mapping[int, _Occurrences],
    total: int,
) -> Ngrams:
    token, activation = evidence.entries(column)
    token, activation = token[counted[token]], activation[counted[token]].astype(np.float64)
    chosen: Ngrams = {}
    if activation.sum() > 0:
        for size, own in occurrences.items():
            at = own.number[token]
            mass = np.bincount(at[at >= 0], activation[at >= 0], len(own.ids))
            if best := _best(own, mass / activation.sum(), total, size):
                chosen[size] = best
    return chosen


def _best(own: _Occurrences, share: Float[np.ndarray, "ngram"], total: int, size: int) -> list[Ngram]:
    """The n-grams of highest positive PMI that reach the floor, and of lower floors as many as are needed."""
    fired = np.flatnonzero(share > 0)
    pmi = np.log(share[fired]) - np.log(own.count[fired] / total)
    fired, pmi = fired[pmi > 0], pmi[pmi > 0]
    fired = fired[np.lexsort((fired, -share[fired], -pmi))]  # numbers are in the order of the ids
    chosen: list[int] = []
    for count, passages in FLOORS[size]:
        reached = fired[(own.count[fired] >= count) & (own.passages[fired] >= passages)].tolist()
        limit = MIN_NGRAMS if chosen or (count, passages) != FLOORS[size][0] else MAX_NGRAMS
        chosen += [number for number in reached if number not in chosen][: max(0, limit - len(chosen))]
    return [tuple(own.ids[number].tolist()) for number in chosen]
