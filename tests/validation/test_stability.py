"""How surely a feature is among the reported ones: the draws of documents agree with plain loops over the ranking."""

from dataclasses import replace

import numpy as np
import pytest
from document_values import ranking_input

import stratalens
from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half, Populations, Side
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput, estimates
from stratalens.ranking.rank import best_latents, rank_features
from stratalens.validation.selection import placements
from stratalens.validation.stability import DRAWS, drawn_again, top_n_probabilities, with_top_n_probability

LATENTS, TOP_N = 60, 5
LAYER = Hookpoint(0)
KINDS = Populations(("news", "forum"))
FIRST, PAIR = 3, (7, 31)
"""Latents with the same values, in another order of documents."""


def values_of(seed: int, documents: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """Sparse values with many ties, some of them higher on the domain, and the populations of their documents."""
    rng = np.random.default_rng(seed)
    population = np.arange(documents) % len(KINDS)
    is_domain = KINDS.sides[population] == Side.DOMAIN
    rate = np.clip(np.linspace(0.2, 0.6, LATENTS) + 0.3 * is_domain[:, None] * np.linspace(0, 1, LATENTS), 0, 1)
    values = np.round(rng.lognormal(size=(documents, LATENTS)), 1) * (rng.random((documents, LATENTS)) < rate)
    return values, population


def layer(seed: int) -> RankingInput:
    """A layer in which latent 3 fires on all domain text and nothing else, and two equal latents on most of it."""
    values, population = values_of(seed)
    rng = np.random.default_rng(seed + 1)
    is_domain = KINDS.sides[population] == Side.DOMAIN
    values[:, FIRST] = 30 * is_domain
    values[:, PAIR[0]] = rng.lognormal(1, size=len(values)) * (rng.random(len(values)) < 0.1 + 0.75 * is_domain)
    for cell in range(len(KINDS)):
        own = np.flatnonzero(population == cell)
        values[own, PAIR[1]] = values[rng.permutation(own), PAIR[0]]
    return ranking_input(values, population, KINDS, np.ones(LATENTS))


def probabilities(source: RankingInput, rank_by: str, top_n: int = TOP_N, seed: int = 0) -> np.ndarray:
    everything = source.stats.latents.tolist()
    own = top_n_probabilities(source, everything, top_n=top_n, rank_by=rank_by, seed=seed)
    return own[np.argsort(everything)]


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_a_feature_that_is_always_first_has_1_and_one_of_two_equal_ones_about_a_half(rank_by):
    found = np.stack([probabilities(layer(seed), rank_by, top_n=2) for seed in range(12)])
    assert (found[:, FIRST] == 1).all()
    np.testing.assert_allclose(found.sum(1), 2)
    assert (found[:, list(PAIR)].sum(1) > 0.6).all()
    assert found[:, PAIR[0]].mean() == pytest.approx(0.5, abs=0.15)
    assert (np.abs(found[:, PAIR[0]] - 0.5) < 0.3).all()


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_draws_agree_with_plain_loops_over_the_ranking(rank_by):
    """Each draw as a run of its own: its documents, as often as they were drawn, are what the run ranks from."""
    values, population = values_of(1)
    source = ranking_input(values, population, KINDS, np.ones(LATENTS))
    dealt = drawn_again(source.documents, KINDS, 0)
    expected = np.zeros(LATENTS)
    for draw in range(DRAWS):
        rows = np.concatenate([rows[draw] for cells in dealt for rows in cells.values()])
        own = ranking_input(values[rows], population[rows], KINDS, np.ones(LATENTS))
        expected[best_latents(estimates(own, Half.DISCOVERY), rank_by, TOP_N)] += 1 / DRAWS
    own = probabilities(source, rank_by)
    assert own.sum() == pytest.approx(TOP_N)
    np.testing.assert_allclose(own, expected, atol=0.1)
    assert np.abs(own - expected).mean() < 0.01


def test_documents_are_drawn_within_side_and_kind_as_many_as_there_are():
    source = layer(2)
    for stratum, cells in enumerate(drawn_again(source.documents, KINDS, 5)):
        for (half, side), rows in cells.items():
            own = np.flatnonzero(
                source.documents.population == KINDS.where(side=side, half=half, stratum=stratum).item()
            )
            assert rows.shape == (DRAWS, len(own))
            assert set(rows.ravel()) == set(own)
            assert np.mean([len(set(row)) for row in rows]) == pytest.approx((1 - np.exp(-1)) * len(own), rel=0.03)
    first, same, other = (drawn_again(source.documents, KINDS, seed)[0] for seed in (5, 5, 6))
    for cell, rows in first.items():
        np.testing.assert_array_equal(rows, same[cell])
        assert not np.array_equal(rows, other[cell])


def test_the_auroc_of_a_draw_is_exact_where_all_documents_come_once_or_the_sides_are_separated():
    values, population = values_of(3)
    values[:, 0] = KINDS.sides[population] == Side.DOMAIN
    source = ranking_input(values, population, KINDS, np.ones(LATENTS))
    cells = drawn_again(source.documents, KINDS, 0)[0]
    dense = source.documents.values.toarray()
    pool, shares = placements(dense, cells)
    sides = [np.isin(pool, cells[Half.DISCOVERY, side]) for side in Side]
    whole = 0.5 + shares[sides[0]].mean(0) - shares[sides[1]].mean(0)
    pairs = dense[pool[sides[0]]][:, None], dense[pool[sides[1]]][None]
    np.testing.assert_allclose(whole, ((pairs[0] > pairs[1]) + (pairs[0] == pairs[1]) / 2).mean((0, 1)), atol=1e-6)
    for draw in range(20):
        x, y = (shares[np.searchsorted(pool, cells[Half.DISCOVERY, side][draw])].mean(0) for side in Side)
        assert 0.5 + x[0] - y[0] == pytest.approx(1 if whole[0] == 1 else 0)


def test_only_candidates_have_a_value_and_a_list_of_features_has_none():
    source = layer(4)
    settings = {"top_n": 2, "rank_by": "auroc"}
    ranking = rank_features({LAYER: source}, split=True, **settings)
    found = with_top_n_probability(ranking, {LAYER: source}, seed=0, **settings)
    latents, top = found.latents[LAYER], found.top[LAYER]
    assert latents["top_n_probability"].notna().sum() == 20
    assert latents["top_n_probability"].sum() == pytest.approx(2)
    same = latents.set_index("feature_number")["top_n_probability"]
    assert top["top_n_probability"].tolist() == same[top["feature_number"]].tolist()
    assert (top["top_n_probability"] > 0).all()
    listed = rank_features({LAYER: source}, split=True, listed={LAYER: [3, 4]}, **settings)
    found = with_top_n_probability(listed, {LAYER: source}, seed=0, **settings)
    assert found.top[LAYER]["top_n_probability"].isna().all()
    assert found.latents[LAYER]["top_n_probability"].isna().all()


@pytest.mark.parametrize("rank_by", ["auroc", "transfer"])
def test_draws_of_a_real_harvest_agree_with_plain_loops(embedded_run, rank_by):
    result = stratalens.load_result(embedded_run)
    source = result.ranking_inputs[Hookpoint(16)]
    best = best_latents(estimates(source, Half.DISCOVERY), rank_by, 90)
    source = source._replace(stats=source.stats.only(np.sort(best)))
    dealt = drawn_again(source.documents, source.populations, 0)
    expected = dict.fromkeys(best, 0.0)
    for draw in range(DRAWS):
        rows = np.concatenate([rows[draw] for cells in dealt for rows in cells.values()])
        own = {name: values[rows] for name, values in vars(source.documents).items()}
        drawn = source._replace(documents=replace(source.documents, **own))
        for latent in best_latents(estimates(drawn, Half.DISCOVERY), rank_by, 9):
            expected[latent] += 1 / DRAWS
    own = top_n_probabilities(source, best, top_n=9, rank_by=rank_by, seed=0)
    difference = np.abs(own - list(expected.values()))
    assert difference.max() < 0.15
    assert difference.mean() < 0.02
