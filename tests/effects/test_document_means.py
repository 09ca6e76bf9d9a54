"""Means over documents and their differences: they agree with scipy, and do not find what is not there."""

import math

import numpy as np
import pytest
from made_changes import heavy_tailed
from scipy import stats

from stratalens.effects.document_bootstrap import bootstrap_differences
from stratalens.effects.document_means import difference, mean

RUNS = 2_000
LEVEL = 0.05


def most_allowed(level: float, runs: int) -> float:
    """A share of false positives two standard errors above the nominal one."""
    return level + 2 * math.sqrt(level * (1 - level) / runs)


def symmetric(values: np.ndarray) -> np.ndarray:
    """Values without skewness, around the mean of the given ones."""
    return np.concatenate([values, 2 * values.mean() - values])


def test_without_skewness_it_is_the_t_test_of_scipy():
    rng = np.random.default_rng(0)
    x, y = symmetric(rng.normal(0.3, 1, 9)), symmetric(rng.normal(0, 2, 12))
    for own, test in (
        (mean(x), stats.ttest_1samp(x, 0, alternative="two-sided")),
        (difference(x, y), stats.ttest_ind(x, y, equal_var=False)),
    ):
        interval = test.confidence_interval(0.95)
        np.testing.assert_allclose([own.low, own.high], interval, rtol=1e-9)
    assert mean(x).p_value == pytest.approx(stats.ttest_1samp(x, 0, alternative="greater").pvalue, rel=1e-9)
    welch = stats.ttest_ind(x, y, equal_var=False, alternative="greater").pvalue
    assert difference(x, y).p_value == pytest.approx(welch, rel=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_skewness_moves_one_end_out_and_no_end_in(sign):
    x = sign * np.random.default_rng(1).lognormal(0, 1, 30)
    own, plain = mean(x), stats.ttest_1samp(x, 0).confidence_interval(0.95)
    moved = (own.high - plain.high, plain.low - own.low)[::sign]
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(0, abs=1e-12)


def test_test_and_interval_agree():
    """p is below 2.5% just where the interval lies above 0."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        x, y = rng.lognormal(0, 1, 12) * rng.choice([-1, 1]) + rng.normal(0, 2), rng.lognormal(0, 1, 15)
        for own in (mean(x), difference(x, y)):
            assert own.above_zero == (own.p_value < 0.025), own


def test_the_laws_of_scale_and_sign():
    rng = np.random.default_rng(3)
    x, y = rng.lognormal(0, 1, 20), rng.lognormal(0.5, 1, 30)
    own = difference(x, y)
    for factor in (1e-30, 7.0, 1e30):
        scaled = difference(factor * x, factor * y)
        np.testing.assert_allclose(np.array(scaled[:3]) / factor, own[:3], rtol=1e-9)
        assert scaled.p_value == pytest.approx(own.p_value, rel=1e-9)
    other = difference(y, x)
    np.testing.assert_allclose([-other.value, -other.high, -other.low], own[:3], rtol=1e-9)
    np.testing.assert_allclose(difference(x, np.zeros(2))[:3], mean(x)[:3], rtol=1e-9)


def test_what_is_constant_and_what_is_unknown():
    assert mean(np.zeros(9)) == (0, 0, 0, 1)
    assert mean(np.full(9, 0.1)) == pytest.approx((0.1, 0.1, 0.1, 0))
    assert difference(np.full(9, 0.1), np.full(7, 0.3))[3] == 1
    for unknown in (mean(np.ones(1)), difference(np.ones(1), np.zeros(5)), difference(np.zeros(5), -np.ones(1))):
        assert unknown == (1, -math.inf, math.inf, 1)
    one_sided = difference(np.array([1.0, 2, 3, 4]), np.zeros(5))
    assert one_sided.value == 2.5
    assert 0 < one_sided.p_value < 0.05


def test_few_heavy_tailed_documents_of_mostly_zeros_are_no_effect():
    rng = np.random.default_rng(4)
    found = np.array(
        [
            [mean(x).p_value <= LEVEL, difference(x, y).p_value <= LEVEL, mean(x).above_zero]
            for x, y in ((heavy_tailed(rng, 40), heavy_tailed(rng, 60)) for _ in range(RUNS))
        ]
    ).mean(0)
    assert max(found[:2]) <= most_allowed(LEVEL, RUNS), found
    assert found[2] <= most_allowed(LEVEL / 2, RUNS), found


def test_the_bootstrap_does_not_find_what_is_not_there():
    """Also of as few documents as controls have, where the plain percentiles alone find too much."""
    rng = np.random.default_rng(5)
    size, runs = 20, 3 * 200
    x = np.stack([heavy_tailed(rng, size) for _ in range(runs)], axis=1)
    y = np.stack([heavy_tailed(rng, size) for _ in range(runs)], axis=1)
    found = np.mean([own.p_value <= LEVEL for own in bootstrap_differences(x, y, 0)])
    assert 0.01 < found <= most_allowed(LEVEL, runs), found


def test_of_many_plain_documents_the_bootstrap_is_the_t_test():
    rng = np.random.default_rng(6)
    x, y = rng.normal(0.2, 1, (400, 3)), rng.normal(0.1, 1, (300, 3))
    for column, own in enumerate(bootstrap_differences(x, y, 0)):
        plain = difference(x[:, column], y[:, column])
        np.testing.assert_allclose(own[:3], plain[:3], atol=0.01)
        assert own.p_value == pytest.approx(plain.p_value, abs=0.02)


def test_the_bootstrap_is_that_of_its_seed_and_the_same_in_all_columns():
    rng = np.random.default_rng(7)
    x, y = rng.normal(0.1, 1, (400, 1)), rng.normal(0, 1, (300, 1))
    own = bootstrap_differences(x, y, 3)
    both = bootstrap_differences(np.hstack([x, 2 * x]), np.hstack([y, 2 * y]), 3)
    np.testing.assert_allclose(both[0], own[0], rtol=1e-12)
    np.testing.assert_allclose(both[1][:3], 2 * np.array(own[0][:3]), rtol=1e-12)
    others = [bootstrap_differences(x, y, seed) for seed in range(3, 9)]
    assert others[0] == own
    assert len(set(map(tuple, others))) > 1


def test_the_bootstrap_of_what_is_constant_or_unknown():
    ones, none = np.ones((5, 1)), np.zeros((6, 1))
    assert bootstrap_differences(none, none[:5], 0) == [(0, 0, 0, 1)]
    assert bootstrap_differences(ones, none, 0) == [(1, 1, 1, 1e-4)]
    assert bootstrap_differences(none, ones, 0) == [(-1, -1, -1, 1)]
    assert bootstrap_differences(ones[:1], none, 0) == [(1, -math.inf, math.inf, 1)]
