"""Effects, intervals and tests agree with scipy, scikit-learn and plain loops, and intervals cover what they should."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from stratalens.ranking import contrast
from stratalens.ranking.separation import separation

N, M, LATENTS = 23, 31, 7


def samples(seed: int = 0, *, tied: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, y = rng.gamma(2, 1.5, (N, LATENTS)), rng.gamma(2, 1.0, (M, LATENTS))
    return (np.round(x), np.round(y)) if tied else (x, y)


def separated(n: int = N, m: int = M) -> tuple[np.ndarray, np.ndarray]:
    """Columns: domain above, domain below, all tied at zero, constant and above, constant and below."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 5)), rng.random((m, 5))
    x[:, 0] += 2
    y[:, 1] += 2
    x[:, 2:], y[:, 2:] = 0, 0
    x[:, 3], y[:, 4] = 1, 1
    return x, y


def constant_weights(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(len(x), np.int64), np.ones(len(y), np.int64)


@pytest.mark.parametrize("tied", [False, True])
def test_auroc_is_that_of_scikit_learn(tied):
    x, y = samples(tied=tied)
    side = np.repeat([1, 0], [N, M])
    expected = [roc_auc_score(side, np.concatenate([x[:, f], y[:, f]])) for f in range(LATENTS)]
    np.testing.assert_allclose(separation([(x, y)]).auroc, expected, rtol=1e-12)


def delong_by_loops(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """DeLong's interval on the logit scale from the matrix of all pairs, for one latent."""
    wins = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    area = wins.mean()
    spread_x = sum((row.mean() - area) ** 2 for row in wins) / (len(x) - 1)
    spread_y = sum((column.mean() - area) ** 2 for column in wins.T) / (len(y) - 1)
    error = math.sqrt(spread_x / len(x) + spread_y / len(y)) / (area * (1 - area))
    return float(expit(logit(area) - 1.959963984540054 * error)), float(expit(logit(area) + 1.959963984540054 * error))


@pytest.mark.parametrize("tied", [False, True])
def test_auroc_interval_is_delongs_on_the_logit_scale(tied):
    x, y = samples(1, tied=tied)
    interval = separation([(x, y)]).interval
    for f in range(LATENTS):
        np.testing.assert_allclose((interval.low[f], interval.high[f]), delong_by_loops(x[:, f], y[:, f]), rtol=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0])
def test_auroc_interval_covers_the_true_auroc_about_95_percent_of_the_time(shift):
    rng = np.random.default_rng(5)
    interval = separation([(rng.normal(shift, 1, (50, 400)), rng.normal(0, 1, (60, 400)))]).interval
    truth = stats.norm.cdf(shift / math.sqrt(2))
    covered = np.mean((interval.low <= truth) & (truth <= interval.high))
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("n", [3, 10, 27, 200])
def test_auroc_without_variance_has_an_interval_that_holds_it_and_narrows_with_documents(n):
    area = separation([separated(n, n + 2)])
    assert area.auroc.tolist() == [1.0, 0.0, 0.5, 1.0, 0.0]
    assert (area.interval.low <= area.auroc).all()
    assert (area.auroc <= area.interval.high).all()
    assert (area.interval.low >= 0).all()
    assert (area.interval.high <= 1).all()
    width = area.interval.high - area.interval.low
    assert (width > 1 / n).all()
    more = separation([separated(4 * n, 4 * n + 2)]).interval
    assert (more.high - more.low < width).all()


def test_auroc_interval_of_complete_separation_is_wilsons_with_the_smaller_side_as_trials():
    area = separation([separated()])
    wilson = stats.binomtest(N, N).proportion_ci(method="wilson")
    np.testing.assert_allclose((area.interval.low[0], area.interval.high[0]), (wilson.low, wilson.high))
    np.testing.assert_allclose(
        (area.interval.low[1], area.interval.high[1]), (1 - wilson.high, 1 - wilson.low), atol=1e-9
    )


def without_skewness(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples that lie symmetrically about their means."""
    rng = np.random.default_rng(0)
    x, y = (rng.gamma(2, scale, (size // 2, LATENTS)) for scale, size in ((1.5, n), (1.0, m)))
    return 5 + np.concatenate([x, -x]), 5 + np.concatenate([y, -y])


def test_interval_of_specialization_is_welchs_where_documents_are_not_skewed():
    x, y = without_skewness(22, 30)
    interval = contrast.difference_interval(x.mean(0) - y.mean(0), x, y, *constant_weights(x, y))
    expected = stats.ttest_ind(x, y, equal_var=False, axis=0).confidence_interval(0.95)
    np.testing.assert_allclose(interval.low, expected.low, rtol=1e-9)
    np.testing.assert_allclose(interval.high, expected.high, rtol=1e-9)


def test_interval_of_specialization_of_many_documents_is_welchs_within_a_hundredth_of_its_width():
    rng = np.random.default_rng(2)
    x, y = rng.gamma(1, size=(40_000, 20)), rng.gamma(1, size=(20_000, 20))
    interval = contrast.difference_interval(x.mean(0) - y.mean(0), x, y, *constant_weights(x, y))
    expected = stats.ttest_ind(x, y, equal_var=False, axis=0).confidence_interval(0.95)
    width = expected.high - expected.low
    assert (np.abs(interval.low - expected.low) < 0.01 * width).all()
    assert (np.abs(interval.high - expected.high) < 0.01 * width).all()


def test_one_end_of_the_interval_of_specialization_is_moved_out_as_the_skewness_of_documents_says():
    x, y = samples()
    x[:, 3], y[:, 4] = 0, 0
    interval = contrast.difference_interval(x.mean(0) - y.mean(0), x, y, *constant_weights(x, y))
    for f in range(LATENTS):
        test = stats.ttest_ind(x[:, f], y[:, f], equal_var=False)
        welch, quantile = test.confidence_interval(0.95), float(stats.t.ppf(0.975, test.df))
        error = (welch.high - welch.low) / 2 / quantile
        third = stats.kstat(x[:, f], 3) / N**2 - stats.kstat(y[:, f], 3) / M**2
        shift = third / error**2 * (1 + 2 * quantile**2) / 6
        assert interval.low[f] == pytest.approx(welch.low + min(0, shift), rel=1e-9)
        assert interval.high[f] == pytest.approx(welch.high + max(0, shift), rel=1e-9)
    assert interval.high[4] - (x.mean(0) - y.mean(0))[4] > (x.mean(0) - y.mean(0))[4] - interval.low[4]


def test_interval_of_specialization_covers_rare_and_skewed_features_where_welchs_does_not():
    rng = np.random.default_rng(7)
    shape, truth = (75, 4000), 0.15
    x, y = rng.gamma(1, size=shape) * (rng.random(shape) < truth), np.zeros(shape)
    interval = contrast.difference_interval(x.mean(0) - y.mean(0), x, y, *constant_weights(x, y))
    welch = stats.ttest_ind(x, y, equal_var=False, axis=0).confidence_interval(0.95)
    covered, by_welch = (np.mean((own.low <= truth) & (truth <= own.high)) for own in (interval, welch))
    assert by_welch < 0.9 < 0.925 < covered <= 0.97
    assert np.mean((interval.high - interval.low) / (welch.high - welch.low)) < 1.2


@pytest.mark.parametrize("scale", [1e-200, 7.0, 1e150])
def test_interval_of_specialization_grows_with_the_unit_and_turns_round_with_the_sides(scale):
    x, y = samples()
    rng = np.random.default_rng(1)
    passages = rng.integers(1, 9, N), rng.integers(1, 9, M)
    estimate = np.average(x, 0, passages[0]) - np.average(y, 0, passages[1])
    interval = contrast.difference_interval(estimate, x, y, *passages)
    scaled = contrast.difference_interval(scale * estimate, scale * x, scale * y, *passages)
    np.testing.assert_allclose(scaled.low, scale * interval.low, rtol=1e-9)
    np.testing.assert_allclose(scaled.high, scale * interval.high, rtol=1e-9)
    turned = contrast.difference_interval(-estimate, y, x, *passages[::-1])
    np.testing.assert_allclose(turned.low, -interval.high, rtol=1e-12)
    np.testing.assert_allclose(turned.high, -interval.low, rtol=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 30), (3, 3)])
def test_interval_of_specialization_of_very_few_documents_is_finite_and_holds_the_estimate(n, m):
    rng = np.random.default_rng(3)
    x, y = rng.lognormal(size=(n, 6)), rng.lognormal(size=(m, 6))
    x[:, 1], y[:, 2], x[:, 3:5], y[:, 3:5] = 0, 1, 0, 0
    y[0, 4] = 1e30
    estimate = x.mean(0) - y.mean(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        interval = contrast.difference_interval(estimate, x, y, *constant_weights(x, y))
    assert np.isfinite(interval).all()
    assert (interval.low <= estimate).all()
    assert (estimate <= interval.high).all()
    assert (interval.low[[0, 1, 2, 4, 5]] < interval.high[[0, 1, 2, 4, 5]]).all()
    assert (interval.low[3], interval.high[3]) == (0, 0)


def test_interval_of_specialization_is_that_of_document_means_where_all_have_the_same_number_of_passages():
    x, y = samples()
    estimate = x.mean(0) - y.mean(0)
    one = contrast.difference_interval(estimate, x, y, *constant_weights(x, y))
    four = contrast.difference_interval(estimate, x, y, np.full(N, 4), np.full(M, 3))
    np.testing.assert_allclose(one.low, four.low, rtol=1e-12)
    np.testing.assert_allclose(one.high, four.high, rtol=1e-12)


def test_interval_of_specialization_holds_the_estimate_and_moves_with_it_with_unequal_passages_too():
    x, y = samples()
    rng = np.random.default_rng(0)
    estimate, passages = rng.normal(size=LATENTS), (rng.integers(1, 9, N), rng.integers(1, 9, M))
    interval = contrast.difference_interval(estimate, x, y, *passages)
    moved = contrast.difference_interval(estimate + 1, x, y, *passages)
    assert (interval.low < estimate).all()
    assert (estimate < interval.high).all()
    np.testing.assert_allclose(moved.low, interval.low + 1)
    np.testing.assert_allclose(moved.high, interval.high + 1)


def test_interval_of_specialization_covers_the_mean_over_passages_about_95_percent_of_the_time():
    rng = np.random.default_rng(11)
    covered = covered_by_document_means = 0
    for _ in range(400):
        passages = rng.choice([1, 6], size=(2, 100), p=[0.7, 0.3])
        x, y = (level * n[:, None] + rng.normal(0, 6, (100, 1)) for level, n in zip((1.0, 0.5), passages, strict=True))
        estimate = np.average(x, 0, passages[0]) - np.average(y, 0, passages[1])
        interval = contrast.difference_interval(estimate, x, y, *passages)
        truth = (1.0 - 0.5) * 11.5 / 2.5  # E[n^2] / E[n]
        covered += int(interval.low[0] <= truth <= interval.high[0])
        naive = contrast.difference_interval(estimate, x, y, *constant_weights(x, y))
        covered_by_document_means += int(naive.low[0] <= truth <= naive.high[0])
    assert 0.92 <= covered / 400 <= 0.98
    assert covered_by_document_means / 400 < 0.9, "Welch of document means would not do"


def test_interval_of_a_latent_that_is_constant_on_both_sides_is_the_estimate_alone():
    x, y = np.ones((5, 1)), np.zeros((5, 1))
    interval = contrast.difference_interval(np.array([1.0]), x, y, *constant_weights(x, y))
    assert (interval.low.item(), interval.high.item()) == (1.0, 1.0)


@pytest.mark.parametrize("tied", [False, True])
def test_p_value_is_that_of_scipys_brunner_munzel(tied):
    x, y = samples(2, tied=tied)
    expected = [stats.brunnermunzel(x[:, f], y[:, f], alternative="greater").pvalue for f in range(LATENTS)]
    np.testing.assert_allclose(separation([(x, y)]).p_value, expected, rtol=1e-9)


def test_p_value_is_small_where_the_domain_is_larger_and_large_where_it_is_smaller():
    x, y = samples(3)
    assert (separation([(x + 3, y)]).p_value < 1e-3).all()
    assert (separation([(x - 3, y)]).p_value > 0.99).all()


def test_p_value_is_uniform_where_both_sides_are_alike():
    rng = np.random.default_rng(4)
    p = separation([(rng.gamma(1, size=(40, 1000)), rng.gamma(1, size=(50, 1000)))]).p_value
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("n", [3, 23])
def test_p_values_of_separated_and_constant_latents_are_finite_and_point_the_right_way(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = separation([separated(n, n)]).p_value
    assert np.isfinite(p).all()
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[[0, 3]] <= 0.05).all()
    assert (p[[1, 4]] >= 0.9).all()
    assert p[2] == 1.0


def test_hedges_g_is_the_difference_over_the_pooled_deviation_with_the_small_sample_correction():
    x, y = np.array([[2.0], [4.0], [6.0]]), np.array([[1.0], [1.0], [2.0], [4.0]])
    pooled = math.sqrt((2 * 4 + 3 * 2) / 5)
    assert contrast.hedges_g(x, y).item() == pytest.approx((4 - 2) / pooled * (1 - 3 / (4 * 5 - 1)))


def test_hedges_g_without_deviation_is_zero_where_the_sides_are_equal_and_infinite_where_they_differ():
    assert contrast.hedges_g(*separated())[2:].tolist() == [0.0, math.inf, -math.inf]


def test_q_values_are_those_of_scipys_benjamini_hochberg_and_of_its_definition():
    p = np.random.default_rng(0).random(50) ** 3
    q = contrast.q_values(p)
    np.testing.assert_allclose(q, stats.false_discovery_control(p, method="bh"))
    order = np.argsort(p)
    for place, latent in enumerate(order):
        assert q[latent] == pytest.approx(min(1.0, *(p[order[k]] * 50 / (k + 1) for k in range(place, 50))))


def test_no_p_values_give_no_q_values():
    assert len(contrast.q_values(np.array([]))) == 0
