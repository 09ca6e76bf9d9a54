"""`make bench-validity` measures what the product does; few runs are sane, and a broken selection is caught."""

import numpy as np
import pandas as pd
import pytest
from validity import MIN_COVERED_DOCUMENTS, Bounds, Options, cases, check, numbers
from validity_numbers import bias, coverage, false_discovery_rate
from validity_runs import PUBLISHED, Case, input_of, reported
from validity_samples import GROUPS, PLANTS, SETTINGS, HarvestValues, values_of

import stratalens
from stratalens.cli.main import main
from stratalens.config.result_options import RANK_METRICS
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.rank import rank_features

SMALL = {"documents": 75, "latents": 60, "top_n": 10}


@pytest.fixture(scope="module")
def values() -> HarvestValues:
    """Skewed values of documents, like those of a harvest; a fifth of the latents is of the domain."""
    rng = np.random.default_rng(0)
    side = np.arange(400) % 2
    share = rng.uniform(0.1, 0.9, 80) * np.where((np.arange(80) < 16) & (side[:, None] == 1), 0.5, 1)
    dense = rng.lognormal(size=(400, 80)) * (rng.random((400, 80)) < share)
    return HarvestValues((dense,), side, np.arange(400) // 2 % 3)


@pytest.mark.parametrize("setting", SETTINGS)
def test_runs_side_by_side_are_those_of_the_product_one_by_one(values, setting):
    case = Case(setting, **SMALL)
    together = reported(values, case, range(2))
    for run in range(2):
        sample = SETTINGS[setting](values, 75, 60, np.random.default_rng([list(SETTINGS).index(setting), 75, run]))
        for rank_by in RANK_METRICS[:: 1 + run]:
            alone = rank_features({Hookpoint(0): input_of(sample)}, top_n=10, rank_by=rank_by, split=True)
            expected = alone.top[Hookpoint(0)]
            own = together[(together["run"] == run) & (together["rank_by"] == rank_by)].reset_index(drop=True)
            assert own["latent"].tolist() == expected["feature_number"].tolist()
            pd.testing.assert_frame_equal(own[list(PUBLISHED)], expected[list(PUBLISHED)])


def test_few_runs_of_planted_features_meet_the_bounds(values):
    case = Case("planted", **SMALL)
    features = reported(values, case, range(30))
    columns = {name: numbers(case, features.query("rank_by == @name")) for name in ("auroc", "specialization")}
    bounds = Bounds()
    check(case, columns, bounds)
    assert bounds.broken == []
    for found in columns.values():
        assert found["1 in 100%"].value > 0.9 > 0.1 > found["0.25 in 10%"].value
        assert found["without split"].value > 0.05 > 3 * abs(found["AUROC bias"].value)


def test_decoys_are_selected_and_not_confirmed(values):
    features = reported(values, Case("planted", **SMALL), range(20))
    decoys = features[features["true_group"] == GROUPS.index("one half")]
    assert len(decoys) > 0.5 * 20 * 4 * len(RANK_METRICS)
    assert decoys["confirmed"].mean() < 0.1
    assert (features["true_group"] == GROUPS.index("loud")).any()


def test_the_truth_is_what_many_documents_show(values):
    """The truth of a sample is computed from the population; a sample of many documents comes near it."""
    for setting in SETTINGS:
        features = reported(values, Case(setting, 4000, 60, 60), [0])
        own = features[features["rank_by"] == "auroc"]
        assert np.abs(own["auroc"] - own["true_auroc"]).max() < 0.04
        scale = (own["specialization_high"] - own["specialization_low"]) / 4
        assert (np.abs(own["specialization"] - own["true_specialization"]) / scale).max() < 5
        planted = own["true_group"] >= GROUPS.index(PLANTS[0])
        assert (own["true_auroc"][planted] > 0.5).all()


def test_a_selection_without_a_split_is_caught_as_biased(values):
    """Estimates from the documents that selected: the bounds of the benchmark must not hold."""
    case = Case("shuffled", **SMALL)
    sound, broken = (reported(values, case, range(30), split=split) for split in (True, False))
    for name, own in broken.groupby("rank_by"):
        honest = sound[sound["rank_by"] == name]
        assert bias(own, "auroc").value > 0.03 > 3 * abs(bias(honest, "auroc").value)
        assert coverage(own, "auroc").value + 0.03 < coverage(honest, "auroc").value
        assert false_discovery_rate(own).value > false_discovery_rate(honest).value
    bounds = Bounds()
    check(case, {name: numbers(case, own) for name, own in broken.groupby("rank_by")}, bounds)
    for name in RANK_METRICS:
        assert any(f"by {name}: bias" in text for text in bounds.broken)


def test_enough_runs_are_planned():
    planned = list(cases(Options()))
    assert {case.setting for case, _ in planned} == set(SETTINGS)
    long = {case.setting for case, runs in planned if runs >= 2000 and case.documents == MIN_COVERED_DOCUMENTS}
    assert long == {"shuffled", "planted"}


def test_values_are_read_from_the_harvest_of_a_run(tiny_arguments, tmp_path):
    assert main(["analyze", "--quiet", *tiny_arguments]) == 0
    found = values_of(stratalens.load_result(tmp_path / "out"))
    assert [layer.shape[0] for layer in found.layers] == [48, 48]
    assert np.bincount(found.side).tolist() == [24, 24]
    features = reported(found, Case("real", 10, 40, 5), range(2))
    assert len(features) == 2 * 5 * len(RANK_METRICS)
