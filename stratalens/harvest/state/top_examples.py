"""The passages in which each latent is strongest, by population: bounded, mergeable, whatever the order of work."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int, UInt64

from stratalens.harvest.state.passage_values import PassageValues

EXAMPLES_KEPT = 8
"""Passages kept for each latent in each population."""


@dataclass(frozen=True)
class PassagePointers:
    """Where each passage of a set is in the corpus."""

    content: UInt64[np.ndarray, "passage"]
    """Hash of the text that the passage is cut from."""
    start: Int[np.ndarray, "passage"]
    """First character of the passage in that text."""
    end: Int[np.ndarray, "passage"]
    """One past its last character."""


@dataclass(frozen=True)
class TopExamples:
    """For each population and latent the passages of highest maximum x, at most `EXAMPLES_KEPT`, as one table.

    Rows are sorted by population, latent and falling value; ties by hash of the text, then by start.
    """

    population: Int[np.ndarray, "example"]
    latent: Int[np.ndarray, "example"]
    value: Float[np.ndarray, "example"]
    """Maximum activation in the passage, x[p, f], float32, above 0."""
    content: UInt64[np.ndarray, "example"]
    """Location of the passage, see `PassagePointers`."""
    start: Int[np.ndarray, "example"]
    end: Int[np.ndarray, "example"]

    @classmethod
    def empty(cls) -> "TopExamples":
        """A table without rows: merging it changes nothing."""
        ints = np.zeros(0, np.int64)
        return cls(ints, ints, np.zeros(0, np.float32), np.zeros(0, np.uint64), ints, ints)

    @classmethod
    def of(cls, values: PassageValues, pointers: PassagePointers) -> "TopExamples":
        """Choose the strongest passages of one set."""
        return cls(
            population=values.population[values.passage].astype(np.int64),
            latent=values.latent.astype(np.int64),
            value=values.maximum.astype(np.float32),
            content=pointers.content[values.passage],
            start=pointers.start[values.passage].astype(np.int64),
            end=pointers.end[values.passage].astype(np.int64),
        )._strongest()

    @property
    def cell(self) -> Int[np.ndarray, "example"]:
        """Population and latent of each row as one number, never falling from row to row."""
        return (self.population << np.int64(28)) | self.latent

    def _select(self, rows: np.ndarray) -> "TopExamples":
        return TopExamples(*(getattr(self, field.name)[rows] for field in fields(TopExamples)))

    def _strongest(self) -> "TopExamples":
        # One sort key for cell and falling value: the bits of positive floats, read as integers, sort as the floats do.
        cell = self.cell
        key = (cell.astype(np.uint64) << np.uint64(32)) | (~self.value.view(np.uint32)).astype(np.uint64)
        order = np.argsort(key)
        if np.any(np.diff(key[order]) == 0):  # equal values of one latent are rare
            order = np.lexsort((self.start, self.content, key))
        cell = cell[order]
        first_of_cell = np.flatnonzero(np.diff(cell, prepend=-1))
        rank = np.arange(len(cell)) - np.repeat(first_of_cell, np.diff(first_of_cell, append=len(cell)))
        return self._select(order[rank < EXAMPLES_KEPT])


def merge(*parts: TopExamples) -> TopExamples:
    """Keep the strongest passages of all parts; no input changes."""
    columns = [np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(TopExamples)]
    return TopExamples(*columns)._strongest()


def possible_entries(new: TopExamples, held: TopExamples) -> TopExamples:
    """Drop new examples that `merge` would never keep beside the held ones.

    These are weaker than every held example of their population and latent, of which there are `EXAMPLES_KEPT` already.
    """
    cells, first, count = np.unique(held.cell, return_index=True, return_counts=True)
    full = count == EXAMPLES_KEPT
    cells, weakest = cells[full], held.value[first[full] + EXAMPLES_KEPT - 1]
    if len(cells) == 0:
        return new
    index = np.minimum(np.searchsorted(cells, new.cell), len(cells) - 1)
    return new._select((cells[index] != new.cell) | (new.value >= weakest[index]))
