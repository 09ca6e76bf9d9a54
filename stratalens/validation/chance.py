"""How often the whole procedure finds something where there is nothing: selection, test and correction on noise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from stratalens.corpus import Half, Side
from stratalens.hookpoint import Hookpoint
from stratalens.models.threads import in_threads
from stratalens.ranking.contrast import q_values
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.rank import MAX_Q_VALUE
from stratalens.ranking.separation import separation
from stratalens.validation.relabelling import CELLS, Dealt, joined
from stratalens.validation.selection import select

REPETITIONS_AT_ONCE = 25
"""Repetitions whose selected latents are tested together, so that dense values stay small."""


class ChanceRate(NamedTuple):
    """In how many repetitions at least one feature was confirmed."""

    repetitions: int
    with_discovery: int
    rate: float
    low: float
    """Lower end of Wilson's 95% interval of the rate."""
    high: float


class NoiseTests(NamedTuple):
    """The selected latents of one hookpoint on the confirmation documents of each repetition."""

    p_value: Float[np.ndarray, "repetition pick"]
    agrees: Bool[np.ndarray, "repetition pick"]
    """Specialization is above 0 on both halves, and the AUROC interval above 0.5."""


def confirm_noise(
    source: RankingInput, dealt: Sequence[Dealt], *, rank_by: str, top_n: int, listed: Sequence[int] | None
) -> NoiseTests:
    """Select latents on the discovery documents of each repetition, and test them on its confirmation documents.

    Args:
        source: documents of one hookpoint.
        dealt: of each kind, the documents that each repetition deals to halves and sides.
        rank_by: one of `RANK_METRICS`.
        top_n: latents to select.
        listed: latents that the user named, which are tested in place of the best ones.
    """
    if listed is None:
        picks = select(source, dealt, rank_by, top_n)
    else:
        repetitions = len(next(iter(dealt[0].values())))
        picks = np.tile(np.intersect1d(listed, source.stats.latents), (repetitions, 1))

    def test(first: int) -> NoiseTests:
        block = slice(first, first + REPETITIONS_AT_ONCE)
        own = [{cell: cells[cell][block] for cell in CELLS} for cells in dealt]
        return _test_block(source, own, picks[block])

    blocks = in_threads(test, range(0, len(picks), REPETITIONS_AT_ONCE))
    return NoiseTests(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def _test_block(source: RankingInput, dealt: Sequence[Dealt], picks: np.ndarray) -> NoiseTests:
    columns, at = np.unique(picks, return_inverse=True)
    dense = source.documents.values[:, columns].toarray()
    at = at.reshape(picks.shape)

    def values(rows: np.ndarray) -> Float[np.ndarray, "document column"]:
        """Of the documents of each repetition; a column for each repetition and latent."""
        taken = dense[rows[:, :, None], at[:, None, :]]
        return taken.transpose(1, 0, 2).reshape(rows.shape[1], -1)

    found = separation(
        [
            (values(cells[Half.CONFIRMATION, Side.DOMAIN]), values(cells[Half.CONFIRMATION, Side.GENERAL]))
            for cells in dealt
        ]
    )
    agrees = (found.interval.low > 0.5).reshape(picks.shape)
    for half in Half:
        x, y = (_passage_mean(source, dense, joined(dealt, half, side), at) for side in Side)
        agrees &= x > y
    return NoiseTests(found.p_value.reshape(picks.shape), agrees)


def _passage_mean(
    source: RankingInput, dense: np.ndarray, rows: np.ndarray, at: np.ndarray
) -> Float[np.ndarray, "repetition pick"]:
    passages = source.documents.passages[rows]
    weights = passages / passages.sum(1, keepdims=True)
    return np.einsum("rd,rdp->rp", weights, dense[rows[:, :, None], at[:, None, :]])


def discoveries(
    tests: Mapping[Hookpoint, NoiseTests],
) -> dict[Hookpoint, Bool[np.ndarray, "repetition"]]:
    """Repetitions with a confirmed feature; q-values are over the selected latents of all hookpoints, as in a run."""
    if not tests:
        return {}
    p = np.concatenate([own.p_value for own in tests.values()], axis=1)
    q = np.stack([q_values(row) for row in p]) if p.size else p
    found, start = {}, 0
    for hookpoint, own in tests.items():
        width = own.p_value.shape[1]
        found[hookpoint] = ((q[:, start : start + width] < MAX_Q_VALUE) & own.agrees).any(1)
        start += width
    return found


def chance_rate(found: Mapping[Hookpoint, Bool[np.ndarray, "repetition"]]) -> ChanceRate | None:
    """The rate of repetitions with a confirmed feature anywhere, with Wilson's (1927) interval; None of none."""
    if not found:
        return None
    anywhere = np.any(list(found.values()), axis=0)
    count = int(anywhere.sum())
    interval = stats.binomtest(count, len(anywhere)).proportion_ci(method="wilson")
    return ChanceRate(len(anywhere), count, count / len(anywhere), float(interval.low), float(interval.high))
