"""Which rows of a corpus count, and which population each document belongs to: decided by hashes in one reading."""

import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int64, UInt64

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Side, population
from stratalens.errors import CorpusError
from stratalens.files.hashing import hash64

SAMPLED_DOCUMENTS = 4096
"""Documents a population whose values are kept one by one."""
CALIBRATION_DOCUMENTS = 64
"""Documents from which each layer's median norm and the self-check come."""
MIN_SPLIT_DOCUMENTS = 10
"""With fewer documents a side in a half there is nothing to split."""
MIN_DOCUMENTS = 3
"""With fewer documents a side there is no variance worth the name."""


class DocumentRow(NamedTuple):
    """A row that counts, with the document and the population it belongs to."""

    text: str
    content: int
    """64-bit hash of the text."""
    document: int
    """64-bit hash of the document's side and identity: its `id` up to `#`, else its text."""
    population: int
    sampled: bool
    """Whether the document's values are kept one by one."""


@dataclass(frozen=True)
class SideCounts:
    """What a first reading of one side found."""

    rows: int = 0
    """Rows, lines or files in the corpus."""
    empty: int = 0
    """Rows without text."""
    too_short: int = 0
    """Rows of fewer tokens than `min_length`."""
    duplicates: int = 0
    """Rows whose exact text stood there before."""
    on_both_sides: int = 0
    """Rows dropped because their exact text stands on the other side as well."""
    beyond_max_documents: int = 0
    """Rows of documents that `max_documents` leaves out."""
    kept_rows: int = 0
    documents: int = 0
    """Documents that count."""
    discovery_documents: int = 0
    confirmation_documents: int = 0


@dataclass(frozen=True)
class Survey:
    """The rows that count, known by their hashes alone after one reading: 17 bytes a row, whatever its length."""

    content: UInt64[np.ndarray, "row"]
    """Hashes of the texts that count, both sides, sorted, uint64."""
    document: UInt64[np.ndarray, "row"]
    """Hash of each text's document."""
    membership: Int8[np.ndarray, "row"]
    """Population of each text's document, int8."""
    calibration: frozenset[int]
    """Documents for calibration."""
    sample: frozenset[int]
    """Documents whose values are kept one by one."""
    split: bool
    """False when there are too few documents to hold any back for confirmation: all are in the discovery half."""
    counts: tuple[SideCounts, SideCounts]
    characters: int
    """Of all rows read, those that do not count included."""
    digest: int
    """Hash over the texts that count and their populations."""

    @property
    def kept_rows(self) -> int:
        """Rows that count, both sides."""
        return len(self.content)

    def texts_of(self, documents: frozenset[int]) -> frozenset[int]:
        """Hashes of the texts that belong to these documents."""
        return frozenset(self.content[np.isin(self.document, np.array(sorted(documents), dtype=np.uint64))].tolist())

    def select(self, corpus: Corpus, only: frozenset[int] | None = None) -> Iterator[DocumentRow]:
        """Read the corpus again and yield each row that counts once; with `only`, the rows of these text hashes."""
        pending = np.ones(len(self.content), dtype=bool)
        wanted = len(pending) if only is None else len(only)
        for side, text, identity in corpus.rows():
            if wanted == 0:
                return
            content, document = hash64(text), hash64("document", int(side), identity)
            at = int(np.searchsorted(self.content, np.uint64(content)))
            known = at < len(pending) and self.content[at] == content and self.document[at] == document
            if known and pending[at] and (only is None or content in only):
                pending[at] = False
                wanted -= 1
                yield DocumentRow(text, content, document, int(self.membership[at]), document in self.sample)
            del text, identity  # or a huge text would stay until the next one is there


@dataclass(frozen=True)
class _SideRows:
    """Rows of one side that still count, in the order of their texts' hashes, and what was found on the way."""

    content: UInt64[np.ndarray, "row"]
    document: UInt64[np.ndarray, "row"]
    counts: SideCounts
    characters: int

    def only(self, kept: np.ndarray) -> "_SideRows":
        return replace(self, content=self.content[kept], document=self.document[kept])


@dataclass(frozen=True)
class _Split:
    """The documents of one side, sorted, and the half of each."""

    documents: UInt64[np.ndarray, "document"]
    halves: Int8[np.ndarray, "document"]


def survey(
    corpus: Corpus,
    *,
    too_short: Callable[[str], bool],
    max_documents: int | None,
    seed: int,
    on_row: Callable[[], None] = lambda: None,
) -> Survey:
    """Read both sides once and decide which rows count and to which population each document belongs.

    Every choice goes by hashes, so the order of rows and files does not matter.

    Args:
        corpus: what to read.
        too_short: tells whether a text is too short to count.
        max_documents: at most this many documents a side, the ones of smallest hash.
        seed: of the split and of the sample.
        on_row: called after each row read.

    Raises:
        CorpusError: a side has too few documents to compare.
    """
    sides = [_read_side(corpus, side, too_short, on_row) for side in Side]
    sides = _without_common(*sides)
    sides = [_limited(rows, max_documents, seed) for rows in sides]
    splits = _splits([np.unique(rows.document) for rows in sides], seed)
    split = any(np.any(one.halves == Half.CONFIRMATION) for one in splits)
    _require_documents(sides, splits)
    content, document, membership = _in_order(sides, splits)
    return Survey(
        content=content,
        document=document,
        membership=membership,
        calibration=frozenset(first_by_hash(chain(*(one.documents for one in splits)), CALIBRATION_DOCUMENTS, seed)),
        sample=_sample(splits, seed),
        split=split,
        counts=(_counted(sides[0], splits[0]), _counted(sides[1], splits[1])),
        characters=sum(rows.characters for rows in sides),
        digest=hash64(content.tobytes(), document.tobytes(), membership.tobytes()),
    )


def first_by_hash(documents: Iterable[int | np.integer], count: int, seed: int) -> list[int]:
    """The documents of smallest hash: a sample that does not depend on their order."""
    return heapq.nsmallest(count, map(int, documents), key=lambda document: hash64(seed, "sample", document))


def _read_side(corpus: Corpus, side: Side, too_short: Callable[[str], bool], on_row: Callable[[], None]) -> _SideRows:
    """One row a text; of several identities the one of smallest hash, so that the order of rows does not matter."""
    content, document = array("Q"), array("Q")
    rows = empty = short = characters = 0
    for _, text, identity in corpus.rows_of(side):
        rows += 1
        characters += len(text)
        if not text:
            empty += 1
        elif too_short(text):
            short += 1
        else:
            content.append(hash64(text))
            document.append(hash64("document", int(side), identity))
        del text, identity  # or a huge text would stay until the next one is there
        on_row()
    hashes = np.frombuffer(content, np.uint64), np.frombuffer(document, np.uint64)
    first = _first_of_each(*hashes)
    counts = SideCounts(rows=rows, empty=empty, too_short=short, duplicates=len(content) - len(first))
    return _SideRows(hashes[0][first], hashes[1][first], counts, characters)


def _first_of_each(
    content: UInt64[np.ndarray, "row"], document: UInt64[np.ndarray, "row"]
) -> Int64[np.ndarray, "text"]:
    """Places of the rows to keep, in the order of their texts' hashes."""
    order = np.lexsort((document, content))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.diff(content[order]) != 0
    return order[new]


def _without_common(one: _SideRows, other: _SideRows) -> list[_SideRows]:
    """Both sides without the texts that stand on both."""
    common = one.content[_member(one.content, other.content)]
    return [
        replace(rows.only(~_member(rows.content, common)), counts=replace(rows.counts, on_both_sides=len(common)))
        for rows in (one, other)
    ]


def _member(values: UInt64[np.ndarray, "value"], among: UInt64[np.ndarray, "entry"]) -> Bool[np.ndarray, "value"]:
    """Whether each value is among sorted ones; takes less memory than `np.isin`."""
    if not len(among):
        return np.zeros(len(values), dtype=bool)
    return among[np.minimum(np.searchsorted(among, values), len(among) - 1)] == values


def _limited(rows: _SideRows, max_documents: int | None, seed: int) -> _SideRows:
    documents = np.unique(rows.document)
    if max_documents is None or len(documents) <= max_documents:
        return rows
    chosen = np.sort(np.array(first_by_hash(documents, max_documents, seed), dtype=np.uint64))
    kept = rows.only(_member(rows.document, chosen))
    return replace(kept, counts=replace(rows.counts, beyond_max_documents=len(rows.content) - len(kept.content)))


def _splits(documents: list[UInt64[np.ndarray, "_"]], seed: int) -> list[_Split]:
    """Halves by hash; with too few documents in any, all are in the discovery half."""
    halves = [
        np.fromiter((hash64(seed, "half", int(document)) & 1 for document in own), np.int8, len(own))
        for own in documents
    ]
    if any(np.count_nonzero(own == half) < MIN_SPLIT_DOCUMENTS for own in halves for half in Half):
        halves = [np.full_like(own, Half.DISCOVERY) for own in halves]
    return [_Split(*pair) for pair in zip(documents, halves, strict=True)]


def _sample(splits: list[_Split], seed: int) -> frozenset[int]:
    return frozenset(
        number
        for one in splits
        for half in Half
        for number in first_by_hash(one.documents[one.halves == half], SAMPLED_DOCUMENTS, seed)
    )


def _in_order(sides: list[_SideRows], splits: list[_Split]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, documents and populations of both sides in the order of the texts' hashes."""
    memberships = [
        np.int8(population(side, 0)) + one.halves[np.searchsorted(one.documents, rows.document)]
        for side, rows, one in zip(Side, sides, splits, strict=True)
    ]
    content = np.concatenate([rows.content for rows in sides])
    order = np.argsort(content)
    document = np.concatenate([rows.document for rows in sides])[order]
    return content[order], document, np.concatenate(memberships)[order]


def _counted(rows: _SideRows, split: _Split) -> SideCounts:
    return replace(
        rows.counts,
        kept_rows=len(rows.content),
        documents=len(split.documents),
        discovery_documents=int(np.count_nonzero(split.halves == Half.DISCOVERY)),
        confirmation_documents=int(np.count_nonzero(split.halves == Half.CONFIRMATION)),
    )


def _require_documents(sides: list[_SideRows], splits: list[_Split]) -> None:
    for side, rows, one in zip(Side, sides, splits, strict=True):
        if len(one.documents) >= MIN_DOCUMENTS:
            continue
        counts = rows.counts
        dropped = [
            f"{number} {reason}"
            for number, reason in (
                (counts.empty, "empty"),
                (counts.too_short, "too short"),
                (counts.on_both_sides, "on both sides"),
            )
            if number
        ]
        detail = f" ({counts.rows} rows read: {', '.join(dropped)})" if dropped else f" ({counts.rows} rows read)"
        raise CorpusError(
            f"{len(one.documents)} usable documents on the {side.name.lower()} side{detail}; "
            f"at least {MIN_DOCUMENTS} a side are needed"
        )
