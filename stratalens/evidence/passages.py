"""The passages of the evidence: the strongest ones of each reported feature, and a sample of all text."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from stratalens.corpus import Corpus, Half, Side
from stratalens.corpus.populations import Population, Populations
from stratalens.corpus.survey import DocumentRow, Survey
from stratalens.files.damaged import READ_ERRORS, damaged, read_table
from stratalens.files.hashing import first_by_hash, hash64
from stratalens.harvest.state.top_examples import EXAMPLES_KEPT, TopExamples
from stratalens.models import PassageCutter
from stratalens.models.tokens import TokenSpan

SAMPLED_TEXTS_PER_HALF = 128
"""About this many texts are sampled from each half of each side, with one passage each."""
CANDIDATE_SPANS = 8
"""The passage of a sampled text is one of its first passages, of which there are at most this many."""
SAMPLED_COLUMN = "sampled"
"""Column of the stored passages that results of earlier versions lack."""
STRONGEST_PER_HALF = {Side.DOMAIN: 4, Side.GENERAL: 1}
"""Side -> strongest passages that are read for each reported feature in each half."""


class PassageLocation(NamedTuple):
    """Where a passage is in the corpus."""

    content: int
    """64-bit hash of the text that the passage is cut from."""
    start: int
    """First character of the passage in that text."""
    end: int
    """One past its last character."""


@dataclass(frozen=True)
class Passage:
    """A passage as the model reads it."""

    location: PassageLocation
    document: int
    """64-bit hash that identifies its document."""
    population: Population
    text: str
    token_ids: Int[np.ndarray, "seq"]
    """Special tokens included."""
    offsets: Int[np.ndarray, "seq 2"]
    """First character of each token in `text`, and one past its last; both 0 for special tokens."""
    sampled: bool = False
    """Whether it is in the sample of all text, and not only one of the strongest passages of a feature; results of
    earlier versions do not tell."""

    @property
    def side(self) -> Side:
        """Domain or general."""
        return self.population.side

    @property
    def half(self) -> Half:
        """Discovery or confirmation."""
        return self.population.half

    @cached_property
    def tokens(self) -> "PassageTokens":
        """The text divided among its tokens, without special tokens."""
        positions, texts, end = [], [], 0
        for at, (start, stop) in enumerate(self.offsets.tolist()):
            if stop > start:
                positions.append(at)
                texts.append(self.text[max(start, end) : stop])
                end = max(end, stop)
        return PassageTokens(positions, texts)


class PassageTokens(NamedTuple):
    """The tokens of a passage that have text."""

    positions: list[int]
    """Indices among all tokens of the passage."""
    texts: list[str]
    """Text of each token; a character of several tokens is with the first of them, and the others are empty."""


def strongest_passages(
    examples: TopExamples, features: Iterable[int], populations: Populations
) -> set[PassageLocation]:
    """Locations of the strongest passages of some features, from each half of each side."""
    assert max(STRONGEST_PER_HALF.values()) <= EXAMPLES_KEPT
    rows = np.flatnonzero(np.isin(examples.latent, np.fromiter(features, np.int64)))
    population = examples.population[rows]
    side, half = populations.sides[population], populations.halves[population]
    cell = np.stack([side, half, examples.latent[rows]])
    by_value = (examples.start[rows], examples.content[rows], -examples.value[rows])
    order = np.lexsort((*by_value, *cell[::-1]))  # an order that does not depend on the kinds of text
    rows, cell = rows[order], cell[:, order]
    first_of_cell = np.flatnonzero(np.diff(cell, prepend=-1).any(0))
    rank = np.arange(len(rows)) - np.repeat(first_of_cell, np.diff(first_of_cell, append=len(rows)))
    wanted = np.array([STRONGEST_PER_HALF[side] for side in Side])
    chosen = rows[rank < wanted[cell[0]]]
    columns = (column[chosen].tolist() for column in (examples.content, examples.start, examples.end))
    return {PassageLocation(*location) for location in zip(*columns, strict=True)}


def sample_texts(survey: Survey, seed: int, texts: int = SAMPLED_TEXTS_PER_HALF) -> frozenset[int]:
    """Choose texts by the hash of their document, about equally many from every half of a side, and of every kind.

    One text is taken per document; where there are fewer documents than `texts`, equally many more from each.

    Args:
        survey: the rows of the corpus that count.
        seed: gives another sample.
        texts: wanted from each half of a side.

    Returns:
        64-bit hashes of the texts.
    """
    chosen: list[int] = []
    texts = -(-texts // len(survey.populations.strata))
    for population in survey.populations:
        own = np.flatnonzero(survey.membership == population.number)
        documents = np.array(first_by_hash(np.unique(survey.document[own]), texts, seed), dtype=np.uint64)
        own = own[np.isin(survey.document[own], documents)]
        order = own[np.lexsort((survey.content[own], survey.document[own]))]
        first = np.flatnonzero(np.diff(survey.document[order], prepend=0) != 0)
        rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
        chosen += survey.content[order[rank < -(-texts // max(1, len(documents)))]].tolist()
    return frozenset(chosen)


def read_passages(
    corpus: Corpus,
    survey: Survey,
    cutter: PassageCutter,
    locations: Collection[PassageLocation],
    sampled: frozenset[int],
) -> list[Passage]:
    """Read the corpus again and cut the wanted passages, in an order that does not depend on the order of the corpus.

    Args:
        corpus: what to read.
        survey: its rows that count.
        cutter: the same as for the harvest.
        locations: passages to return.
        sampled: hashes of texts of which one further passage each is returned.

    Raises:
        CorpusError: a file of the corpus cannot be read any more.
    """
    wanted: dict[int, set[tuple[int, int]]] = {content: set() for content in sampled}
    for location in locations:
        wanted.setdefault(location.content, set()).add((location.start, location.end))
    passages = []
    for row in survey.select(corpus, frozenset(wanted)):
        spans = {(span.start, span.end): span for span in _spans(cutter, row.text, wanted[row.content])}
        of_sample = None
        if row.content in sampled:
            candidates = cutter.first_spans(row.text, CANDIDATE_SPANS)
            span = candidates[sampled_span(row.content, len(candidates))]
            of_sample = span.start, span.end
            spans[of_sample] = span
        passages += [cut_passage(row, span, cutter, sampled=place == of_sample) for place, span in spans.items()]
    return sorted(passages, key=lambda passage: (passage.population, passage.location))


def cut_passage(row: DocumentRow, span: TokenSpan, cutter: PassageCutter, *, sampled: bool = False) -> Passage:
    """The passage that a span of a row is."""
    return Passage(
        location=PassageLocation(row.content, span.start, span.end),
        document=row.document,
        population=Population.numbered(row.population),
        text=row.text[span.start : span.end],
        token_ids=cutter.sequence(span),
        offsets=cutter.token_offsets(span),
        sampled=sampled,
    )


def sampled_span(content: int, spans: int) -> int:
    """Which passage of a sampled text is in the sample.

    Args:
        content: hash of the text.
        spans: number of its passages, at least 1.
    """
    return hash64("span", content) % min(spans, CANDIDATE_SPANS)


def _spans(cutter: PassageCutter, text: str, wanted: set[tuple[int, int]]) -> Iterator[TokenSpan]:
    """Yield the spans with the wanted start and end; stop cutting the text after the last of them."""
    missing = len(wanted)
    if missing == 0:
        return
    for span in cutter.spans(text):
        if (span.start, span.end) in wanted:
            yield span
            missing -= 1
            if missing == 0:
                return


def write_passages(passages: Sequence[Passage], path: Path) -> None:
    """Write passages as one parquet file."""
    pd.DataFrame(
        {
            "content": np.array([p.location.content for p in passages], dtype=np.uint64),
            "start": [p.location.start for p in passages],
            "end": [p.location.end for p in passages],
            "document": np.array([p.document for p in passages], dtype=np.uint64),
            "population": [p.population.number for p in passages],
            "text": [p.text for p in passages],
            "token_ids": [p.token_ids for p in passages],
            "offsets": [p.offsets.reshape(-1) for p in passages],
            SAMPLED_COLUMN: np.array([p.sampled for p in passages], dtype=bool),
        }
    ).to_parquet(path, index=False)


def load_passages(path: Path) -> list[Passage]:
    """Load the file of `write_passages`.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    table = read_table(path)
    try:
        passages = [
            Passage(
                location=PassageLocation(row["content"], row["start"], row["end"]),
                document=row["document"],
                population=Population.numbered(row["population"]),
                text=row["text"],
                token_ids=np.asarray(row["token_ids"]),
                offsets=np.asarray(row["offsets"]).reshape(-1, 2),
                sampled=row.get(SAMPLED_COLUMN, False),
            )
            for row in table.to_dict("records")
        ]
        valid = all(is_valid(passage) for passage in passages)
    except READ_ERRORS as error:
        raise damaged(path, error) from None
    if not valid:
        raise damaged(path, "a passage does not fit its tokens")
    return passages


def is_valid(passage: Passage) -> bool:
    """Whether a passage that was read from a file has numbers and text that fit each other."""
    ids, offsets, text = passage.token_ids, passage.offsets, passage.text
    numbers = (passage.population.stratum, passage.document, *passage.location)
    return bool(
        isinstance(text, str)
        and all(isinstance(number, int) for number in numbers)
        and isinstance(passage.sampled, bool)
        and passage.population.stratum >= 0
        and ids.dtype.kind == offsets.dtype.kind == "i"
        and len(ids) == len(offsets) > 0
        and (offsets[:, 0] <= offsets[:, 1]).all()
        and 0 <= offsets.min() <= offsets.max() <= len(text)
    )
