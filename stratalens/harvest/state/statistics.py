"""Streaming statistics of one layer: bounded in size, and merged by addition."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from stratalens.harvest.state.passage_values import PassageValues
from stratalens.models.token_classes import TOKEN_CLASSES

HISTOGRAM_LOW = 1e-5
"""Lower edge of the histogram; the first bin also takes all values below."""
HISTOGRAM_BINS_PER_DECADE = 6
HISTOGRAM_BINS = 60


def histogram_bin(mean: Float[np.ndarray, "entry"]) -> Int[np.ndarray, "entry"]:
    """Logarithmic bin of each passage mean; the first and the last bin also take the values beyond them."""
    decades = np.log10(np.maximum(mean, 1e-30) / HISTOGRAM_LOW)
    return np.clip((decades * HISTOGRAM_BINS_PER_DECADE).astype(np.int64), 0, HISTOGRAM_BINS - 1)


@dataclass(frozen=True)
class FeatureStats:
    """Statistics of one layer by population and latent. Counts are int64, sums float64; means are derived late.

    Only latents that fired have columns, so memory does not grow with the width of the SAE.
    """

    latents: Int[np.ndarray, "latent"]
    """The latent of each column, rising."""
    passages: Int[np.ndarray, "population"]
    tokens: Int[np.ndarray, "population"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "population"]
    positions: Int[np.ndarray, "population"]
    """Kept positions."""
    norm_sum: Float[np.ndarray, "population"]
    """Sum of hookpoint norms over kept positions."""
    passages_fired: Int[np.ndarray, "population latent"]
    """Passages in which the latent fires."""
    positions_fired: Int[np.ndarray, "population latent"]
    """Kept positions at which the latent fires."""
    mean_sum: Float[np.ndarray, "population latent"]
    """Sum of the passages' mean activations m."""
    mean_square_sum: Float[np.ndarray, "population latent"]
    """Sum of the squares of m."""
    activation_sum: Float[np.ndarray, "population latent"]
    """Sum of activations over kept positions."""
    activation_max: Float[np.ndarray, "population latent"]
    histogram: sparse.csr_array
    """Passages with m > 0 by logarithmic bin of m, `[population x latent, bin]`; most bins are empty."""
    class_mass: Float[np.ndarray, "population latent token_class"]
    """Sum of activations by class of the token."""
    early_mass: Float[np.ndarray, "population latent"]
    """Sum of activations over the first tenth of each passage."""

    @classmethod
    def empty(cls, populations: int) -> "FeatureStats":
        """Statistics of no passages: merging them changes nothing."""
        counts, sums = np.zeros(populations, np.int64), np.zeros(populations)
        cell_counts, cell_sums = np.zeros((populations, 0), np.int64), np.zeros((populations, 0))
        return cls(
            latents=np.zeros(0, np.int64),
            passages=counts,
            tokens=counts,
            countable_positions=counts,
            positions=counts,
            norm_sum=sums,
            passages_fired=cell_counts,
            positions_fired=cell_counts,
            mean_sum=cell_sums,
            mean_square_sum=cell_sums,
            activation_sum=cell_sums,
            activation_max=cell_sums,
            histogram=sparse.csr_array((0, HISTOGRAM_BINS), dtype=np.int64),
            class_mass=np.zeros((populations, 0, len(TOKEN_CLASSES))),
            early_mass=cell_sums,
        )

    @classmethod
    def of(cls, values: PassageValues, populations: int) -> "FeatureStats":
        """Statistics of one set of passages.

        Args:
            values: of the passages.
            populations: number of all populations, those included of which the set has no passage.
        """
        latents, column = np.unique(values.latent, return_inverse=True)
        shape = (populations, len(latents))
        size = populations * len(latents)
        cell = values.population[values.passage].astype(np.int64) * len(latents) + column
        mean = values.mean.astype(np.float64)

        def by_population(weights: np.ndarray) -> np.ndarray:
            return np.bincount(values.population, weights, populations)

        def by_cell(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(cell, weights, size).reshape(shape)

        maximum = np.zeros(size)
        np.maximum.at(maximum, cell, values.maximum)
        return cls(
            latents=latents.astype(np.int64),
            passages=np.bincount(values.population, minlength=populations).astype(np.int64),
            tokens=by_population(values.tokens).astype(np.int64),
            countable_positions=by_population(values.countable_positions).astype(np.int64),
            positions=by_population(values.kept_positions).astype(np.int64),
            norm_sum=by_population(values.norm_sum).astype(np.float64),
            passages_fired=by_cell().astype(np.int64),
            positions_fired=by_cell(values.positions_fired).astype(np.int64),
            mean_sum=by_cell(mean).astype(np.float64),
            mean_square_sum=by_cell(mean**2).astype(np.float64),
            activation_sum=by_cell(mean * values.kept_positions[values.passage]).astype(np.float64),
            activation_max=maximum.reshape(shape),
            histogram=_histogram(cell, mean, size),
            class_mass=np.stack([by_cell(mass) for mass in values.class_mass.T], axis=-1).astype(np.float64),
            early_mass=by_cell(values.early_mass).astype(np.float64),
        )

    def for_latents(self, latents: Int[np.ndarray, "other_latent"]) -> "FeatureStats":
        """The same statistics with one column for each of the given latents, zero for those that did not fire.

        Args:
            latents: in rising order; they include all latents of these statistics.
        """
        if np.array_equal(latents, self.latents):
            return self
        populations = len(self.passages)
        new_column = np.searchsorted(latents, self.latents)
        widened: dict[str, np.ndarray] = {}
        for name in PER_LATENT:
            values = getattr(self, name)
            widened[name] = np.zeros((populations, len(latents), *values.shape[2:]), values.dtype)
            widened[name][:, new_column] = values
        counts = self.histogram
        row = (np.arange(populations)[:, None] * len(latents) + new_column).reshape(-1)
        row_sizes = np.zeros(populations * len(latents) + 1, np.int64)
        row_sizes[row + 1] = np.diff(counts.indptr)
        csr_arrays = (counts.data, counts.indices, np.cumsum(row_sizes))
        histogram = sparse.csr_array(csr_arrays, shape=(populations * len(latents), HISTOGRAM_BINS))
        return replace(self, latents=latents, histogram=histogram, **widened)

    def only(self, latents: Int[np.ndarray, "other_latent"]) -> "FeatureStats":
        """The same statistics without the columns of all other latents.

        Args:
            latents: in rising order; all of them fired.
        """
        column = np.searchsorted(self.latents, latents)
        row = np.arange(len(self.passages))[:, None] * len(self.latents) + column
        own = {name: getattr(self, name)[:, column] for name in PER_LATENT}
        return replace(self, latents=latents, histogram=self.histogram[row.reshape(-1)], **own)


PER_LATENT = tuple(
    name for name, array in vars(FeatureStats.empty(1)).items() if name != "histogram" and array.ndim > 1
)
"""Fields of `FeatureStats` with a column for each latent, but for the sparse histogram."""


def _histogram(cell: np.ndarray, mean: np.ndarray, cells: int) -> sparse.csr_array:
    bins, counts = np.unique(cell * HISTOGRAM_BINS + histogram_bin(mean), return_counts=True)
    row, column = np.divmod(bins, HISTOGRAM_BINS)
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=cells))])
    return sparse.csr_array((counts.astype(np.int64), column, starts), shape=(cells, HISTOGRAM_BINS))


def merge(a: FeatureStats, b: FeatureStats) -> FeatureStats:
    """Add two statistics without changing them. Merge shards in a fixed order: sums of floats depend on the order."""
    latents = a.latents if np.array_equal(a.latents, b.latents) else np.union1d(a.latents, b.latents)
    a, b = a.for_latents(latents), b.for_latents(latents)
    merged: dict[str, Any] = {name: getattr(a, name) + getattr(b, name) for name in vars(a) if name != "latents"}
    merged["activation_max"] = np.maximum(a.activation_max, b.activation_max)
    return FeatureStats(latents=latents.copy(), **merged)
