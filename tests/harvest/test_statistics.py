"""Laws of the streaming statistics: they merge, they count what happened, and they are exact where they should be."""

import copy
from dataclasses import fields
from functools import reduce

import numpy as np
import pytest
from synthetic import LATENTS, POPULATIONS, passage_values, pick

from stratalens.harvest.state.statistics import (
    HISTOGRAM_BINS,
    HISTOGRAM_BINS_PER_DECADE,
    HISTOGRAM_LOW,
    FeatureStats,
    histogram_bin,
    merge,
)

NAMES = [field.name for field in fields(FeatureStats)]
COUNTS = {
    "latents",
    "passages",
    "tokens",
    "countable_positions",
    "positions",
    "passages_fired",
    "positions_fired",
    "histogram",
}


def of(seed: int, passages: int = 40) -> FeatureStats:
    return FeatureStats.of(passage_values(passages, seed), POPULATIONS)


def everywhere(stats: FeatureStats) -> FeatureStats:
    return stats.for_latents(np.arange(LATENTS))


def column(stats: FeatureStats, name: str) -> np.ndarray:
    """A field as a plain array."""
    values = getattr(stats, name)
    return values if isinstance(values, np.ndarray) else values.toarray().reshape(POPULATIONS, -1, HISTOGRAM_BINS)


def memory(stats: FeatureStats, name: str) -> np.ndarray:
    values = getattr(stats, name)
    return values if isinstance(values, np.ndarray) else values.data


def assert_same(a: FeatureStats, b: FeatureStats, rtol: float = 0.0) -> None:
    for name in NAMES:
        np.testing.assert_allclose(column(a, name), column(b, name), rtol=rtol, err_msg=name)


def test_statistics_are_what_a_plain_count_over_passages_gives():
    values, stats = passage_values(40, 0), everywhere(of(0))
    expected = {name: np.zeros(column(stats, name).shape) for name in NAMES}
    expected["latents"] = np.arange(LATENTS)
    for p, population in enumerate(values.population):
        expected["passages"][population] += 1
        expected["tokens"][population] += values.tokens[p]
        expected["countable_positions"][population] += values.countable_positions[p]
        expected["positions"][population] += values.kept_positions[p]
        expected["norm_sum"][population] += values.norm_sum[p]
    for entry, p in enumerate(values.passage):
        at, mean = (values.population[p], values.latent[entry]), float(values.mean[entry])
        expected["passages_fired"][at] += 1
        expected["positions_fired"][at] += values.positions_fired[entry]
        expected["mean_sum"][at] += mean
        expected["mean_square_sum"][at] += mean**2
        expected["activation_sum"][at] += mean * values.kept_positions[p]
        expected["activation_max"][at] = max(expected["activation_max"][at], values.maximum[entry])
        decade = np.log10(mean / HISTOGRAM_LOW)
        bin_ = int(np.clip(np.floor(decade * HISTOGRAM_BINS_PER_DECADE), 0, HISTOGRAM_BINS - 1))
        expected["histogram"][(*at, bin_)] += 1
        expected["class_mass"][at] += values.class_mass[entry]
        expected["early_mass"][at] += values.early_mass[entry]
    for name in NAMES:
        np.testing.assert_allclose(column(stats, name), expected[name], rtol=1e-12, err_msg=name)


def test_counts_are_int64_and_sums_float64_whatever_the_device_gave():
    for stats in (FeatureStats.empty(POPULATIONS), of(0), merge(of(0), of(1))):
        assert {name: getattr(stats, name).dtype for name in NAMES} == {
            name: np.dtype(np.int64 if name in COUNTS else np.float64) for name in NAMES
        }


def test_counts_beyond_float32_stay_exact():
    values = passage_values(2, 0)
    many = 2**24 + 1
    stats = FeatureStats.of(
        values._replace(population=np.zeros(2, np.int64), kept_positions=np.array([many, 2]), norm_sum=np.ones(2)),
        POPULATIONS,
    )
    assert merge(stats, stats).positions[0] == 2 * many + 4


def test_empty_is_the_identity_of_merge():
    stats, empty = of(0), FeatureStats.empty(POPULATIONS)
    assert_same(merge(stats, empty), stats)
    assert_same(merge(empty, stats), stats)


@pytest.mark.parametrize("passages", [0, 3])
def test_passages_on_which_nothing_fires_leave_the_sums_at_zero_in_their_own_types(passages):
    values = pick(passage_values(4, 0), np.arange(passages))
    none = np.zeros(len(values.passage), bool)
    by_entry = ("passage", "latent", "mean", "maximum", "positions_fired", "class_mass", "early_mass")
    stats = FeatureStats.of(values._replace(**{name: getattr(values, name)[none] for name in by_entry}), POPULATIONS)
    assert stats.passages.sum() == passages
    for name in NAMES:
        assert getattr(stats, name).dtype == getattr(FeatureStats.empty(POPULATIONS), name).dtype
        scalars = ("passages", "tokens", "countable_positions", "positions", "norm_sum")
        assert name in scalars or not column(stats, name).any()
    assert len(stats.latents) == 0


def test_merge_commutes_and_associates():
    a, b, c = of(0), of(1), of(2)
    assert_same(merge(a, b), merge(b, a))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)), rtol=1e-12)


@pytest.mark.parametrize("shards", [2, 5])
def test_merged_shards_equal_a_single_pass(shards):
    values = passage_values(60, 3)
    parts = np.array_split(np.random.default_rng(0).permutation(60), shards)
    folded = reduce(
        merge,
        (FeatureStats.of(pick(values, part), POPULATIONS) for part in parts),
        FeatureStats.empty(POPULATIONS),
    )
    assert_same(folded, FeatureStats.of(values, POPULATIONS), rtol=1e-12)


def test_merge_leaves_its_inputs_alone_and_shares_no_memory_with_them():
    a, b = of(0), of(1)
    before = copy.deepcopy((a, b))
    merged = merge(a, b)
    for name in NAMES:
        assert not np.shares_memory(memory(merged, name), memory(a, name))
        assert not np.shares_memory(memory(merged, name), memory(b, name))
        memory(merged, name)[...] = 1
    assert_same(a, before[0])
    assert_same(b, before[1])


def test_histogram_sums_to_the_passages_fired_and_a_latent_that_never_fires_has_none():
    stats = everywhere(merge(of(0), of(1)))
    assert np.array_equal(column(stats, "histogram").sum(2), stats.passages_fired)
    assert stats.passages_fired[:, :-1].sum() > 0
    assert stats.passages_fired[:, -1].sum() == 0


def test_histogram_bins_are_logarithmic_and_the_outer_ones_include_values_beyond_them():
    edges = HISTOGRAM_LOW * 10 ** ((np.arange(HISTOGRAM_BINS) + 0.5) / HISTOGRAM_BINS_PER_DECADE)
    assert np.array_equal(histogram_bin(edges), np.arange(HISTOGRAM_BINS))
    outside = np.array([1e-30, HISTOGRAM_LOW / 100, HISTOGRAM_LOW * 1e30])
    assert histogram_bin(outside).tolist() == [0, 0, HISTOGRAM_BINS - 1]


def test_every_population_is_counted_apart():
    values = passage_values(40, 0)
    for population in range(POPULATIONS):
        alone = everywhere(FeatureStats.of(pick(values, np.flatnonzero(values.population == population)), POPULATIONS))
        np.testing.assert_allclose(alone.mean_sum[population], everywhere(of(0)).mean_sum[population], rtol=1e-12)
        assert np.delete(alone.mean_sum, population, 0).sum() == 0


def test_latents_that_never_fired_have_no_column_and_merging_keeps_those_of_both():
    values = passage_values(60, 5)
    first = pick(values, np.flatnonzero(np.bincount(values.passage[values.latent == 0], minlength=60) == 0))
    a, b = FeatureStats.of(first, POPULATIONS), of(6)
    assert a.latents.tolist() == [1, 2, 3, 4]
    assert b.latents.tolist() == [0, 1, 2, 3, 4]
    assert a.histogram.shape == (POPULATIONS * 4, HISTOGRAM_BINS)
    both = merge(a, b)
    assert both.latents.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(both.mean_sum[:, 0], b.mean_sum[:, 0])
    assert np.array_equal(both.mean_sum[:, 1:], a.mean_sum + b.mean_sum[:, 1:])
    assert_same(everywhere(both), merge(everywhere(a), everywhere(b)))
