"""Stratified AUROC, interval and test agree with plain loops and van Elteren's test, and cover what they should."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from stratalens.ranking.separation import area_between, firing_interval, separation

Strata = list[tuple[np.ndarray, np.ndarray]]
SIZES = ((12, 30), (25, 8), (40, 40))
Z = 1.959963984540054


def samples(rng: np.random.Generator, shift: float = 0.0, latents: int = 6, *, rounded: bool = False) -> Strata:
    """Documents of three strata whose levels differ much more than the sides do."""
    strata = []
    for number, (n, m) in enumerate(SIZES):
        x, y = (rng.gamma(2, size=(count, latents)) + 10 * number for count in (n, m))
        strata.append((np.round(x + shift), np.round(y)) if rounded else (x + shift, y))
    return strata


def by_loops(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """AUROC and the two parts of DeLong's variance of one latent, from the matrix of all pairs."""
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    return wins.mean(), wins.mean(1).var(ddof=1) / len(x), wins.mean(0).var(ddof=1) / len(y)


@pytest.mark.parametrize("rounded", [False, True])
def test_it_is_the_weighted_mean_of_the_strata_with_the_weighted_sum_of_their_variances(rounded):
    strata = samples(np.random.default_rng(0), 0.4, rounded=rounded)
    found = separation(strata)
    weights = np.array([n * m / (n + m) for n, m in SIZES])
    weights /= weights.sum()
    for latent in range(6):
        parts = [by_loops(x[:, latent], y[:, latent]) for x, y in strata]
        area = sum(weight * part[0] for weight, part in zip(weights, parts, strict=True))
        pieces = [
            (weight**2 * variance, size - 1)
            for weight, (_, *own), sizes in zip(weights, parts, SIZES, strict=True)
            for variance, size in zip(own, sizes, strict=True)
        ]
        variance = sum(piece for piece, _ in pieces)
        error = Z * math.sqrt(variance) / (area * (1 - area))
        freedom = variance**2 / sum(piece**2 / own for piece, own in pieces)
        assert found.auroc[latent] == pytest.approx(area, rel=1e-12)
        assert found.interval.low[latent] == pytest.approx(expit(logit(area) - error), rel=1e-9)
        assert found.interval.high[latent] == pytest.approx(expit(logit(area) + error), rel=1e-9)
        p = stats.t.sf((area - 0.5) / math.sqrt(variance), freedom)
        assert found.p_value[latent] == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("rounded", [False, True])
def test_of_one_stratum_the_test_is_brunner_and_munzels(rounded):
    x, y = samples(np.random.default_rng(1), 0.3, rounded=rounded)[0]
    expected = stats.brunnermunzel(x, y, alternative="greater", axis=0).pvalue
    np.testing.assert_allclose(separation([(x, y)]).p_value, expected, rtol=1e-9)


def van_elteren(strata: Strata) -> np.ndarray:
    """One-sided p-values of van Elteren's test: rank sums of the strata with weights 1 / (n + m + 1)."""
    statistic = variance = np.zeros(strata[0][0].shape[1])
    for x, y in strata:
        n, m = len(x), len(y)
        ranks = stats.rankdata(np.concatenate([x, y]), axis=0)
        weight = 1 / (n + m + 1)
        statistic = statistic + weight * (ranks[:n].sum(0) - n * (n + m + 1) / 2)
        variance = variance + weight**2 * n * m / (n + m - 1) * ranks.var(0)
    return stats.norm.sf(statistic / np.sqrt(variance))


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.6])
def test_the_test_agrees_with_van_elterens(shift):
    strata = samples(np.random.default_rng(2), shift, latents=400)
    ours, theirs = (stats.norm.isf(p) for p in (separation(strata).p_value, van_elteren(strata)))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.99
    assert np.abs(ours - theirs).mean() < 0.12


def test_p_values_are_uniform_where_the_sides_differ_in_nothing_but_their_mixture_of_kinds():
    rng = np.random.default_rng(3)
    strata = samples(rng, latents=4000)
    p = separation(strata).p_value
    for level in (0.01, 0.05, 0.2):
        assert np.mean(p < level) == pytest.approx(level, abs=3 * math.sqrt(level * (1 - level) / 4000) + 0.003)
    pooled = separation([tuple(np.concatenate(side) for side in zip(*strata, strict=True))])
    assert abs(pooled.auroc.mean() - 0.5) > 0.05, "without strata the mixture of kinds looks like a difference"


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_the_interval_covers_the_true_mean_about_95_percent_of_the_time(shift):
    rng = np.random.default_rng(4)
    strata = [(rng.normal(shift, 1, (n, 2000)), rng.normal(0, 1, (m, 2000))) for n, m in SIZES]
    found = separation(strata)
    truth = stats.norm.cdf(shift / math.sqrt(2))
    assert 0.93 <= np.mean((found.interval.low <= truth) & (truth <= found.interval.high)) <= 0.975


def wilson_variance(area: float, trials: int) -> float:
    ends = stats.binomtest(round(area * trials), trials).proportion_ci(method="wilson")
    return ((ends.high - ends.low) / (2 * Z)) ** 2


def test_a_separated_stratum_has_the_variance_of_wilsons_interval():
    rng = np.random.default_rng(5)
    strata = [(rng.random((20, 1)) + 2, rng.random((15, 1))), (rng.normal(0.5, 1, (20, 1)), rng.normal(0, 1, (20, 1)))]
    found = separation(strata)
    weights = np.array([300 / 35, 10])
    weights /= weights.sum()
    second = by_loops(strata[1][0][:, 0], strata[1][1][:, 0])
    area = weights @ [1, second[0]]
    variance = weights**2 @ [wilson_variance(1, 15), second[1] + second[2]]
    error = Z * math.sqrt(variance) / (area * (1 - area))
    assert found.auroc[0] == pytest.approx(area)
    assert found.interval.low[0] == pytest.approx(expit(logit(area) - error))


def test_the_interval_near_complete_separation_is_no_wider_than_wilsons_of_all_documents():
    rng = np.random.default_rng(6)
    strata = [(rng.random((10, 1)) + 2, rng.random((10, 1))) for _ in range(8)]
    strata[0][0][0] = 0.5  # one document of 80 lies among the general ones
    found = separation(strata)
    assert found.auroc[0] > 0.98
    assert 0.93 < found.interval.low[0] < found.auroc[0] < found.interval.high[0] <= 1
    assert found.p_value[0] < 1e-6


def test_where_every_stratum_is_separated_or_tied_the_interval_is_wilsons_and_the_test_mann_and_whitneys():
    separated = (np.arange(10.0)[:, None] + 20, np.arange(12.0)[:, None])
    tied = (np.zeros((9, 1)), np.zeros((9, 1)))
    both = separation([separated, separated])
    ends = stats.binomtest(20, 20).proportion_ci(method="wilson")
    assert (both.auroc[0], both.interval.high[0]) == (1, 1)
    assert both.interval.low[0] == pytest.approx(ends.low)
    assert both.p_value[0] == pytest.approx(van_elteren([separated, separated])[0], rel=0.05)
    assert separation([tied, tied]).p_value[0] == 1
    one_tied = separation([separated, tied])
    assert 0.5 < one_tied.auroc[0] < 1
    assert one_tied.p_value[0] < 1e-3
    assert (separation([separated[::-1], separated[::-1]]).p_value > 0.999).all()


def test_firing_alone_has_the_interval_of_its_zeros_and_ones():
    rng = np.random.default_rng(6)
    shares = np.append(rng.random(60), [0.0, 1.0])
    strata = [(rng.random((n, 62)) < shares, rng.random((m, 62)) < shares[::-1]) for n, m in SIZES]
    expected = separation([(x.astype(float), y.astype(float)) for x, y in strata]).interval
    found = firing_interval(strata)
    np.testing.assert_allclose(found.low, expected.low, rtol=1e-9)
    np.testing.assert_allclose(found.high, expected.high, rtol=1e-9)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_area_alone_is_that_of_the_whole_comparison(rounded):
    for x, y in samples(np.random.default_rng(7), 0.4, rounded=rounded):
        np.testing.assert_allclose(area_between(x, y), separation([(x, y)]).auroc, rtol=1e-12)
