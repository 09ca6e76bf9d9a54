"""The passages on which each latent is strongest, by population: bounded, mergeable, independent of order."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int, UInt64

from stratalens.harvest.state.passage_values import PassageValues

EXAMPLES_KEPT = 8


@dataclass(frozen=True)
class PassagePointers:
    """Where the passages of a set stand in the corpus."""

    content: UInt64[np.ndarray, "passage"]
    """Hash of the text that the passage is cut from."""
    start: Int[np.ndarray, "passage"]
    """First character of the passage in that text."""
    end: Int[np.ndarray, "passage"]


@dataclass(frozen=True)
class TopExamples:
    """Of each population and latent at most `EXAMPLES_KEPT` passages, those of highest x, as one table.

    Rows go by population, latent and falling value; ties by hash, then by place.
    """

    population: Int[np.ndarray, "example"]
    latent: Int[np.ndarray, "example"]
    value: Float[np.ndarray, "example"]
    """x[p, f], float32, above 0."""
    content: UInt64[np.ndarray, "example"]
    start: Int[np.ndarray, "example"]
    end: Int[np.ndarray, "example"]

    @classmethod
    def empty(cls) -> "TopExamples":
        """The identity of `merge`."""
        whole = np.zeros(0, np.int64)
        return cls(whole, whole, np.zeros(0, np.float32), np.zeros(0, np.uint64), whole, whole)

    @classmethod
    def of(cls, values: PassageValues, pointers: PassagePointers) -> "TopExamples":
        """The strongest passages of one set."""
        return cls(
            population=values.population[values.passage].astype(np.int64),
            latent=values.latent.astype(np.int64),
            value=values.maximum.astype(np.float32),
            content=pointers.content[values.passage],
            start=pointers.start[values.passage].astype(np.int64),
            end=pointers.end[values.passage].astype(np.int64),
        )._best()

    @property
    def cell(self) -> Int[np.ndarray, "example"]:
        """One number for population and latent, in the order of the rows."""
        return (self.population << np.int64(28)) | self.latent

    def _taken(self, rows: np.ndarray) -> "TopExamples":
        return TopExamples(*(getattr(self, field.name)[rows] for field in fields(TopExamples)))

    def _best(self) -> "TopExamples":
        # One key for cell and falling value: the bits of positive floats are in the order of the floats.
        cell = self.cell
        key = (cell.astype(np.uint64) << np.uint64(32)) | (~self.value.view(np.uint32)).astype(np.uint64)
        order = np.lexsort((self.start, self.content, key))
        cell = cell[order]
        first_of_cell = np.flatnonzero(np.diff(cell, prepend=-1))
        rank = np.arange(len(cell)) - np.repeat(first_of_cell, np.diff(first_of_cell, append=len(cell)))
        return self._taken(order[rank < EXAMPLES_KEPT])


def merge(*several: TopExamples) -> TopExamples:
    """The best of all; no input changes."""
    columns = [np.concatenate([getattr(one, field.name) for one in several]) for field in fields(TopExamples)]
    return TopExamples(*columns)._best()


def possible_entries(new: TopExamples, held: TopExamples) -> TopExamples:
    """The new examples that may still enter beside the held ones: all but those weaker than a full cell's weakest."""
    cells, first, count = np.unique(held.cell, return_index=True, return_counts=True)
    full = count == EXAMPLES_KEPT
    cells, weakest = cells[full], held.value[first[full] + EXAMPLES_KEPT - 1]
    if len(cells) == 0:
        return new
    at = np.minimum(np.searchsorted(cells, new.cell), len(cells) - 1)
    return new._taken((cells[at] != new.cell) | (new.value >= weakest[at]))
