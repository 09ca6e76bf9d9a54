"""The passages that evidence is drawn from: the strongest ones of each reported feature, and a sample of all text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from stratalens.corpus import Corpus, Half, Side
from stratalens.corpus.populations import POPULATIONS
from stratalens.corpus.survey import Survey, first_by_hash
from stratalens.files.damaged import UNREADABLE, damaged, read_table
from stratalens.files.hashing import hash64
from stratalens.harvest.state.top_examples import EXAMPLES_KEPT, TopExamples
from stratalens.models import PassageCutter
from stratalens.models.tokens import TokenSpan

SAMPLED_TEXTS = 128
"""Texts a population, about, from which one passage each is taken."""
SPANS_TRIED = 8
"""The sampled passage of a text is one of its first few."""
STRONGEST_KEPT = {Side.DOMAIN: 4, Side.GENERAL: 1}
"""Strongest passages of each reported feature and half, by side."""


class PassageLocation(NamedTuple):
    """Where a passage stands in the corpus."""

    content: int
    """64-bit hash of its text."""
    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """A passage as the model reads it."""

    place: PassageLocation
    document: int
    population: int
    text: str
    token_ids: Int[np.ndarray, "seq"]
    """Special tokens included."""
    offsets: Int[np.ndarray, "seq 2"]
    """Characters of each token in `text`; special tokens have none."""

    @property
    def side(self) -> Side:
        """Domain or general."""
        return Side(self.population // 2)

    @property
    def half(self) -> Half:
        """Discovery or confirmation."""
        return Half(self.population % 2)

    def tokens(self) -> "PassageTokens":
        """The text in pieces: what each token adds to it, special tokens left out."""
        positions = [at for at, (start, stop) in enumerate(self.offsets) if stop > start]
        texts, end = [], 0
        for at in positions:
            start, stop = (int(place) for place in self.offsets[at])
            texts.append(self.text[max(start, end) : stop])
            end = max(end, stop)
        return PassageTokens(positions, texts)


class PassageTokens(NamedTuple):
    """The tokens of a passage that have text."""

    positions: list[int]
    texts: list[str]
    """In order; a character of several tokens stands with the first, the others are empty."""


def strongest_passages(examples: TopExamples, features: Iterable[int]) -> set[PassageLocation]:
    """Places of the strongest passages of some features, both sides and halves."""
    assert max(STRONGEST_KEPT.values()) <= EXAMPLES_KEPT
    rows = np.flatnonzero(np.isin(examples.latent, np.fromiter(features, np.int64)))
    cell = np.stack([examples.population[rows], examples.latent[rows]])
    first_of_cell = np.flatnonzero(np.diff(cell, prepend=-1).any(0))
    rank = np.arange(len(rows)) - np.repeat(first_of_cell, np.diff(first_of_cell, append=len(rows)))
    wanted = np.array([STRONGEST_KEPT[Side(p // 2)] for p in range(POPULATIONS)])
    chosen = rows[rank < wanted[cell[0]]]
    columns = (column[chosen].tolist() for column in (examples.content, examples.start, examples.end))
    return {PassageLocation(*place) for place in zip(*columns, strict=True)}


def sample_texts(survey: Survey, seed: int, texts: int = SAMPLED_TEXTS) -> frozenset[int]:
    """Hashes of texts of the documents of smallest hash, as many from every population.

    One a document, and where there are fewer documents, as many more of each as it takes.
    """
    chosen: list[int] = []
    for p in range(POPULATIONS):
        own = np.flatnonzero(survey.membership == p)
        documents = np.array(first_by_hash(np.unique(survey.document[own]), texts, seed), dtype=np.uint64)
        own = own[np.isin(survey.document[own], documents)]
        order = own[np.lexsort((survey.content[own], survey.document[own]))]
        first = np.flatnonzero(np.diff(survey.document[order], prepend=0) != 0)
        place = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        chosen += survey.content[order[place < -(-texts // max(1, len(documents)))]].tolist()
    return frozenset(chosen)


def read_passages(
    corpus: Corpus, survey: Survey, cutter: PassageCutter, places: set[PassageLocation], sampled: frozenset[int]
) -> list[Passage]:
    """Read the corpus once more and cut the passages wanted, in an order that does not depend on the corpus's.

    Args:
        corpus: what to read.
        survey: its rows that count.
        cutter: as in the harvest.
        places: passages to keep.
        sampled: hashes of texts of which one passage is kept wherever it stands.
    """
    wanted: dict[int, set[tuple[int, int]]] = {content: set() for content in sampled}
    for place in places:
        wanted.setdefault(place.content, set()).add((place.start, place.end))
    found = []
    for row in survey.select(corpus, frozenset(wanted)):
        spans = {(span.start, span.end): span for span in _spans(cutter, row.text, wanted[row.content])}
        if row.content in sampled:
            first = cutter.first_spans(row.text, SPANS_TRIED)
            span = first[hash64("span", row.content) % len(first)]
            spans[span.start, span.end] = span
        found += [
            Passage(
                place=PassageLocation(row.content, span.start, span.end),
                document=row.document,
                population=row.population,
                text=row.text[span.start : span.end],
                token_ids=cutter.sequence(span),
                offsets=cutter.token_offsets(span),
            )
            for span in spans.values()
        ]
    return sorted(found, key=lambda passage: (passage.population, passage.place))


def _spans(cutter: PassageCutter, text: str, places: set[tuple[int, int]]) -> Iterator[TokenSpan]:
    left = len(places)
    if left == 0:
        return
    for span in cutter.spans(text):
        if (span.start, span.end) in places:
            yield span
            left -= 1
            if left == 0:
                return


def write_passages(passages: Sequence[Passage], path: Path) -> None:
    """Write passages as one parquet file."""
    pd.DataFrame(
        {
            "content": np.array([p.place.content for p in passages], dtype=np.uint64),
            "start": [p.place.start for p in passages],
            "end": [p.place.end for p in passages],
            "document": np.array([p.document for p in passages], dtype=np.uint64),
            "population": [p.population for p in passages],
            "text": [p.text for p in passages],
            "token_ids": [p.token_ids for p in passages],
            "offsets": [p.offsets.reshape(-1) for p in passages],
        }
    ).to_parquet(path, index=False)


def load_passages(path: Path) -> list[Passage]:
    """Read what `write_passages` wrote.

    Raises:
        ConfigError: the file is damaged.
    """
    table = read_table(path)
    try:
        passages = [
            Passage(
                place=PassageLocation(row["content"], row["start"], row["end"]),
                document=row["document"],
                population=row["population"],
                text=row["text"],
                token_ids=np.asarray(row["token_ids"]),
                offsets=np.asarray(row["offsets"]).reshape(-1, 2),
            )
            for row in table.to_dict("records")
        ]
        sound = all(_is_sound(passage) for passage in passages)
    except UNREADABLE as error:
        raise damaged(path, error) from None
    if not sound:
        raise damaged(path, "a passage does not fit its tokens")
    return passages


def _is_sound(passage: Passage) -> bool:
    ids, offsets, text = passage.token_ids, passage.offsets, passage.text
    numbers = (passage.population, passage.document, *passage.place)
    return bool(
        isinstance(text, str)
        and all(isinstance(number, int) for number in numbers)
        and 0 <= passage.population < POPULATIONS
        and ids.dtype.kind == offsets.dtype.kind == "i"
        and len(ids) == len(offsets) > 0
        and (offsets[:, 0] <= offsets[:, 1]).all()
        and 0 <= offsets.min() <= offsets.max() <= len(text)
    )
