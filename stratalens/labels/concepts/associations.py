"""Which candidates (concepts, phrases) go with a feature: by shares of its activation, and by preferred sentences."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.stats import rankdata


class Preference(NamedTuple):
    """How strongly features prefer the sentences that hold a candidate, `[candidate, feature]` except `segments`."""

    auroc: Float[np.ndarray, "candidate feature"]
    """Probability that a sentence with the candidate has more activation than one without."""
    lower: Float[np.ndarray, "candidate feature"]
    """AUROC less three standard errors of the rank-sum statistic; three, as there are thousands of candidates."""
    segments: Int[np.ndarray, "candidate"]
    """Number of sentences that hold the candidate."""


def preference(holds: sparse.csr_array, mean_activation: Float[np.ndarray, "segment feature"]) -> Preference:
    """Compare the sentences with and without each candidate by ranks of mean activation.

    The statistic is that of Mann and Whitney, its standard error that of the normal approximation with ties.

    Args:
        holds: whether each sentence holds each candidate, `[segment, candidate]`, 0 or 1.
        mean_activation: of each feature over each sentence.
    """
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
class ActivationShares:
    """Shares of a feature's activation over some units, by candidate."""

    share: Float[np.ndarray, "candidate feature"]
    """Share of the feature's activation on the units of the candidate."""
    base: Float[np.ndarray, "candidate"]
    """Share of the units that are of the candidate."""
    fires: Float[np.ndarray, "candidate feature"]
    """Share of each candidate's units on which the feature fires."""

    @property
    def lift(self) -> Float[np.ndarray, "candidate feature"]:
        """Share divided by base plus 0.003, which keeps rare candidates from a high lift by chance."""
        return self.share / (self.base + 0.003)[:, None]


def activation_shares(
    covers: sparse.csr_array, activation: Float[np.ndarray, "unit feature"], units: Int[np.ndarray, "chosen"]
) -> ActivationShares:
    """Measure the share of each feature's activation on the units of each candidate.

    Args:
        covers: whether each unit is of each candidate, `[unit, candidate]`, 0 or 1.
        activation: of each feature on each unit.
        units: numbers of the units to include.
    """
    chosen = activation[units]
    total = np.maximum(chosen.sum(0, dtype=np.float64), 1e-12)
    covered = covers[units]
    counts = np.asarray(covered.sum(0)).ravel()
    fires = covered.T @ (chosen > 0).astype(np.float64) / np.maximum(counts, 1)[:, None]
    return ActivationShares(covered.T @ chosen / total, counts / max(1, len(units)), fires)
