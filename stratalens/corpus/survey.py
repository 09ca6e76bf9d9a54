"""Decide by hashes, in one pass over a corpus, which rows count and which population each document belongs to."""

import heapq
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int8, Int64, UInt64

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.near_duplicates import SignatureList, Signatures, groups
from stratalens.corpus.populations import Half, Populations, Side
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.text_sample import SampledText, TextSample
from stratalens.errors import CorpusError
from stratalens.files.hashing import hash64

MAX_SAMPLED_DOCUMENTS = 4096
"""At most this many documents per population have their values kept individually."""
MAX_CALIBRATION_DOCUMENTS = 64
"""At most this many documents give each layer's median norm and the fit check of its SAE."""
MIN_SPLIT_DOCUMENTS = 10
"""With fewer documents in a half of either side the documents are not split."""
MIN_DOCUMENTS = 3
"""A side with fewer documents gives no usable estimate of variance."""
MIN_ROWS_OF_SHARED_ID = 10
"""Fewer rows of one document are not told, even if they are most of a side."""


class DocumentRow(NamedTuple):
    """A row that counts, with the document and the population it belongs to."""

    text: str
    content: int
    """64-bit hash of the text."""
    document: int
    """64-bit hash of the document's side and identity: its `id` up to `#`, else its text."""
    population: int
    """Number of the document's population, see `Populations`."""
    sampled: bool
    """Whether the document's values are kept individually."""


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
    kept_rows: int = 0
    documents: int = 0
    """Documents that count."""
    discovery_documents: int = 0
    confirmation_documents: int = 0


@dataclass(frozen=True)
class Survey:
    """The rows that count, known by their hashes alone: 17 bytes per row, however long its text is."""

    content: UInt64[np.ndarray, "row"]
    """Hash of each text that counts, of both sides, in rising order."""
    document: UInt64[np.ndarray, "row"]
    """Hash of each text's document."""
    membership: Int8[np.ndarray, "row"]
    """Number of the population of each text's document."""
    calibration: frozenset[int]
    """Documents used for calibration."""
    sample: frozenset[int]
    """Documents whose values are kept individually."""
    split: bool
    """False if there are too few documents to hold any back for confirmation; all are then in the discovery half."""
    counts: tuple[SideCounts, SideCounts]
    characters: int
    """Characters of all rows read, those that do not count included."""
    digest: int
    """Hash over the texts that count and their populations."""
    populations: Populations
    warnings: tuple[tuple[str, ...], tuple[str, ...]]
    """What was unusual in the files of each side."""
    samples: tuple[tuple[SampledText, ...], tuple[SampledText, ...]]
    """Texts of each side that count, a few hundred with the smallest hashes."""

    @property
    def kept_rows(self) -> int:
        """Number of rows that count, of both sides."""
        return len(self.content)

    def texts_of(self, documents: frozenset[int]) -> frozenset[int]:
        """Hashes of the texts that belong to these documents."""
        return frozenset(self.content[np.isin(self.document, np.array(sorted(documents), dtype=np.uint64))].tolist())

    def select(self, corpus: Corpus, only: frozenset[int] | None = None) -> Iterator[DocumentRow]:
        """Read the corpus again and yield each row that counts once; with `only`, just those with these text hashes.

        Raises:
            CorpusError: a file cannot be read.
        """
        pending = np.ones(len(self.content), dtype=bool)
        remaining = len(pending) if only is None else len(only)
        for side, text, identity in corpus.rows():
            if remaining == 0:
                return
            content, document = hash64(text), hash64("document", int(side), identity)
            index = int(np.searchsorted(self.content, np.uint64(content)))
            counts = index < len(pending) and self.content[index] == content and self.document[index] == document
            if counts and pending[index] and (only is None or content in only):
                pending[index] = False
                remaining -= 1
                yield DocumentRow(text, content, document, int(self.membership[index]), document in self.sample)
            del text, identity  # or a huge text would stay in memory until the next one is read


@dataclass(frozen=True)
class _SideRows:
    """Rows of one side that still count, sorted by the hashes of their texts, and the counts so far."""

    content: UInt64[np.ndarray, "row"]
    document: UInt64[np.ndarray, "row"]
    counts: SideCounts
    characters: int
    signatures: Signatures | None
    """Of the documents; None where near duplicates are kept."""
    warnings: tuple[str, ...]
    sample: TextSample

    def where(self, kept: np.ndarray) -> "_SideRows":
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
    keep_near_duplicates: bool = False,
    on_row: Callable[[], None] = lambda: None,
) -> Survey:
    """Read both sides once and decide which rows count and to which population each document belongs.

    Every choice depends on hashes alone, so the order of rows and files does not matter.

    Args:
        corpus: the files of both sides.
        too_short: returns whether a text is too short to count.
        max_documents: at most this many documents per side, those with the smallest hashes; None keeps all.
        seed: seed of the split and of the samples.
        keep_near_duplicates: whether documents that say nearly the same all count.
        on_row: called after each row read.

    Raises:
        CorpusError: a file cannot be read, or a side has too few documents to compare.
    """
    sides = [_read_side(corpus, side, too_short, on_row, keep_near_duplicates) for side in Side]
    sides = _drop_common_texts(*sides)
    sides = sides if keep_near_duplicates else _drop_near_duplicates(sides)
    sides = [_apply_max_documents(rows, max_documents, seed) for rows in sides]
    splits = _splits([np.unique(rows.document) for rows in sides], seed)
    split = any(np.any(side.halves == Half.CONFIRMATION) for side in splits)
    _require_documents(sides, splits)
    content, document, membership = _merge_sides(sides, splits)
    return Survey(
        content=content,
        document=document,
        membership=membership,
        calibration=frozenset(first_by_hash(chain(*(s.documents for s in splits)), MAX_CALIBRATION_DOCUMENTS, seed)),
        sample=_sample(splits, seed),
        split=split,
        counts=(_final_counts(sides[0], splits[0]), _final_counts(sides[1], splits[1])),
        characters=sum(rows.characters for rows in sides),
        digest=hash64(content.tobytes(), document.tobytes(), membership.tobytes()),
        populations=Populations(),
        warnings=(_warnings(sides[0]), _warnings(sides[1])),
        samples=(sides[0].sample.texts_of(sides[0].content), sides[1].sample.texts_of(sides[1].content)),
    )


def first_by_hash(documents: Iterable[int | np.integer], count: int, seed: int) -> list[int]:
    """The `count` documents with the smallest seeded hashes: a sample that does not depend on their order."""
    return heapq.nsmallest(count, map(int, documents), key=lambda document: hash64(seed, "sample", document))


def _read_side(
    corpus: Corpus,
    side: Side,
    too_short: Callable[[str], bool],
    on_row: Callable[[], None],
    keep_near_duplicates: bool,
) -> _SideRows:
    """Read a side and keep one row per text: of several identities the one with the smallest hash, in any row order."""
    content, document = array("Q"), array("Q")
    signatures, sample, notes = SignatureList(), TextSample(), ReadingNotes()
    rows = empty = short = characters = 0
    for _, text, identity in corpus.rows_of(side, notes):
        rows += 1
        characters += len(text)
        if not text:
            empty += 1
        elif too_short(text):
            short += 1
        else:
            content.append(hash64(text))
            document.append(hash64("document", int(side), identity))
            sample.add(content[-1], text)
            if not keep_near_duplicates:
                signatures.add(document[-1], text)
        del text, identity  # or a huge text would stay in memory until the next one is read
        on_row()
    hashes = np.frombuffer(content, np.uint64), np.frombuffer(document, np.uint64)
    first = _first_row_of_each_text(*hashes)
    counts = SideCounts(
        rows=rows,
        bad_rows=notes.bad_rows.count,
        empty=empty,
        too_short=short,
        duplicates=len(content) - len(first),
    )
    return _SideRows(
        hashes[0][first],
        hashes[1][first],
        counts,
        characters,
        None if keep_near_duplicates else signatures.merged(),
        tuple(notes.warnings()),
        sample,
    )


def _first_row_of_each_text(
    content: UInt64[np.ndarray, "row"], document: UInt64[np.ndarray, "row"]
) -> Int64[np.ndarray, "text"]:
    """Indices of the rows to keep, in the order of their texts' hashes."""
    order = np.lexsort((document, content))
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.diff(content[order]) != 0
    return order[new]


def _drop_common_texts(domain: _SideRows, general: _SideRows) -> list[_SideRows]:
    """Drop the texts that are on both sides from both."""
    common = domain.content[_is_member(domain.content, general.content)]
    return [
        replace(rows.where(~_is_member(rows.content, common)), counts=replace(rows.counts, on_both_sides=len(common)))
        for rows in (domain, general)
    ]


def _drop_near_duplicates(sides: list[_SideRows]) -> list[_SideRows]:
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


def _smallest_content(rows: _SideRows, documents: UInt64[np.ndarray, "document"]) -> UInt64[np.ndarray, "document"]:
    """Smallest hash of a text of each document."""
    smallest = np.full(len(documents), 2**64 - 1, np.uint64)
    np.minimum.at(smallest, np.searchsorted(documents, rows.document), rows.content)
    return smallest


def _is_member(values: UInt64[np.ndarray, "value"], entries: UInt64[np.ndarray, "entry"]) -> Bool[np.ndarray, "value"]:
    """Whether each value is among the sorted entries; takes less memory than `np.isin`."""
    if not len(entries):
        return np.zeros(len(values), dtype=bool)
    return entries[np.minimum(np.searchsorted(entries, values), len(entries) - 1)] == values


def _apply_max_documents(rows: _SideRows, max_documents: int | None, seed: int) -> _SideRows:
    documents = np.unique(rows.document)
    if max_documents is None or len(documents) <= max_documents:
        return rows
    chosen = np.sort(np.array(first_by_hash(documents, max_documents, seed), dtype=np.uint64))
    kept = rows.where(_is_member(rows.document, chosen))
    return replace(kept, counts=replace(rows.counts, beyond_max_documents=len(rows.content) - len(kept.content)))


def _splits(documents: list[UInt64[np.ndarray, "_"]], seed: int) -> list[_Split]:
    """Assign documents to halves by hash; if any half of a side has too few, all go into the discovery half."""
    halves = [
        np.fromiter((hash64(seed, "half", int(document)) & 1 for document in own), np.int8, len(own))
        for own in documents
    ]
    if any(np.count_nonzero(own == half) < MIN_SPLIT_DOCUMENTS for own in halves for half in Half):
        halves = [np.full_like(own, Half.DISCOVERY) for own in halves]
    return [_Split(*pair) for pair in zip(documents, halves, strict=True)]


def _sample(splits: list[_Split], seed: int) -> frozenset[int]:
    return frozenset(
        document
        for side in splits
        for half in Half
        for document in first_by_hash(side.documents[side.halves == half], MAX_SAMPLED_DOCUMENTS, seed)
    )


def _merge_sides(sides: list[_SideRows], splits: list[_Split]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, documents and populations of both sides, sorted by the texts' hashes."""
    memberships = [
        Populations().where(side=side).astype(np.int8)[split.halves[np.searchsorted(split.documents, rows.document)]]
        for side, rows, split in zip(Side, sides, splits, strict=True)
    ]
    content = np.concatenate([rows.content for rows in sides])
    order = np.argsort(content)
    document = np.concatenate([rows.document for rows in sides])[order]
    return content[order], document, np.concatenate(memberships)[order]


def _final_counts(rows: _SideRows, split: _Split) -> SideCounts:
    return replace(
        rows.counts,
        kept_rows=len(rows.content),
        documents=len(split.documents),
        discovery_documents=int(np.count_nonzero(split.halves == Half.DISCOVERY)),
        confirmation_documents=int(np.count_nonzero(split.halves == Half.CONFIRMATION)),
    )


def _warnings(rows: _SideRows) -> tuple[str, ...]:
    """What was unusual in the files of a side, and an id that most of its rows share."""
    _, sizes = np.unique(rows.document, return_counts=True)
    largest = int(sizes.max(initial=0))
    if largest < MIN_ROWS_OF_SHARED_ID or 2 * largest <= len(rows.document):
        return rows.warnings
    shared = (
        f"{largest:,} of {len(rows.document):,} rows share 1 id and count as one document; if they are documents of "
        "their own, name another column with --id_column, or none"
    )
    return (*rows.warnings, shared)


def _require_documents(sides: list[_SideRows], splits: list[_Split]) -> None:
    for side, rows, split in zip(Side, sides, splits, strict=True):
        count = len(split.documents)
        if count >= MIN_DOCUMENTS:
            continue
        counts = rows.counts
        dropped = {
            "bad": counts.bad_rows,
            "empty": counts.empty,
            "too short": counts.too_short,
            "duplicate": counts.duplicates,
            "on both sides": counts.on_both_sides,
            "near duplicates": counts.near_duplicates,
            "near duplicates on both sides": counts.near_duplicates_on_both_sides,
        }
        reasons = [f"{number:,} {reason}" for reason, number in dropped.items() if number]
        if len(rows.document) > count:
            reasons.append(f"{len(rows.document):,} rows share {count} id{'s' * (count != 1)}; see --id_column")
        if counts.bad_rows:
            reasons.append(next((warning for warning in rows.warnings if "skipped" in warning), ""))
        detail = f" ({counts.rows:,} rows read{': ' if reasons else ''}{', '.join(reasons)})"
        raise CorpusError(
            f"{count} usable document{'s' * (count != 1)} on the {side.name.lower()} side{detail}; "
            f"at least {MIN_DOCUMENTS} per side are needed"
        )
