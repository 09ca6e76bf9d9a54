"""Select the best latents of many relabellings or resamples at once, by the statistic that the run selects by.

All statistics are linear in the documents, or functions of such, so that each is a matrix product for all repetitions.
What the run takes from passages (firing rates) is taken from documents here. AUROC comes from ranks that are the same
in all repetitions: of relabelled documents among all that are dealt out, not only among those of the discovery half (no
label enters, so the confirmation half stays fresh); of resampled documents, whose sides stay, among those of the other
side (`placements`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from scipy.special import expit, logit

from stratalens.corpus import Half, Side
from stratalens.ranking.contrast import hedges_correction
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.separation import Z
from stratalens.validation.relabelling import CELLS, Dealt, joined

LATENTS_SCORED_AT_ONCE = 1024
"""Latents whose document values are held as dense columns, and whose scores are computed, together."""
MIN_VARIANCE = 1e-7
"""A smaller variance of rank shares is rounding in float32."""
EDGE = 1e-3
"""An AUROC nearer to 0 or 1 is moved here before its logit is taken."""

Scores = Float[np.ndarray, "repetition latent"]


class Ranked(NamedTuple):
    """Some latents' ranks of the documents of one kind, as shares; an AUROC is 0.5 plus a difference of their means."""

    documents: Int[np.ndarray, "pool"]
    """Rows of the documents, rising."""
    shares: Float[np.ndarray, "pool latent"]
    """float32, because all repetitions are a product of matrices."""


def rank_shares(values: Float[np.ndarray, "document latent"], cells: Dealt) -> Ranked:
    """Ranks among all documents that are dealt out: right if sides mean nothing."""
    pool = _dealt_documents(cells, CELLS)
    shares = stats.rankdata(values[pool], axis=0) / len(pool) - 0.5
    return Ranked(pool, shares.astype(np.float32))


def placements(values: Float[np.ndarray, "document latent"], cells: Dealt) -> Ranked:
    """Ranks of the discovery documents of each side among those of the other, if every document has its side for good.

    The AUROC of resampled documents is then its linear part in their numbers, by DeLong's (1988) structural components;
    what is left out is of the order of 1 / documents. A complete separation stays one.
    """
    domain, general = (_dealt_documents(cells, [(Half.DISCOVERY, side)]) for side in Side)
    x, y = values[domain], values[general]
    ranks = stats.rankdata(np.concatenate([x, y]), axis=0)
    above_general = (ranks[: len(x)] - stats.rankdata(x, axis=0)) / len(y)
    above_domain = (ranks[len(x) :] - stats.rankdata(y, axis=0)) / len(x)
    shares = np.concatenate([above_general - above_general.mean(0), above_domain - 0.5])
    order = np.argsort(pool := np.concatenate([domain, general]))
    return Ranked(pool[order], shares[order].astype(np.float32))


def _dealt_documents(cells: Dealt, of: Sequence[tuple[Half, Side]]) -> Int[np.ndarray, "document"]:
    return np.flatnonzero(np.bincount(np.concatenate([cells[cell].ravel() for cell in of])))


def select(
    source: RankingInput,
    dealt: Sequence[Dealt],
    metric: str,
    top_n: int,
    ranked: Callable[[np.ndarray, Dealt], Ranked] = rank_shares,
) -> Int[np.ndarray, "repetition pick"]:
    """Numbers of the live latents with the highest scores on the discovery documents of each repetition.

    Args:
        source: statistics and documents of a hookpoint.
        dealt: of each kind, the documents that each repetition deals to halves and sides; one may come several times.
        metric: one of `RANK_METRICS`.
        top_n: latents to select; fewer where fewer are live.
        ranked: how documents are ranked for AUROCs: `rank_shares` or `placements`.
    """
    live, scores = source.stats.latents, []
    for first in range(0, len(live), LATENTS_SCORED_AT_ONCE):
        own = live[first : first + LATENTS_SCORED_AT_ONCE]
        dense = source.documents.values[:, own].toarray().astype(np.float32)
        chunk = _Chunk(dense, source.documents.passages, dealt, ranked)
        scores.append(SCORES[metric](chunk))
    order = np.argsort(-np.concatenate(scores, axis=1), axis=1, kind="stable")
    return live[order[:, :top_n]]


@dataclass(frozen=True)
class _Chunk:
    """Some latents on the discovery documents of all repetitions."""

    dense: Float[np.ndarray, "document latent"]
    passages: Int[np.ndarray, "document"]
    dealt: Sequence[Dealt]
    ranked: Callable[[np.ndarray, Dealt], Ranked]

    def means(self, values: np.ndarray, weight: np.ndarray | None = None) -> tuple[Scores, Scores]:
        """Mean over the documents of each side, which may have weights."""
        sides = [_counts(joined(self.dealt, Half.DISCOVERY, side), len(values)) for side in Side]
        weights = np.concatenate(sides) * (np.float32(1) if weight is None else weight.astype(np.float32))
        domain, general = np.split(weights / weights.sum(1, keepdims=True) @ values, len(Side))
        return domain, general

    @cached_property
    def activations(self) -> tuple[Scores, Scores]:
        """Mean activation of each side, over passages."""
        return self.means(self.dense, self.passages)

    @cached_property
    def domain_share(self) -> Scores:
        """As `estimates` has it, with the mean over the documents that fire for the mean when active."""
        active = self.dense.sum(0) / np.maximum(1, (self.dense > 0).sum(0))
        sizes = [joined(self.dealt, Half.DISCOVERY, side).shape[1] for side in Side]
        smoothed = [(own * size + active) / (size + 1) for own, size in zip(self.activations, sizes, strict=True)]
        return smoothed[0] / np.maximum(smoothed[0] + smoothed[1], np.finfo(np.float32).tiny)

    @property
    def hedges_g(self) -> Scores:
        """As `contrast.hedges_g`."""
        n, m = (joined(self.dealt, Half.DISCOVERY, side).shape[1] for side in Side)
        (x, y), (x_square, y_square) = self.means(self.dense), self.means(self.dense**2)
        x_squares, y_squares = np.maximum(0, x_square - x**2) * n, np.maximum(0, y_square - y**2) * m
        pooled = np.sqrt((x_squares + y_squares) / (n + m - 2))
        with np.errstate(over="ignore"):  # infinite where both sides are constant and differ
            return (x - y) / np.maximum(pooled, np.finfo(np.float32).tiny) * np.float32(hedges_correction(n, m))

    def separation(self, values: np.ndarray) -> tuple[Scores, Scores]:
        """AUROC within kinds, and its lower limit on the logit scale, from rank shares."""
        weights = np.array([_weight(cells) for cells in self.dealt]) / sum(map(_weight, self.dealt))
        auroc, variance, regular = np.zeros(()), np.zeros(()), np.ones((), bool)
        for weight, cells in zip(weights, self.dealt, strict=True):
            own, own_variance = _stratum_separation(self.ranked(values, cells), cells)
            substituted = np.where(own_variance > MIN_VARIANCE, own_variance, _wilson_variance(own, _smaller([cells])))
            auroc, variance = auroc + weight * own, variance + weight**2 * substituted
            regular = regular & (own_variance > MIN_VARIANCE)
        safe = np.clip(auroc, EDGE, 1 - EDGE)
        low = expit(logit(safe) - Z * np.sqrt(variance) / (safe * (1 - safe)))
        trials = _smaller(self.dealt)
        centre = (auroc + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
        wilson_low = np.minimum(centre - Z * np.sqrt(_wilson_variance(auroc, trials)), auroc)
        return auroc, np.where(regular, low, np.maximum(low, wilson_low))


def _weight(cells: Dealt) -> float:
    n, m = (cells[Half.DISCOVERY, side].shape[1] for side in Side)
    return n * m / (n + m)


def _counts(rows: np.ndarray, documents: int) -> Float[np.ndarray, "repetition document"]:
    """How often each document is among the rows of each repetition."""
    at = np.arange(len(rows))[:, None] * documents + rows
    counts = np.bincount(at.ravel(), minlength=len(rows) * documents)
    return counts.reshape(len(rows), documents).astype(np.float32)


def _stratum_separation(ranked: Ranked, cells: Dealt) -> tuple[Scores, Scores]:
    """AUROC and its variance in one kind: the difference of the sides' mean rank shares (DeLong's, by ranks)."""
    pool, shares = ranked
    sizes = [cells[Half.DISCOVERY, side].shape[1] for side in Side]
    rows = [np.searchsorted(pool, cells[Half.DISCOVERY, side]) for side in Side]
    weights = np.concatenate([_counts(own, len(pool)) / size for own, size in zip(rows, sizes, strict=True)])
    # One product of matrices in place of four, which cost most where others use the machine.
    means, squares = np.split(weights.astype(np.float32) @ np.concatenate([shares, shares**2], axis=1), 2, axis=1)
    x_variance, y_variance = np.split(np.maximum(0, squares - means**2), len(Side))
    variance = x_variance / (sizes[0] - 1) + y_variance / (sizes[1] - 1)
    x_mean, y_mean = np.split(means, len(Side))
    return np.clip(0.5 + x_mean - y_mean, 0, 1), variance


def _smaller(dealt: Sequence[Dealt]) -> int:
    """Discovery documents of the smaller side, of some kinds."""
    return min(joined(dealt, Half.DISCOVERY, side).shape[1] for side in Side)


def _wilson_variance(auroc: Scores, trials: int) -> Scores:
    """That of Wilson's interval, for what is completely separated or tied, as in `ranking.separation`."""
    return (auroc * (1 - auroc) / trials + Z**2 / (4 * trials**2)) / (1 + Z**2 / trials) ** 2


def _transfer(chunk: _Chunk) -> Scores:
    return chunk.separation(chunk.dense)[1] + chunk.separation(np.sign(chunk.dense))[1]


def _specialization(chunk: _Chunk) -> Scores:
    return chunk.activations[0] - chunk.activations[1]


def _firing_rate_difference(chunk: _Chunk) -> Scores:
    domain, general = chunk.means(np.sign(chunk.dense))
    return domain - general


SCORES: dict[str, Callable[[_Chunk], Scores]] = {
    "specialization": _specialization,
    "auroc": lambda chunk: chunk.separation(chunk.dense)[0],
    "transfer": _transfer,
    "domain_score": lambda chunk: chunk.separation(chunk.dense)[0] * chunk.domain_share,
    "domain_share": lambda chunk: chunk.domain_share,
    "log_ratio": lambda chunk: chunk.domain_share,  # rises with it
    "hedges_g": lambda chunk: chunk.hedges_g,
    "firing_rate_difference": _firing_rate_difference,
}
"""Metric of `RANK_METRICS` -> its scores."""
