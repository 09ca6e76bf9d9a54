"""Streaming statistics of one layer: bounded in size, merged by addition, one definition for all uses."""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.corpora import POPULATIONS
from stratalens.vocabulary import TOKEN_CLASSES

HISTOGRAM_LOW = 1e-5
HISTOGRAM_BINS_PER_DECADE = 6
HISTOGRAM_BINS = 60


class PassageValues(NamedTuple):
    """One layer's values of a set of passages: a sparse table with a row for each latent that fired in a passage."""

    population: Int[np.ndarray, "passage"]
    tokens: Int[np.ndarray, "passage"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "passage"]
    """Positions before sinks are dropped."""
    kept_positions: Int[np.ndarray, "passage"]
    norm_sum: Float[np.ndarray, "passage"]
    """Sum of hookpoint norms over kept positions."""
    residual_mean: Float[np.ndarray, "passage d_model"]
    """Mean hookpoint vector over kept positions."""
    passage: Int[np.ndarray, "entry"]
    latent: Int[np.ndarray, "entry"]
    mean: Float[np.ndarray, "entry"]
    """m[p, f]: mean activation over the passage's kept positions."""
    maximum: Float[np.ndarray, "entry"]
    """x[p, f]: maximum over kept positions."""
    positions_fired: Int[np.ndarray, "entry"]
    class_mass: Float[np.ndarray, "entry token_class"]
    """Activation summed by class of the token it fires on."""
    early_mass: Float[np.ndarray, "entry"]
    """Activation summed over the first tenth of the passage."""


def histogram_bin(mean: Float[np.ndarray, "entry"]) -> Int[np.ndarray, "entry"]:
    """Logarithmic bin of passage means; the outer bins take what lies beyond."""
    decades = np.log10(np.maximum(mean, 1e-30) / HISTOGRAM_LOW)
    return np.clip((decades * HISTOGRAM_BINS_PER_DECADE).astype(np.int64), 0, HISTOGRAM_BINS - 1)


@dataclass(frozen=True)
class FeatureStats:
    """Statistics of one layer by population and latent. Counts are int64, sums float64; means are derived late.

    Only latents that fired take room, however wide the SAE.
    """

    latents: Int[np.ndarray, "latent"]
    """Numbers of the latents that the columns stand for, rising."""
    passages: Int[np.ndarray, "population"]
    tokens: Int[np.ndarray, "population"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "population"]
    positions: Int[np.ndarray, "population"]
    """Kept positions."""
    norm_sum: Float[np.ndarray, "population"]
    passages_fired: Int[np.ndarray, "population latent"]
    positions_fired: Int[np.ndarray, "population latent"]
    mean_sum: Float[np.ndarray, "population latent"]
    """Sum of m over passages."""
    mean_square_sum: Float[np.ndarray, "population latent"]
    """Sum of m squared over passages."""
    activation_sum: Float[np.ndarray, "population latent"]
    """Sum of activations over kept positions."""
    activation_max: Float[np.ndarray, "population latent"]
    histogram: Int[np.ndarray, "population latent bin"]
    """Passages by logarithmic bin of m, those with m = 0 left out."""
    class_mass: Float[np.ndarray, "population latent token_class"]
    early_mass: Float[np.ndarray, "population latent"]

    @classmethod
    def empty(cls) -> "FeatureStats":
        """The identity of `merge`."""
        counts, sums = np.zeros(POPULATIONS, np.int64), np.zeros(POPULATIONS)
        cell_counts, cell_sums = np.zeros((POPULATIONS, 0), np.int64), np.zeros((POPULATIONS, 0))
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
            histogram=np.zeros((POPULATIONS, 0, HISTOGRAM_BINS), np.int64),
            class_mass=np.zeros((POPULATIONS, 0, len(TOKEN_CLASSES))),
            early_mass=cell_sums,
        )

    @classmethod
    def of(cls, values: PassageValues) -> "FeatureStats":
        """Statistics of one set of passages."""
        latents, column = np.unique(values.latent, return_inverse=True)
        shape = (POPULATIONS, len(latents))
        size = POPULATIONS * len(latents)
        cell = values.population[values.passage].astype(np.int64) * len(latents) + column
        mean = values.mean.astype(np.float64)

        def by_population(weights: np.ndarray) -> np.ndarray:
            return np.bincount(values.population, weights, POPULATIONS)

        def by_cell(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(cell, weights, size).reshape(shape)

        maximum = np.zeros(size)
        np.maximum.at(maximum, cell, values.maximum)
        bins = np.bincount(cell * HISTOGRAM_BINS + histogram_bin(mean), minlength=size * HISTOGRAM_BINS)
        return cls(
            latents=latents.astype(np.int64),
            passages=np.bincount(values.population, minlength=POPULATIONS).astype(np.int64),
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
            histogram=bins.reshape(*shape, HISTOGRAM_BINS).astype(np.int64),
            class_mass=np.stack([by_cell(mass) for mass in values.class_mass.T], axis=-1).astype(np.float64),
            early_mass=by_cell(values.early_mass).astype(np.float64),
        )

    def over(self, latents: Int[np.ndarray, "other_latent"]) -> "FeatureStats":
        """The same statistics with a column for each of these latents, rising, among them all that fired."""
        if np.array_equal(latents, self.latents):
            return self
        place = np.searchsorted(latents, self.latents)
        wide = {}
        for field in fields(FeatureStats):
            held = getattr(self, field.name)
            if held.ndim > 1:
                wide[field.name] = np.zeros((POPULATIONS, len(latents), *held.shape[2:]), held.dtype)
                wide[field.name][:, place] = held
        return replace(self, latents=latents, **wide)


def merge(a: FeatureStats, b: FeatureStats) -> FeatureStats:
    """Statistics of both together; neither input changes. Fold shards in a fixed order: float sums do not associate."""
    latents = np.union1d(a.latents, b.latents)
    a, b = a.over(latents), b.over(latents)
    return FeatureStats(
        latents=latents,
        **{
            field.name: (np.maximum if field.name == "activation_max" else np.add)(
                getattr(a, field.name), getattr(b, field.name)
            )
            for field in fields(FeatureStats)
            if field.name != "latents"
        },
    )
