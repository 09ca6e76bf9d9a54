"""The rows of one side that count, known by the hashes of their texts: which are dropped, and why."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int16, Int64, UInt64

from stratalens.corpus.corpus import Corpus, CorpusRow
from stratalens.corpus.names import MAX_KIND_CHARACTERS, Names
from stratalens.corpus.near_duplicates import SignatureList, Signatures, groups
from stratalens.corpus.populations import Side
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.strata import SideDocuments
from stratalens.corpus.text_sample import TextSample
from stratalens.errors import CorpusError, counted
from stratalens.files.hashing import hash64

MAX_KINDS = 10_000
"""A column with more different values on a side names no kinds."""
MAX_SOURCES = 1_000
"""Where a side has more sources, they are not told apart."""
MIN_ROWS_OF_SHARED_ID = 10
"""Fewer rows of one document are not told, even if they are most of a side."""


@dataclass(frozen=True)
class SideCounts:
    """Counts of rows and documents of one side."""

    rows: int = 0
    """All rows, lines or files read."""
    bad_rows: int = 0
    """Rows that could not be read and were skipped; they are not among `rows`."""
    empty: int = 0
    """Rows without text."""
    too_short: int = 0
    """Rows of fewer tokens than `min_length`."""
    duplicates: int = 0
    """Rows whose exact text occurs earlier on the same side."""
    on_both_sides: int = 0
    """Rows dropped because their exact text is also on the other side."""
    near_duplicates: int = 0
    """Documents dropped because another of the same side says nearly the same."""
    near_duplicates_on_both_sides: int = 0
    """Documents dropped because one of the other side says nearly the same."""
    beyond_max_documents: int = 0
    """Rows of documents that `max_documents` leaves out."""
    without_kind: int = 0
    """Documents left out because they have no kind; the next two as well because of their kinds, see `LeftOut`."""
    kind_on_one_side: int = 0
    too_few_of_kind: int = 0
    kept_rows: int = 0
    documents: int = 0
    """Documents that count."""
    discovery_documents: int = 0
    confirmation_documents: int = 0


@dataclass(frozen=True)
class SideRows:
    """Rows of one side that still count, sorted by the hashes of their texts, and the counts so far."""

    content: UInt64[np.ndarray, "row"]
    document: UInt64[np.ndarray, "row"]
    length: UInt64[np.ndarray, "row"]
    """Characters of each text."""
    kind: Int16[np.ndarray, "row"]
    """Index into `kinds`, or `NO_NAME`."""
    source: Int16[np.ndarray, "row"]
    """Index into `sources`, or `NO_NAME`."""
    kinds: tuple[str, ...]
    sources: tuple[str, ...]
    """Empty where there are more than `MAX_SOURCES`."""
    counts: SideCounts
    characters: int
    signatures: Signatures | None
    """Of the documents; None where near duplicates are kept."""
    warnings: tuple[str, ...]
    sample: TextSample

    def where(self, kept: Bool[np.ndarray, "row"]) -> "SideRows":
        """Some of the rows."""
        columns = {name: getattr(self, name)[kept] for name in ("content", "document", "length", "kind", "source")}
        return replace(self, **columns)

    def documents(self) -> SideDocuments:
        """The documents; the kind of each is that of its text with the smallest hash."""
        document, first = np.unique(self.document, return_index=True)
        return SideDocuments(document, self.kind[first], self.kinds)

    def document_sources(self) -> Int16[np.ndarray, "document"]:
        """The source of each of the documents: that of its text with the smallest hash."""
        return self.source[np.unique(self.document, return_index=True)[1]]


def read_side(
    corpus: Corpus,
    side: Side,
    too_short: Callable[[str], bool],
    on_row: Callable[[], None],
    keep_near_duplicates: bool,
) -> SideRows:
    """Read a side and keep one row per text: of several identities the one with the smallest hash, in any row order."""
    notes, read = ReadingNotes(), _ReadRows(side, None if keep_near_duplicates else SignatureList())
    for row in corpus.rows_of(side, notes):
        read.add(row, too_short)
        del row  # or a huge text would stay in memory until the next one is read
        on_row()
    return read.frozen(notes)


class _ReadRows:
    """The rows of a side that were read so far."""

    def __init__(self, side: Side, signatures: SignatureList | None):
        self._side, self._signatures = side, signatures
        self._content, self._document, self._length = array("Q"), array("Q"), array("Q")
        self._kinds, self._sources = Names(MAX_KINDS), Names(MAX_SOURCES)
        self._sample = TextSample()
        self._rows = self._empty = self._short = self._characters = 0

    def add(self, row: CorpusRow, too_short: Callable[[str], bool]) -> None:
        """Add a row.

        Raises:
            CorpusError: its kind cannot be one.
        """
        text = row.text
        self._rows += 1
        self._characters += len(text)
        if not text:
            self._empty += 1
        elif too_short(text):
            self._short += 1
        else:
            self._content.append(hash64(text))
            self._document.append(hash64("document", int(self._side), row.identity))
            self._length.append(len(text))
            self._sources.add(row.source)
            self._kinds.add(row.kind)
            if self._kinds.too_many or len(row.kind or "") > MAX_KIND_CHARACTERS:
                raise CorpusError(
                    f"{row.source}: `{(row.kind or '')[:MAX_KIND_CHARACTERS]}` is no kind of text: a side has at most "
                    f"{MAX_KINDS:,} kinds, each named in at most {MAX_KIND_CHARACTERS} characters; name another column "
                    "with --kind_column"
                )
            self._sample.add(self._content[-1], self._document[-1], text)
            if self._signatures is not None:
                self._signatures.add(self._document[-1], text)

    def frozen(self, notes: ReadingNotes) -> SideRows:
        """The rows that count, each text once."""
        columns = (self._content, self._document, self._length)
        content, document, length = (np.frombuffer(column, np.uint64) for column in columns)
        (kinds, kind), (sources, source) = self._kinds.sorted(), self._sources.sorted()
        first = _first_row_of_each_text(content, document, kind, source)
        counts = SideCounts(
            rows=self._rows,
            bad_rows=notes.bad_rows.count,
            empty=self._empty,
            too_short=self._short,
            duplicates=len(content) - len(first),
        )
        return SideRows(
            content=content[first],
            document=document[first],
            length=length[first],
            kind=kind[first],
            source=source[first],
            kinds=kinds,
            sources=sources,
            counts=counts,
            characters=self._characters,
            signatures=None if self._signatures is None else self._signatures.merged(),
            warnings=tuple(notes.warnings()),
            sample=self._sample,
        )


def _first_row_of_each_text(
    content: UInt64[np.ndarray, "row"],
    document: UInt64[np.ndarray, "row"],
    kind: Int16[np.ndarray, "row"],
    source: Int16[np.ndarray, "row"],
) -> Int64[np.ndarray, "text"]:
    """Indices of the rows to keep, in the order of their texts' hashes."""
    order = np.lexsort((source, kind, document, content))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.diff(content[order]) != 0
    return order[new]


def drop_common_texts(domain: SideRows, general: SideRows) -> list[SideRows]:
    """Drop the texts that are on both sides from both."""
    common = domain.content[_is_member(domain.content, general.content)]
    return [
        replace(rows.where(~_is_member(rows.content, common)), counts=replace(rows.counts, on_both_sides=len(common)))
        for rows in (domain, general)
    ]


def drop_near_duplicates(sides: list[SideRows]) -> list[SideRows]:
    """Keep of each group of near duplicates the document with the smallest hash of a text; of both sides, none."""
    documents = [np.unique(rows.document) for rows in sides]
    if not any(map(len, documents)):
        return sides
    signatures = [rows.signatures.of(own) for rows, own in zip(sides, documents, strict=True) if rows.signatures]
    smallest = np.concatenate([_smallest_content(*pair) for pair in zip(sides, documents, strict=True)])
    group = groups(np.concatenate(signatures), smallest)
    side = np.repeat([0, 1], [len(own) for own in documents])
    on_both = np.isin(group, np.intersect1d(group[side == 0], group[side == 1]))
    by_content = np.lexsort((smallest, group))
    first = np.zeros(len(group), bool)
    first[by_content[np.diff(group[by_content], prepend=-1) != 0]] = True
    kept = first & ~on_both
    return [
        replace(
            rows.where(_is_member(rows.document, own[kept[side == number]])),
            counts=replace(
                rows.counts,
                near_duplicates=int(np.count_nonzero(~first[side == number] & ~on_both[side == number])),
                near_duplicates_on_both_sides=int(np.count_nonzero(on_both[side == number])),
            ),
        )
        for number, (rows, own) in enumerate(zip(sides, documents, strict=True))
    ]


def _smallest_content(rows: SideRows, documents: UInt64[np.ndarray, "document"]) -> UInt64[np.ndarray, "document"]:
    """Smallest hash of a text of each document."""
    smallest = np.full(len(documents), 2**64 - 1, np.uint64)
    np.minimum.at(smallest, np.searchsorted(documents, rows.document), rows.content)
    return smallest


def _is_member(values: UInt64[np.ndarray, "value"], entries: UInt64[np.ndarray, "entry"]) -> Bool[np.ndarray, "value"]:
    """Whether each value is among the sorted entries; takes less memory than `np.isin`."""
    if not len(entries):
        return np.zeros(len(values), dtype=bool)
    return entries[np.minimum(np.searchsorted(entries, values), len(entries) - 1)] == values


def keep_documents(rows: SideRows, documents: UInt64[np.ndarray, "document"]) -> SideRows:
    """Keep the rows of these documents, given by their hashes in rising order."""
    return rows.where(_is_member(rows.document, documents))


def side_warnings(rows: SideRows) -> tuple[str, ...]:
    """What was unusual in the files of a side, and an id that most of its rows share."""
    _, index, sizes = np.unique(rows.document, return_inverse=True, return_counts=True)
    warnings = list(rows.warnings)
    largest = int(sizes.max(initial=0))
    if largest >= MIN_ROWS_OF_SHARED_ID and 2 * largest > len(rows.document):
        warnings.append(
            f"{largest:,} of {len(rows.document):,} rows share 1 id and count as one document; if they are documents "
            "of their own, name another column with --id_column, or none"
        )
    several = len(np.unique(index[rows.documents().kind[index] != rows.kind]))
    if several:
        has = "has" if several == 1 else "have"
        warnings.append(f"{counted(several, 'document')} {has} rows of several kinds; one of them counts")
    return tuple(warnings)
