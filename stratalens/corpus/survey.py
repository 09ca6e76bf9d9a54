"""Decide by hashes, in one pass over a corpus, which rows count and which population each document belongs to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, UInt64

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Populations, Side
from stratalens.corpus.side_rows import (
    SideCounts,
    SideRows,
    apply_max_documents,
    drop_common_texts,
    drop_near_duplicates,
    first_by_hash,
    read_side,
    side_warnings,
)
from stratalens.corpus.text_sample import SampledText
from stratalens.errors import CorpusError, counted
from stratalens.files.hashing import hash64

MAX_SAMPLED_DOCUMENTS = 4096
"""At most this many documents per population have their values kept individually."""
MAX_CALIBRATION_DOCUMENTS = 64
"""At most this many documents give each layer's median norm and the fit check of its SAE."""
MIN_SPLIT_DOCUMENTS = 10
"""With fewer documents in a half of either side the documents are not split."""
MIN_DOCUMENTS = 3
"""A side with fewer documents gives no usable estimate of variance."""


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
    sides = [read_side(corpus, side, too_short, on_row, keep_near_duplicates) for side in Side]
    sides = drop_common_texts(*sides)
    sides = sides if keep_near_duplicates else drop_near_duplicates(sides)
    sides = [apply_max_documents(rows, max_documents, seed) for rows in sides]
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
        warnings=(side_warnings(sides[0]), side_warnings(sides[1])),
        samples=(sides[0].sample.texts_of(sides[0].content), sides[1].sample.texts_of(sides[1].content)),
    )


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


def _merge_sides(sides: list[SideRows], splits: list[_Split]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, documents and populations of both sides, sorted by the texts' hashes."""
    memberships = [
        Populations().where(side=side).astype(np.int8)[split.halves[np.searchsorted(split.documents, rows.document)]]
        for side, rows, split in zip(Side, sides, splits, strict=True)
    ]
    content = np.concatenate([rows.content for rows in sides])
    order = np.argsort(content)
    document = np.concatenate([rows.document for rows in sides])[order]
    return content[order], document, np.concatenate(memberships)[order]


def _final_counts(rows: SideRows, split: _Split) -> SideCounts:
    return replace(
        rows.counts,
        kept_rows=len(rows.content),
        documents=len(split.documents),
        discovery_documents=int(np.count_nonzero(split.halves == Half.DISCOVERY)),
        confirmation_documents=int(np.count_nonzero(split.halves == Half.CONFIRMATION)),
    )


def _require_documents(sides: list[SideRows], splits: list[_Split]) -> None:
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
            "near duplicates (--keep_near_duplicates keeps them)": counts.near_duplicates,
            "near duplicates on both sides": counts.near_duplicates_on_both_sides,
        }
        reasons = [f"{number:,} {reason}" for reason, number in dropped.items() if number]
        if len(rows.document) > count:
            reasons.append(f"{len(rows.document):,} rows share {counted(count, 'id')}; see --id_column")
        if counts.bad_rows:
            reasons.append(next((warning for warning in rows.warnings if "skipped" in warning), ""))
        detail = f" ({counted(counts.rows, 'row')} read{': ' if reasons else ''}{', '.join(reasons)})"
        raise CorpusError(
            f"{counted(count, 'usable document')} on the {side.name.lower()} side{detail}; "
            f"at least {MIN_DOCUMENTS} per side are needed"
        )
