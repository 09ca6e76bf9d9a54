"""Documents that an earlier run has read already, exactly or nearly, are dropped from other text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt64

from stratalens.corpus.near_duplicates import Signatures, groups
from stratalens.corpus.side_rows import SideRows
from stratalens.corpus.survey import Survey


@dataclass(frozen=True)
class Overlap:
    """Documents of one side that were dropped because of what the run has read."""

    in_the_run: int
    """With a text that was in the run, on whichever side."""
    nearly_in_the_run: int
    """That say nearly the same as a document of the run."""


def rows_that_count(sides: Sequence[SideRows], survey: Survey) -> list[SideRows]:
    """Of the rows of both sides those that counted in a run.

    Args:
        sides: all rows of the run's text.
        survey: what was decided of them.
    """
    return [rows.where(np.isin(rows.content, survey.content)) for rows in sides]


def drop_known(
    sides: Sequence[SideRows], known: Sequence[SideRows], *, keep_near_duplicates: bool
) -> tuple[list[SideRows], list[Overlap]]:
    """Drop the documents of which a text was in a run, and those that say nearly the same as one of its documents.

    Args:
        sides: rows of new text, both sides.
        known: rows that counted in the run, both sides.
        keep_near_duplicates: drop only documents with exactly a text of the run.

    Returns:
        The other rows, and what was dropped of each side.
    """
    contents = np.concatenate([rows.content for rows in known])
    exact = [np.unique(rows.document[np.isin(rows.content, contents)]) for rows in sides]
    rest = [rows.where(~np.isin(rows.document, own)) for rows, own in zip(sides, exact, strict=True)]
    near = [np.zeros(0, np.uint64)] * len(rest) if keep_near_duplicates else _near(rest, known)
    kept = [rows.where(~np.isin(rows.document, own)) for rows, own in zip(rest, near, strict=True)]
    return kept, [Overlap(len(one), len(other)) for one, other in zip(exact, near, strict=True)]


def _near(sides: Sequence[SideRows], known: Sequence[SideRows]) -> list[UInt64[np.ndarray, "document"]]:
    """The documents of each side that are in one group with a document of the run."""
    everything = [*sides, *known]
    documents = [np.unique(rows.document) for rows in everything]
    signatures = [_signatures(rows).of(own) for rows, own in zip(everything, documents, strict=True)]
    group = groups(np.concatenate(signatures), np.concatenate(documents))
    owner = np.repeat(np.arange(len(everything)), [len(own) for own in documents])
    of_run = np.unique(group[owner >= len(sides)])
    return [own[np.isin(group[owner == side], of_run)] for side, own in enumerate(documents[: len(sides)])]


def _signatures(rows: SideRows) -> Signatures:
    assert rows.signatures is not None  # they were read to find near duplicates
    return rows.signatures
