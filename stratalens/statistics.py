"""Streaming statistics of one layer: bounded in size, merged by addition, one definition for all uses."""

from dataclasses import dataclass, fields
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
    peak: Int[np.ndarray, "entry"]
    """First position at which the maximum stands."""
    positions_fired: Int[np.ndarray, "entry"]
    class_mass: Float[np.ndarray, "population latent token_class"]
    """Activation summed by class of the token it fires on."""
    early_mass: Float[np.ndarray, "population latent"]
    """Activation summed over the first tenth of each passage."""


def histogram_bin(mean: Float[np.ndarray, "entry"]) -> Int[np.ndarray, "entry"]:
    """Logarithmic bin of passage means; the outer bins take what lies beyond."""
    decades = np.log10(np.maximum(mean, 1e-30) / HISTOGRAM_LOW)
    return np.clip((decades * HISTOGRAM_BINS_PER_DECADE).astype(np.int64), 0, HISTOGRAM_BINS - 1)


@dataclass(frozen=True)
class FeatureStats:
    """Statistics of one layer by population and latent. Counts are int64, sums float64; means are derived late."""

    passages: Int[np.ndarray, "population"]
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

    @property
    def num_latents(self) -> int:
        """Number of latents, dead ones included."""
        return self.passages_fired.shape[1]

    @classmethod
    def empty(cls, num_latents: int) -> "FeatureStats":
        """The identity of `merge`."""
        per_population, per_latent = (POPULATIONS,), (POPULATIONS, num_latents)
        return cls(
            passages=np.zeros(per_population, np.int64),
            countable_positions=np.zeros(per_population, np.int64),
            positions=np.zeros(per_population, np.int64),
            norm_sum=np.zeros(per_population),
            passages_fired=np.zeros(per_latent, np.int64),
            positions_fired=np.zeros(per_latent, np.int64),
            mean_sum=np.zeros(per_latent),
            mean_square_sum=np.zeros(per_latent),
            activation_sum=np.zeros(per_latent),
            activation_max=np.zeros(per_latent),
            histogram=np.zeros((*per_latent, HISTOGRAM_BINS), np.int64),
            class_mass=np.zeros((*per_latent, len(TOKEN_CLASSES))),
            early_mass=np.zeros(per_latent),
        )

    @classmethod
    def of(cls, values: PassageValues, num_latents: int) -> "FeatureStats":
        """Statistics of one set of passages."""
        shape = (POPULATIONS, num_latents)
        cell = values.population[values.passage].astype(np.int64) * num_latents + values.latent
        mean = values.mean.astype(np.float64)

        def by_population(weights: np.ndarray) -> np.ndarray:
            return np.bincount(values.population, weights, POPULATIONS)

        def by_cell(weights: np.ndarray | None = None) -> np.ndarray:
            return np.bincount(cell, weights, POPULATIONS * num_latents).reshape(shape)

        maximum = np.zeros(POPULATIONS * num_latents)
        np.maximum.at(maximum, cell, values.maximum)
        bins = np.bincount(cell * HISTOGRAM_BINS + histogram_bin(mean), minlength=maximum.size * HISTOGRAM_BINS)
        return cls(
            passages=np.bincount(values.population, minlength=POPULATIONS).astype(np.int64),
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
            class_mass=values.class_mass.astype(np.float64),
            early_mass=values.early_mass.astype(np.float64),
        )


def merge(a: FeatureStats, b: FeatureStats) -> FeatureStats:
    """Statistics of both together; neither input changes. Fold shards in a fixed order: float sums do not associate."""
    return FeatureStats(
        **{
            field.name: (np.maximum if field.name == "activation_max" else np.add)(
                getattr(a, field.name), getattr(b, field.name)
            )
            for field in fields(FeatureStats)
        }
    )
