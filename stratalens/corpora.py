"""The two sides of a contrast: which rows count, which population each document belongs to, and reading them again."""

import heapq
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stratalens.errors import CorpusError
from stratalens.hashing import hash64
from stratalens.readers import Row, TextFile, find_files, read_rows

SAMPLED_DOCUMENTS = 4096
"""Documents a population whose values are kept one by one."""
CALIBRATION_DOCUMENTS = 64
"""Documents from which each layer's median norm and the self-check come."""
MIN_SPLIT_DOCUMENTS = 10
"""With fewer documents a side in a half there is nothing to split."""
MIN_DOCUMENTS = 3
"""With fewer documents a side there is no variance worth the name."""
POPULATIONS = 4
"""(domain or general) x (discovery or confirmation)."""


class Side(IntEnum):
    """The two sides of a contrast."""

    DOMAIN = 0
    GENERAL = 1


class Half(IntEnum):
    """Features are selected on discovery documents and estimated on confirmation documents."""

    DISCOVERY = 0
    CONFIRMATION = 1


def population(side: int, half: int) -> int:
    """Index of a population along the population axis of every statistic."""
    return 2 * side + half


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

    rows: int
    """Rows, lines or files in the corpus."""
    empty: int
    """Rows without text."""
    too_short: int
    """Rows of fewer tokens than `min_length`."""
    duplicates: int
    """Rows whose exact text stood there before."""
    on_both_sides: int
    """Rows dropped because their exact text stands on the other side as well."""
    beyond_max_documents: int
    """Rows of documents that `max_documents` leaves out."""
    kept_rows: int
    documents: int
    """Documents that count."""
    discovery_documents: int
    confirmation_documents: int


@dataclass(frozen=True)
class Corpus:
    """Files of both sides, and the name of their text column."""

    files: tuple[tuple[TextFile, ...], tuple[TextFile, ...]]
    text_column: str

    @classmethod
    def find(
        cls, domain: Sequence[str | Path], general: Sequence[str | Path], text_unit: str, text_column: str
    ) -> "Corpus":
        """List the files of both sides.

        Raises:
            CorpusError: see `readers.find_files`.
        """
        return cls((tuple(find_files(domain, text_unit)), tuple(find_files(general, text_unit))), text_column)

    def rows(self) -> Iterator[tuple[Side, str, str]]:
        """Stream (side, text, identity) of all rows, domain first; holds nothing of a row that it has given."""
        for side in Side:
            for file in self.files[side]:
                yield from map(partial(_identified, side), read_rows(file, self.text_column))


def _identified(side: Side, row: Row) -> tuple[Side, str, str]:
    identity = row.identifier.split("#")[0] if row.identifier else ""
    return side, row.text, identity or row.text


@dataclass(frozen=True)
class Survey:
    """The rows that count, known by their hashes alone after one reading: 17 bytes a row, whatever its length."""

    content: np.ndarray
    """Hashes of the texts that count, both sides, sorted, uint64."""
    document: np.ndarray
    """Hash of each text's document."""
    membership: np.ndarray
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


class _Rows(NamedTuple):
    content: np.ndarray
    document: np.ndarray


class _Collected(NamedTuple):
    rows: _Rows
    found: int
    empty: int
    too_short: int
    characters: int


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
    collected = [_collect(side_rows, too_short, on_row) for side_rows in _by_side(corpus)]
    unique = [_without_duplicates(one.rows) for one in collected]
    common = np.intersect1d(unique[0].content, unique[1].content)
    sides = [_Rows(*(array[~np.isin(rows.content, common)] for array in rows)) for rows in unique]
    limited = [_smallest(rows, max_documents, seed) for rows in sides]
    documents = [np.unique(rows.document) for rows in limited]
    _require_documents(collected, documents, len(common))
    halves = [_halves(numbers, seed) for numbers in documents]
    split = all(min(np.count_nonzero(half == h) for h in Half) >= MIN_SPLIT_DOCUMENTS for half in halves)
    if not split:
        halves = [np.zeros_like(half) for half in halves]
    membership = np.concatenate(
        [population(side, 0) + halves[side][np.searchsorted(documents[side], limited[side].document)] for side in Side]
    ).astype(np.int8)
    sample = [
        number
        for side in Side
        for half in Half
        for number in first_by_hash(documents[side][halves[side] == half], SAMPLED_DOCUMENTS, seed)
    ]
    content = np.concatenate([rows.content for rows in limited])
    document = np.concatenate([rows.document for rows in limited])
    order = np.argsort(content)
    counts = tuple(
        SideCounts(
            rows=one.found,
            empty=one.empty,
            too_short=one.too_short,
            duplicates=len(one.rows.content) - len(unique[side].content),
            on_both_sides=len(common),
            beyond_max_documents=len(sides[side].content) - len(limited[side].content),
            kept_rows=len(limited[side].content),
            documents=len(documents[side]),
            discovery_documents=int(np.count_nonzero(halves[side] == Half.DISCOVERY)),
            confirmation_documents=int(np.count_nonzero(halves[side] == Half.CONFIRMATION)),
        )
        for side, one in enumerate(collected)
    )
    return Survey(
        content=content[order],
        document=document[order],
        membership=membership[order],
        calibration=frozenset(first_by_hash(np.unique(document), CALIBRATION_DOCUMENTS, seed)),
        sample=frozenset(sample),
        split=split,
        counts=(counts[0], counts[1]),
        characters=sum(one.characters for one in collected),
        digest=hash64(*(array[order].tobytes() for array in (content, document, membership))),
    )


def _by_side(corpus: Corpus) -> Iterator[Iterator[tuple[Side, str, str]]]:
    for side in Side:
        one = Corpus(tuple(files if s == side else () for s, files in enumerate(corpus.files)), corpus.text_column)  # pyright: ignore[reportArgumentType]
        yield one.rows()


def _collect(
    rows: Iterator[tuple[Side, str, str]], too_short: Callable[[str], bool], on_row: Callable[[], None]
) -> _Collected:
    content, document = array("Q"), array("Q")
    found = empty = short = characters = 0
    for side, text, identity in rows:
        found += 1
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
    kept = _Rows(np.array(content, dtype=np.uint64), np.array(document, dtype=np.uint64))
    return _Collected(kept, found, empty, short, characters)


def _without_duplicates(rows: _Rows) -> _Rows:
    """One row a text; of several identities the one of smallest hash, so that the order of rows does not matter."""
    order = np.lexsort((rows.document, rows.content))
    content, first = np.unique(rows.content[order], return_index=True)
    return _Rows(content, rows.document[order][first])


def _smallest(rows: _Rows, max_documents: int | None, seed: int) -> _Rows:
    numbers = np.unique(rows.document)
    if max_documents is None or len(numbers) <= max_documents:
        return rows
    kept = np.isin(rows.document, np.array(first_by_hash(numbers, max_documents, seed), dtype=np.uint64))
    return _Rows(rows.content[kept], rows.document[kept])


def first_by_hash(documents: np.ndarray, count: int, seed: int) -> list[int]:
    """The documents of smallest hash: a sample that does not depend on their order."""
    return heapq.nsmallest(count, map(int, documents), key=lambda document: hash64(seed, "sample", document))


def _halves(documents: np.ndarray, seed: int) -> np.ndarray:
    return np.fromiter((hash64(seed, "half", int(document)) & 1 for document in documents), np.int8, len(documents))


def _require_documents(collected: list[_Collected], documents: list[np.ndarray], common: int) -> None:
    for side, one in zip(Side, collected, strict=True):
        if len(documents[side]) >= MIN_DOCUMENTS:
            continue
        dropped = [
            f"{number} {reason}"
            for number, reason in ((one.empty, "empty"), (one.too_short, "too short"), (common, "on both sides"))
            if number
        ]
        detail = f" ({one.found} rows read: {', '.join(dropped)})" if dropped else f" ({one.found} rows read)"
        raise CorpusError(
            f"{len(documents[side])} usable documents on the {side.name.lower()} side{detail}; "
            f"at least {MIN_DOCUMENTS} a side are needed"
        )
