"""The passages on which each latent is strongest, by population: bounded, mergeable, independent of order."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int, UInt64

from stratalens.corpora import POPULATIONS
from stratalens.statistics import PassageValues

EXAMPLES_KEPT = 8


@dataclass(frozen=True)
class PassagePointers:
    """Where the passages of a set stand in the corpus."""

    content: UInt64[np.ndarray, "passage"]
    """Hash of the text that the passage is cut from."""
    start: Int[np.ndarray, "passage"]
    """First character of the passage in that text."""
    end: Int[np.ndarray, "passage"]
    token_ids: Int[np.ndarray, "token"]
    """All passages as fed to the model, one after the other."""
    first_token: Int[np.ndarray, "passage"]
    """Where each passage begins in `token_ids`."""


@dataclass(frozen=True)
class TopExamples:
    """Of each latent and population, the passages of highest x, in falling order; ties go by hash, then by place.

    A slot with value 0 is empty.
    """

    value: Float[np.ndarray, "population latent slot"]
    content: UInt64[np.ndarray, "population latent slot"]
    start: Int[np.ndarray, "population latent slot"]
    end: Int[np.ndarray, "population latent slot"]
    peak_token: Int[np.ndarray, "population latent slot"]
    """Token id on which the maximum stands."""

    @classmethod
    def empty(cls, num_latents: int) -> "TopExamples":
        """The identity of `merge`."""
        shape = (POPULATIONS, num_latents, EXAMPLES_KEPT)
        return cls(
            value=np.zeros(shape, np.float32),
            content=np.zeros(shape, np.uint64),
            start=np.zeros(shape, np.int64),
            end=np.zeros(shape, np.int64),
            peak_token=np.full(shape, -1, np.int64),
        )

    def with_passages(self, values: PassageValues, pointers: PassagePointers) -> "TopExamples":
        """These examples and the passages of a set, the best of both."""
        num_latents = self.value.shape[1]
        cell = values.population[values.passage].astype(np.int64) * num_latents + values.latent
        # Most entries cannot enter any more once a few shards are in: leave them out before sorting.
        hopeful = np.flatnonzero(values.maximum >= self.value.reshape(-1, EXAMPLES_KEPT)[cell, -1])
        passage, peak = values.passage[hopeful], values.peak[hopeful]
        new = {
            "value": values.maximum[hopeful],
            "content": pointers.content[passage],
            "start": pointers.start[passage],
            "end": pointers.end[passage],
            "peak_token": pointers.token_ids[pointers.first_token[passage] + peak],
        }
        return self._with_entries(cell[hopeful], new)

    def _with_entries(self, cell: np.ndarray, new: dict[str, np.ndarray]) -> "TopExamples":
        """Keep the best of what is held and of new entries, each with its flat (population, latent) cell."""
        slots = (np.unique(cell)[:, None] * EXAMPLES_KEPT + np.arange(EXAMPLES_KEPT)).reshape(-1)
        held = slots[self.value.reshape(-1)[slots] > 0]
        cells = np.concatenate([held // EXAMPLES_KEPT, cell])
        columns = {
            field.name: np.concatenate([getattr(self, field.name).reshape(-1)[held], new[field.name]])
            for field in fields(TopExamples)
        }
        # One key for cell and falling value: the bits of positive floats are in the order of the floats.
        key = (cells.astype(np.uint64) << np.uint64(32)) | (~columns["value"].view(np.uint32)).astype(np.uint64)
        order = np.lexsort((columns["start"], columns["content"], key))
        cells = cells[order]
        first_of_cell = np.flatnonzero(np.diff(cells, prepend=-1))
        rank = np.arange(len(cells)) - np.repeat(first_of_cell, np.diff(first_of_cell, append=len(cells)))
        kept = rank < EXAMPLES_KEPT
        target = cells[kept] * EXAMPLES_KEPT + rank[kept]
        best = {field.name: getattr(self, field.name).copy() for field in fields(TopExamples)}
        for name, column in columns.items():
            # Slots that were held stay filled: a cell never holds fewer examples than before.
            best[name].reshape(-1)[target] = column[order][kept]
        return TopExamples(**best)


def merge(a: TopExamples, b: TopExamples) -> TopExamples:
    """The best of both; neither input changes."""
    held = np.flatnonzero(b.value.reshape(-1) > 0)
    columns = {field.name: getattr(b, field.name).reshape(-1)[held] for field in fields(TopExamples)}
    return a._with_entries(held // EXAMPLES_KEPT, columns)
