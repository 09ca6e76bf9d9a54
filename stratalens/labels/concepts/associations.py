"""Which candidates (concepts, phrases) go with a feature: where its activation lies, which sentences it prefers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.stats import rankdata


class Preference(NamedTuple):
    """How far features prefer the sentences that hold a candidate, all `[candidate, feature]` but `segments`."""

    auroc: Float[np.ndarray, "candidate feature"]
    """Probability that a sentence with the candidate has more activation than one without."""
    lower: Float[np.ndarray, "candidate feature"]
    """Three standard errors of the rank-sum statistic below it: thousands of candidates are compared at once."""
    segments: Int[np.ndarray, "candidate"]
    """Sentences that hold the candidate."""


def preference(holds: sparse.csr_array, mean_activation: Float[np.ndarray, "segment feature"]) -> Preference:
    """Compare sentences with and without each candidate by ranks (Mann-Whitney, normal approximation with ties)."""
    ranks = rankdata(mean_activation, axis=0)
    count = len(mean_activation)
    inside = np.asarray(holds.sum(0)).ravel()
    outside = count - inside
    excess = holds.T @ ranks - (inside * (count + 1) / 2)[:, None]
    pairs = np.maximum(inside * outside, 1)[:, None]
    ties = np.array([_tie_term(ranks[:, column]) for column in range(ranks.shape[1])])
    spread = (count + 1) - ties / max(1, count * (count - 1))
    deviation = np.sqrt(np.maximum(inside * outside, 1)[:, None] * np.maximum(spread, 1e-9)[None, :] / 12)
    auroc = 0.5 + excess / pairs
    return Preference(auroc, auroc - 3 * deviation / pairs, inside.astype(np.int64))


def _tie_term(ranks: np.ndarray) -> float:
    _, counts = np.unique(ranks, return_counts=True)
    return float((counts.astype(np.float64) ** 3 - counts).sum())


@dataclass(frozen=True)
class Mass:
    """Where activation lies, as shares of a feature's activation on the units given."""

    share: Float[np.ndarray, "candidate feature"]
    base: Float[np.ndarray, "candidate"]
    """Share of the units themselves."""
    fires: Float[np.ndarray, "candidate feature"]
    """Share of each candidate's units on which the feature fires."""

    @property
    def lift(self) -> Float[np.ndarray, "candidate feature"]:
        """Share over base, the base raised a little so that rare candidates do not shine by chance."""
        return self.share / (self.base + 0.003)[:, None]


def mass(
    covers: sparse.csr_array, activation: Float[np.ndarray, "unit feature"], units: Int[np.ndarray, "chosen"]
) -> Mass:
    """Share of each feature's activation that lies on the units of each candidate, `covers[unit, candidate]`."""
    chosen = activation[units]
    total = np.maximum(chosen.sum(0, dtype=np.float64), 1e-12)
    covered = covers[units]
    counts = np.asarray(covered.sum(0)).ravel()
    fires = covered.T @ (chosen > 0).astype(np.float64) / np.maximum(counts, 1)[:, None]
    return Mass(covered.T @ chosen / total, counts / max(1, len(units)), fires)
