"""Sides that mean nothing: documents dealt out at random to the four populations of a run, within each kind of text."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from stratalens.corpus import Half, Populations, Side
from stratalens.harvest.state.document_sample import DocumentMatrix

REPETITIONS = 200
"""Times that documents are dealt out."""
CELLS = [(half, side) for half in Half for side in Side]
MIN_OF_A_CELL = 2
"""Fewer documents of a kind have no variance."""

Dealt = Mapping[tuple[Half, Side], Int[np.ndarray, "repetition document"]]
"""Half and side -> rows of the documents of one kind that each repetition deals to them, the same number in each."""


def halves_of_general(documents: DocumentMatrix, populations: Populations, seed: int) -> list[Dealt]:
    """Deal the general documents of each kind in four equal parts, two of which play the domain.

    Args:
        documents: those of one hookpoint; the same documents are dealt alike at every hookpoint.
        populations: those of the run.
        seed: of the run.

    Returns:
        One entry a kind; kinds with fewer than eight documents are left out.
    """
    rng = np.random.default_rng([seed, 1])
    dealt = list[Dealt]()
    for stratum in range(len(populations.strata)):
        rows = _rows(documents, populations.where(side=Side.GENERAL, stratum=stratum))
        if len(rows) >= len(CELLS) * MIN_OF_A_CELL:
            parts = np.array_split(_shuffled(rng, rows), len(CELLS), axis=1)
            dealt.append(dict(zip(CELLS, parts, strict=True)))
    return dealt


def shuffled_sides(documents: DocumentMatrix, populations: Populations, seed: int) -> list[Dealt]:
    """Shuffle the sides of the documents within each kind and half, so that all numbers of documents stay.

    The arguments are those of `halves_of_general`.
    """
    rng = np.random.default_rng([seed, 2])
    dealt = list[Dealt]()
    for stratum in range(len(populations.strata)):
        cells = {}
        for half in Half:
            sides = [_rows(documents, populations.where(side=side, half=half, stratum=stratum)) for side in Side]
            both = _shuffled(rng, np.concatenate(sides))
            cells[half, Side.DOMAIN], cells[half, Side.GENERAL] = np.split(both, [len(sides[0])], axis=1)
        if min(rows.shape[1] for rows in cells.values()) >= MIN_OF_A_CELL:
            dealt.append(cells)
    return dealt


def general_documents(documents: DocumentMatrix, populations: Populations) -> int:
    """Number of general documents, of both halves and all kinds."""
    return len(_rows(documents, populations.where(side=Side.GENERAL)))


def _rows(documents: DocumentMatrix, own: np.ndarray) -> Int[np.ndarray, "document"]:
    return np.flatnonzero(np.isin(documents.population, own))


def _shuffled(rng: np.random.Generator, rows: np.ndarray) -> Int[np.ndarray, "repetition document"]:
    return rng.permuted(np.tile(rows, (REPETITIONS, 1)), axis=1)


def joined(dealt: Sequence[Dealt], half: Half, side: Side) -> Int[np.ndarray, "repetition document"]:
    """The documents of all kinds that each repetition deals to a half and a side."""
    return np.concatenate([cells[half, side] for cells in dealt], axis=1)
