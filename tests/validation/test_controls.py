"""Controls: noise gives about the nominal rate of discoveries, and a planted domain is found by probes and features."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from document_values import ranking_input
from scipy import stats

from stratalens.config.options import RunConfig
from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.populations import Population
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.rank import rank_features
from stratalens.ranking.separation import separation
from stratalens.validation.chance import ChanceRate, chance_rate, confirm_noise, discoveries
from stratalens.validation.controls import Controls, control_warnings, make_controls
from stratalens.validation.layer_gaps import LayerValues, layer_gaps
from stratalens.validation.relabelling import CELLS, halves_of_general, shuffled_sides
from stratalens.validation.selection import SCORES, select

LATENTS, WIDTH, PLANTED = 40, 8, 5
KINDS = Populations(("news", "forum"))


def noise(seed: int, documents: int = 240, populations: Populations = KINDS, planted: float = 0.0) -> RankingInput:
    """Sparse latents and a residual stream that know nothing of the side, but for what is planted in both."""
    rng = np.random.default_rng(seed)
    population = np.arange(documents) % len(populations)
    values = rng.lognormal(size=(documents, LATENTS)) * (rng.random((documents, LATENTS)) < 0.5)
    residual = rng.normal(size=(documents, WIDTH))
    is_domain = populations.sides[population] == Side.DOMAIN
    values[:, PLANTED] += planted * is_domain
    residual[:, 0] += planted * is_domain
    source = ranking_input(values, population, populations, np.ones(LATENTS))
    return source._replace(documents=replace(source.documents, residual=residual))


def controls_of(sources: Mapping[Hookpoint, RankingInput], **options) -> Controls:
    config = RunConfig.model_validate({"domain": "financial", "top_n": 8} | options)
    ranking = rank_features(sources, top_n=config.top_n, rank_by=config.rank_by, split=True)
    return make_controls(config, sources, ranking.top, words=None)


@pytest.mark.parametrize("deal", [halves_of_general, shuffled_sides])
def test_documents_are_dealt_within_kinds_each_once_and_alike_at_every_hookpoint(deal):
    source = noise(0)
    dealt = deal(source.documents, KINDS, 7)
    kinds = [Population.numbered(int(number)).stratum for number in source.documents.population]
    for stratum, cells in enumerate(dealt):
        joined = np.concatenate([cells[cell] for cell in CELLS], axis=1)
        assert all(len(set(row)) == len(row) for row in joined)
        assert {kinds[row] for row in joined.ravel()} == {stratum}
    again = deal(replace(source.documents, residual=np.zeros((240, 3))), KINDS, 7)
    np.testing.assert_array_equal(dealt[0][CELLS[0]], again[0][CELLS[0]])
    assert not np.array_equal(dealt[0][CELLS[0]], deal(source.documents, KINDS, 8)[0][CELLS[0]])


def test_every_order_of_ranking_can_be_relabelled():
    assert set(SCORES) == set(RANK_METRICS)


@pytest.mark.parametrize("metric", RANK_METRICS)
def test_selection_of_relabelled_documents_is_that_of_a_run(metric):
    """With the true sides in every repetition it selects what `rank_features` selects, up to ranks in the half."""
    source = noise(1, planted=1.0)
    dealt = [
        {
            (half, side): np.flatnonzero(
                np.isin(source.documents.population, KINDS.where(side=side, half=half, stratum=at))
            )[None]
            for half in Half
            for side in Side
        }
        for at in range(2)
    ]
    picks = select(source, dealt, metric, 8)[0]
    top = rank_features({Hookpoint(0): source}, top_n=8, rank_by=metric, split=True).top[Hookpoint(0)]
    assert picks[0] == PLANTED
    assert len(set(picks) & set(top["feature_number"])) >= (6 if metric in ("auroc", "transfer", "domain_score") else 8)
    tests = confirm_noise(source, dealt, rank_by=metric, top_n=8, listed=None)
    table = top.set_index("feature_number")
    for pick, p, agrees in zip(picks, tests.p_value[0], tests.agrees[0], strict=True):
        if pick in table.index:
            assert p == pytest.approx(table.loc[pick, "p_value"], rel=1e-6)
            row = table.loc[pick]
            both = row["specialization"] > 0 and row["discovery_specialization"] > 0
            assert agrees == (both and row["auroc_low"] > 0.5)


@pytest.mark.parametrize("rank_by", ["specialization", "transfer"])
def test_noise_gives_about_the_nominal_rate(rank_by):
    """Over many data sets, because the splits of one share its documents."""
    rates = [controls_of({Hookpoint(0): noise(seed)}, rank_by=rank_by) for seed in range(10)]
    null = sum(own.null_contrast.with_discovery for own in rates)  # pyright: ignore[reportOptionalMemberAccess]
    shuffled = sum(own.shuffled_labels.with_discovery for own in rates)  # pyright: ignore[reportOptionalMemberAccess]
    for count in (null, shuffled):
        assert 0.005 < count / 2000 < 0.08


def test_a_planted_domain_is_found_by_ceilings_and_features_and_not_by_the_null_contrast():
    sources = {Hookpoint(0): noise(2, planted=3.0), Hookpoint(1): noise(3)}
    found = controls_of(sources)
    planted, empty = found.hookpoints[Hookpoint(0)], found.hookpoints[Hookpoint(1)]
    for own in (planted.ceilings.mean_difference, planted.ceilings.logistic_probe):
        assert own is not None
        assert own.auroc > 0.95
        assert (own.domain_documents, own.general_documents) == (60, 60)
    assert [probe.features for probe in planted.ceilings.best_features] == [1, 5, 8]
    assert all(probe.held_out.low > 0.8 for probe in planted.ceilings.best_features)
    for own in (empty.ceilings.mean_difference, empty.ceilings.logistic_probe):
        assert own is not None
        assert own.low < 0.5
    assert found.null_contrast is not None
    assert found.null_contrast.low < 0.1
    assert control_warnings(found) == []
    assert planted.behind_best is None
    assert empty.behind_best is not None
    assert empty.behind_best.low > 0


def test_a_ceiling_is_measured_on_documents_that_it_was_not_fitted_on():
    source = noise(4)
    matrix = source.documents
    own = controls_of({Hookpoint(0): source}).hookpoints[Hookpoint(0)].ceilings.mean_difference
    assert own is not None
    cells = {
        (half, side): np.isin(matrix.population, KINDS.where(side=side, half=half)) for half in Half for side in Side
    }
    fitted = [matrix.residual[cells[Half.DISCOVERY, side]].mean(0) for side in Side]
    scores = matrix.residual @ (fitted[0] - fitted[1])
    pairs = [
        tuple(
            scores[np.isin(matrix.population, KINDS.where(side=side, half=Half.CONFIRMATION, stratum=at))][:, None]
            for side in Side
        )
        for at in range(2)
    ]
    assert own.auroc == pytest.approx(separation(pairs).auroc[0])


def test_few_general_documents_have_no_null_contrast():
    found = controls_of({Hookpoint(0): noise(5, documents=76, populations=Populations())})
    assert found.null_contrast is None
    assert found.shuffled_labels is not None
    assert found.hookpoints[Hookpoint(0)].null_discoveries is None


def test_q_values_are_over_the_latents_of_all_hookpoints():
    dealt = [halves_of_general(noise(0).documents, KINDS, 0)]
    tests = confirm_noise(noise(0), dealt[0], rank_by="auroc", top_n=4, listed=[PLANTED, 1])
    assert tests.p_value.shape == (200, 2)
    one = replace_first(tests, 0.04)
    assert discoveries({Hookpoint(0): one})[Hookpoint(0)][0]
    assert not discoveries({Hookpoint(0): one, Hookpoint(1): replace_first(tests, 0.9)})[Hookpoint(0)][0]


def replace_first(tests, p: float):
    """The first repetition has this p-value and another one of 0.9, and both agree."""
    p_value, agrees = tests.p_value.copy(), tests.agrees.copy()
    p_value[0], agrees[0] = [p / 2, 0.9], True
    return tests._replace(p_value=p_value, agrees=agrees)


def test_only_a_rate_that_is_surely_high_is_a_warning():
    def found(count: int) -> Controls:
        rate = chance_rate({Hookpoint(0): np.arange(200) < count})
        return Controls(rate, None, None, {})

    rate = found(24).null_contrast
    assert isinstance(rate, ChanceRate)
    assert rate.low == pytest.approx(stats.binomtest(24, 200).proportion_ci(method="wilson").low)
    assert control_warnings(found(24)) == []  # 0.12, from 0.08
    assert "23%" in control_warnings(found(46))[0]
    assert control_warnings(None) == []


def test_layers_are_compared_on_the_same_documents():
    """Two layers that share most of what varies differ surely, though their own intervals overlap."""
    rng = np.random.default_rng(0)
    shared, document, passages = rng.normal(size=80), np.arange(80, dtype=np.uint64), np.ones(80, np.int64)
    own = [shared + level + 0.01 * rng.normal(size=80) for level in (np.arange(80) < 40, 0.9 * (np.arange(80) < 40))]
    values = {
        Hookpoint(at): LayerValues(float(v[:40].mean() - v[40:].mean()), document, v, passages, 40)
        for at, v in enumerate(own)
    }
    gap = layer_gaps(values)
    assert set(gap) == {Hookpoint(1)}
    assert 0 < gap[Hookpoint(1)].low < 0.1 < gap[Hookpoint(1)].high + 0.01
    noisy = own[1] + rng.normal(size=80)
    values[Hookpoint(1)] = LayerValues(float(noisy[:40].mean() - noisy[40:].mean()), document, noisy, passages, 40)
    gap = next(iter(layer_gaps(values).values()))
    assert gap.low < 0 < gap.high
