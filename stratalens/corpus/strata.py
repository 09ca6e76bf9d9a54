"""Kinds of text as strata: which documents are compared with which, and which half each belongs to.

Documents of one kind are compared with documents of the same kind. A kind is a stratum if both sides have enough of it;
with fewer than two strata the documents are compared without regard to their kinds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int16, UInt64

from stratalens.corpus.names import NO_NAME
from stratalens.corpus.populations import Half, Population, Populations, Side
from stratalens.errors import CorpusError
from stratalens.files.hashing import first_by_hash, hash64

MIN_STRATUM_DOCUMENTS = 5
"""A stratum has so many documents on each side in each half."""
MIN_SPLIT_DOCUMENTS = 10
"""With fewer documents in a half of either side the documents are not split."""
MAX_STRATA = 31


@dataclass(frozen=True)
class SideDocuments:
    """The documents of one side that count."""

    document: UInt64[np.ndarray, "document"]
    """Their hashes, rising."""
    kind: Int16[np.ndarray, "document"]
    """Index into `kinds`, or `NO_NAME`."""
    kinds: tuple[str, ...]
    """Names of the kinds of this side."""

    def where(self, kept: Bool[np.ndarray, "document"]) -> "SideDocuments":
        """Some of the documents."""
        return replace(self, document=self.document[kept], kind=self.kind[kept])

    def of_kind(self, name: str) -> Bool[np.ndarray, "document"]:
        """Which documents are of a kind."""
        return self.kind == (self.kinds.index(name) if name in self.kinds else len(self.kinds))


@dataclass(frozen=True)
class LeftOut:
    """Documents of one side that no stratum has."""

    without_kind: int = 0
    kind_on_one_side: int = 0
    """Their kind is on this side alone."""
    too_few_of_kind: int = 0
    """Their kind has fewer than `MIN_STRATUM_DOCUMENTS` documents in a half of a side."""


@dataclass(frozen=True)
class Split:
    """The documents of one side that are compared, with the population of each."""

    document: UInt64[np.ndarray, "document"]
    """Their hashes, rising."""
    population: Int8[np.ndarray, "document"]
    beyond: UInt64[np.ndarray, "other_document"]
    """Hashes of the documents that `max_documents` leaves out, rising."""
    left_out: LeftOut = LeftOut()


@dataclass(frozen=True)
class Splits:
    """The documents that are compared."""

    sides: tuple[Split, Split]
    populations: Populations
    kinds_ignored: bool
    """Whether both sides have kinds, of which fewer than two can be strata."""


def split_documents(
    sides: Sequence[SideDocuments], max_documents: int | None, seed: int, *, halves: bool = True
) -> Splits:
    """Choose the documents that are compared, and the population of each.

    Every choice depends on hashes alone.

    Args:
        sides: the documents of each side.
        max_documents: at most this many of each side; None keeps all.
        seed: seed of the choice and of the halves.
        halves: whether documents are held back for confirmation; otherwise all are in the discovery half.

    Raises:
        CorpusError: there are more strata than `MAX_STRATA`.
    """
    least = MIN_STRATUM_DOCUMENTS * (len(Half) if halves else 1)
    strata = _strata(sides, max_documents, least)
    if len(strata) < 2:
        limited = [_first_documents(side, max_documents, seed) for side in sides]
        half_of = _halves_by_hash([side.document for side in limited], seed if halves else None)
        splits = [
            Split(own.document, _numbers(side, half, 0), np.setdiff1d(everything.document, own.document))
            for side, everything, own, half in zip(Side, sides, limited, half_of, strict=True)
        ]
        several = len({*sides[0].kinds, *sides[1].kinds}) > 1
        return Splits((splits[0], splits[1]), Populations(), several and all(own.kinds for own in sides))
    names = tuple(sorted(strata))
    choice = _Choice(max_documents, seed, least, halves)
    splits = [_split_by_kind(side, own, names, sides[1 - side], choice) for side, own in zip(Side, sides, strict=True)]
    return Splits((splits[0], splits[1]), Populations(names), kinds_ignored=False)


class _Choice(NamedTuple):
    """How the documents of each kind are chosen and split."""

    max_documents: int | None
    seed: int
    least: int
    """Documents that a side has at least of each stratum."""
    halves: bool
    """Whether half of them are held back for confirmation."""


def _strata(sides: Sequence[SideDocuments], max_documents: int | None, least: int) -> list[str]:
    """Names of the kinds that both sides have enough documents of; with `max_documents` the largest of them."""
    smaller = {
        name: min(int(np.count_nonzero(side.of_kind(name))) for side in sides)
        for name in sides[0].kinds
        if name in sides[1].kinds
    }
    found = [name for name, count in smaller.items() if count >= least]
    if len(found) > MAX_STRATA:
        raise CorpusError(
            f"{len(found)} kinds of text are on both sides; at most {MAX_STRATA} can be compared: join some, or name "
            "another column with --kind_column"
        )
    found.sort(key=lambda name: (-smaller[name], name))
    return found if max_documents is None else found[: max_documents // least]


def _split_by_kind(
    side: Side, own: SideDocuments, strata: Sequence[str], other: SideDocuments, choice: _Choice
) -> Split:
    rows, seed = [np.flatnonzero(own.of_kind(name)) for name in strata], choice.seed
    quotas = _quotas([len(found) for found in rows], choice.max_documents, choice.least)
    kept, population = [], []
    for stratum, (found, quota) in enumerate(zip(rows, quotas, strict=True)):
        chosen = found[_order(own.document[found], seed, "sample")[:quota]] if quota < len(found) else found
        by_half = chosen[_order(own.document[chosen], seed, "half")]
        halves = np.full(len(by_half), Half.CONFIRMATION if choice.halves else Half.DISCOVERY)
        halves[: len(by_half) // 2] = Half.DISCOVERY
        kept.append(by_half)
        population.append(_numbers(side, halves, stratum))
    index = np.concatenate(kept)
    order = np.argsort(index)
    shared = np.isin(own.kind, [at for at, name in enumerate(own.kinds) if name in other.kinds])
    none = own.kind == NO_NAME
    left_out = LeftOut(
        without_kind=int(np.count_nonzero(none)),
        kind_on_one_side=int(np.count_nonzero(~none & ~shared)),
        too_few_of_kind=int(np.count_nonzero(shared)) - sum(map(len, rows)),
    )
    return Split(
        document=own.document[index[order]],
        population=np.concatenate(population)[order],
        beyond=own.document[np.setdiff1d(np.concatenate(rows), index)],
        left_out=left_out,
    )


def _quotas(counts: Sequence[int], max_documents: int | None, least: int) -> list[int]:
    """How many documents of each stratum are kept: in proportion to those there are, but enough for a stratum."""
    if max_documents is None or sum(counts) <= max_documents:
        return list(counts)
    above = np.array(counts) - least
    exact = above * (max_documents - least * len(counts)) / above.sum()
    quotas = np.floor(exact).astype(int)
    remainder = max_documents - least * len(counts) - quotas.sum()
    quotas[np.argsort(quotas - exact, kind="stable")[:remainder]] += 1
    return [least + int(quota) for quota in quotas]


def _first_documents(own: SideDocuments, max_documents: int | None, seed: int) -> SideDocuments:
    if max_documents is None or len(own.document) <= max_documents:
        return own
    return own.where(np.isin(own.document, np.array(first_by_hash(own.document, max_documents, seed), np.uint64)))


def _halves_by_hash(documents: Sequence[UInt64[np.ndarray, "_"]], seed: int | None) -> list[np.ndarray]:
    """The half of each document by its hash; with no seed, or if any half of a side has too few, all discover."""
    if seed is None:
        return [np.full(len(own), Half.DISCOVERY, np.int8) for own in documents]
    halves = [
        np.fromiter((hash64(seed, "half", int(document)) & 1 for document in own), np.int8, len(own))
        for own in documents
    ]
    if any(np.count_nonzero(own == half) < MIN_SPLIT_DOCUMENTS for own in halves for half in Half):
        halves = [np.full_like(own, Half.DISCOVERY) for own in halves]
    return halves


def _order(documents: UInt64[np.ndarray, "_"], seed: int, purpose: str) -> np.ndarray:
    """Indices that sort documents by a seeded hash, so that the order does not depend on that of the files."""
    return np.argsort(np.array([hash64(seed, purpose, int(document)) for document in documents], np.uint64))


def _numbers(side: Side, halves: np.ndarray, stratum: int) -> Int8[np.ndarray, "_"]:
    by_half = np.array([Population(side, half, stratum).number for half in Half], np.int8)
    return by_half[halves]
