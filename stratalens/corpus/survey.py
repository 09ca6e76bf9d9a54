"""Decide by hashes, in one pass over a corpus, which rows count and which population each document belongs to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int64, UInt64

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.populations import Half, Population, Populations, Side
from stratalens.corpus.side_rows import (
    SideCounts,
    SideRows,
    drop_common_texts,
    drop_near_duplicates,
    keep_documents,
    read_side,
    side_warnings,
)
from stratalens.corpus.sources import DocumentSources
from stratalens.corpus.strata import Split, Splits, split_documents
from stratalens.corpus.text_sample import SampledText
from stratalens.errors import CorpusError, counted
from stratalens.files.hashing import first_by_hash, hash64

MAX_SAMPLED_DOCUMENTS = 4096
"""At most this many documents per side and half, divided among the strata, have their values kept individually."""
MAX_CALIBRATION_DOCUMENTS = 32
"""At most this many documents, those with the smallest hashes, give a text for the fit check."""
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
    """Hashes of the texts that give each layer's median norm and the fit check: of some documents one text each."""
    sample: Mapping[int, int]
    """Document whose values are kept individually -> characters of its texts; first the first of each population in the
    order of hashes, then the second of each, and so on."""
    split: bool
    """False if there are too few documents to hold any back for confirmation; all are then in the discovery half."""
    counts: tuple[SideCounts, SideCounts]
    characters: int
    """Characters of all rows read, those that do not count included."""
    kept_characters: int
    """Characters of the texts that count."""
    digest: int
    """Hash over the texts that count and their populations."""
    populations: Populations
    kinds_ignored: bool
    """Whether both sides have kinds of text, of which fewer than two can be compared within themselves."""
    sources: DocumentSources
    """Where the sampled documents are from."""
    warnings: tuple[tuple[str, ...], tuple[str, ...]]
    """What was unusual in the files of each side."""
    samples: tuple[tuple[SampledText, ...], tuple[SampledText, ...]]
    """Texts of each side that count, a few hundred with the smallest hashes."""

    @property
    def kept_rows(self) -> int:
        """Number of rows that count, of both sides."""
        return len(self.content)

    def strata_of(self, texts: Sequence[SampledText]) -> list[int]:
        """Stratum of the document of each of these texts, which count."""
        return [Population.numbered(number).stratum for number in self.populations_of(texts)]

    def populations_of(self, texts: Sequence[SampledText]) -> list[int]:
        """Number of the population of the document of each of these texts, which count."""
        index = np.searchsorted(self.content, np.array([text.content for text in texts], np.uint64))
        return self.membership[index].tolist()

    def select(self, corpus: Corpus, only: frozenset[int] | None = None) -> Iterator[DocumentRow]:
        """Read the corpus again and yield each row that counts once; with `only`, just those with these text hashes.

        Raises:
            CorpusError: a file cannot be read.
        """
        pending = np.ones(len(self.content), dtype=bool)
        remaining = len(pending) if only is None else len(only)
        for row in corpus.rows():
            if remaining == 0:
                return
            text = row.text
            content, document = hash64(text), hash64("document", int(row.side), row.identity)
            index = int(np.searchsorted(self.content, np.uint64(content)))
            counts = index < len(pending) and self.content[index] == content and self.document[index] == document
            if counts and pending[index] and (only is None or content in only):
                pending[index] = False
                remaining -= 1
                yield DocumentRow(text, content, document, int(self.membership[index]), document in self.sample)
            del row, text  # or a huge text would stay in memory until the next one is read


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
        max_documents: at most this many documents per side, those with the smallest hashes, of each kind in proportion;
            None keeps all.
        seed: seed of the split and of the samples.
        keep_near_duplicates: whether documents that say nearly the same all count.
        on_row: called after each row read.

    Raises:
        CorpusError: a file cannot be read, or a side has too few documents to compare.
    """
    sides = [read_side(corpus, side, too_short, on_row, keep_near_duplicates) for side in Side]
    return compare_sides(sides, max_documents=max_documents, seed=seed, keep_near_duplicates=keep_near_duplicates)


def compare_sides(
    sides: Sequence[SideRows],
    *,
    max_documents: int | None,
    seed: int,
    keep_near_duplicates: bool = False,
    halves: bool = True,
) -> Survey:
    """Decide of rows that were read which count and to which population each document belongs.

    Args:
        sides: the rows of both sides.
        max_documents, seed, keep_near_duplicates: as in `survey`.
        halves: whether documents may be held back for confirmation; otherwise all are in the discovery half.

    Raises:
        CorpusError: a side has too few documents to compare.
    """
    sides = drop_common_texts(*sides)
    sides = sides if keep_near_duplicates else drop_near_duplicates(sides)
    documents = [rows.documents() for rows in sides]
    splits = split_documents(documents, max_documents, seed, halves=halves)
    _require_documents(sides, splits)
    half_of = splits.populations.halves
    kept = [_keep_compared(*pair, half_of) for pair in zip(sides, splits.sides, strict=True)]
    content, document, membership = _merge_sides(kept, splits)
    compared = np.concatenate([split.document for split in splits.sides])
    sample = _sample(splits, kept, seed)
    return Survey(
        content=content,
        document=document,
        membership=membership,
        calibration=_one_text_each(content, document, first_by_hash(compared, MAX_CALIBRATION_DOCUMENTS, seed)),
        sample=sample,
        split=any((half_of[own.population] == Half.CONFIRMATION).any() for own in splits.sides),
        counts=(kept[0].counts, kept[1].counts),
        characters=sum(rows.characters for rows in sides),
        kept_characters=sum(int(rows.length.sum()) for rows in kept),
        digest=hash64(content.tobytes(), document.tobytes(), membership.tobytes()),
        populations=splits.populations,
        kinds_ignored=splits.kinds_ignored,
        sources=_sources(kept, splits, sample),
        warnings=(side_warnings(kept[0]), side_warnings(kept[1])),
        samples=(sides[0].sample.texts_of(kept[0].content), sides[1].sample.texts_of(kept[1].content)),
    )


def _one_text_each(
    content: UInt64[np.ndarray, "row"], document: UInt64[np.ndarray, "row"], chosen: Sequence[int]
) -> frozenset[int]:
    """The text with the smallest hash of each of the chosen documents; `content` rises."""
    documents, first = np.unique(document, return_index=True)
    return frozenset(content[first[np.isin(documents, np.array(chosen, np.uint64))]].tolist())


def _keep_compared(rows: SideRows, split: Split, halves: Int64[np.ndarray, "population"]) -> SideRows:
    """Keep the rows of the documents that are compared, and count them; `halves` are those of the populations."""
    kept = keep_documents(rows, split.document)
    in_half = np.bincount(halves[split.population], minlength=len(Half))
    counts = replace(
        rows.counts,
        beyond_max_documents=len(keep_documents(rows, split.beyond).content),
        **asdict(split.left_out),
        kept_rows=len(kept.content),
        documents=len(split.document),
        discovery_documents=int(in_half[Half.DISCOVERY]),
        confirmation_documents=int(in_half[Half.CONFIRMATION]),
    )
    return replace(kept, counts=counts)


def _sample(splits: Splits, kept: list[SideRows], seed: int) -> dict[int, int]:
    """The documents whose values are kept, of each population at most the same number, with their characters."""
    limit = MAX_SAMPLED_DOCUMENTS // len(splits.populations.strata)
    chosen = [
        first_by_hash(side.document[side.population == population], limit, seed)
        for side in splits.sides
        for population in np.unique(side.population)
    ]
    sample = {document: 0 for rank in zip_longest(*chosen) for document in rank if document is not None}
    sampled = np.array(sorted(sample), np.uint64)
    for rows in kept:
        own = np.flatnonzero(np.isin(rows.document, sampled))
        for document, length in zip(rows.document[own].tolist(), rows.length[own].tolist(), strict=True):
            sample[document] += length
    return sample


def _sources(kept: list[SideRows], splits: Splits, sample: Mapping[int, int]) -> DocumentSources:
    """Population and source of each sampled document."""
    document = np.concatenate([split.document for split in splits.sides])
    population = np.concatenate([split.population for split in splits.sides])
    source = np.concatenate([rows.document_sources() for rows in kept])
    order = np.argsort(document)
    order = order[np.isin(document[order], np.array(sorted(sample), np.uint64))]
    names = (kept[0].sources, kept[1].sources)
    return DocumentSources(document[order], population[order], source[order], names)


def _merge_sides(kept: list[SideRows], splits: Splits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts, documents and populations of both sides, sorted by the texts' hashes."""
    memberships = [
        split.population[np.searchsorted(split.document, rows.document)]
        for rows, split in zip(kept, splits.sides, strict=True)
    ]
    content = np.concatenate([rows.content for rows in kept])
    order = np.argsort(content)
    document = np.concatenate([rows.document for rows in kept])[order]
    return content[order], document, np.concatenate(memberships)[order]


def _require_documents(sides: list[SideRows], splits: Splits) -> None:
    for side, rows, split in zip(Side, sides, splits.sides, strict=True):
        count = len(split.document)
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
