"""Ranking: planted features are found, noise is not, and what is published comes from the confirmation half."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus.populations import Half, Population, Populations, Side
from stratalens.corpus.sources import NO_SOURCES
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.hookpoint import Hookpoint
from stratalens.models.token_classes import TOKEN_CLASSES, TokenClass
from stratalens.ranking.estimates import RankingInput, estimates
from stratalens.ranking.rank import rank_features

LATENTS = 24
PLANTED, DEAD = 3, 7
KEPT = 20
NORM = 10.0
OF_BOTH_HALVES = ("flags", "live", "selected", "discovery_specialization", "discovery_auroc", "transfer_rank")


class Corpus:
    """Random passage values: sparse, skewed, similar within a document; the latent `DEAD` never fires."""

    def __init__(self, seed: int, documents: int = 160):
        rng = np.random.default_rng(seed)
        self.populations = Populations()
        self.population = rng.permutation(np.arange(documents) % 4)
        self.document = np.repeat(np.arange(documents), rng.integers(1, 4, documents))
        shape = (len(self.document), LATENTS)
        base = rng.lognormal(sigma=0.5, size=(documents, LATENTS))
        self.mean = base[self.document] * rng.lognormal(sigma=0.5, size=shape) * (rng.random(shape) < 0.7)
        self.mean[:, DEAD] = 0

    @property
    def side(self) -> np.ndarray:
        return self.populations.sides[self.population[self.document]]

    @property
    def half(self) -> np.ndarray:
        return self.populations.halves[self.population[self.document]]

    def layer_input(self, fired: int | np.ndarray = 4, **changes) -> RankingInput:
        """Statistics and documents as a harvest leaves them; `changes` replace statistics of all latents."""
        passage, latent = np.nonzero(self.mean)
        mean = self.mean[passage, latent].astype(np.float32)
        passages = len(self.document)
        values = PassageValues(
            population=self.population[self.document],
            tokens=np.full(passages, KEPT + 2),
            countable_positions=np.full(passages, KEPT + 1),
            kept_positions=np.full(passages, KEPT),
            norm_sum=np.full(passages, KEPT * NORM, np.float32),
            residual_mean=np.zeros((passages, 2), np.float32),
            passage=passage,
            latent=latent,
            mean=mean,
            maximum=2 * mean,
            positions_fired=np.broadcast_to(fired, len(passage)),
            class_mass=KEPT * mean[:, None] * np.eye(len(TOKEN_CLASSES), dtype=np.float32)[TokenClass.OTHER],
            early_mass=KEPT * mean * np.float32(0.1),
        )
        sampled = SampledPassages(self.document.astype(np.uint64), np.ones(passages, bool))
        stats = FeatureStats.of(values, len(self.populations))
        stats = replace(stats, **{name: column[:, stats.latents] for name, column in changes.items()})
        norms = np.linspace(0.5, 2.0, LATENTS)
        return RankingInput(
            stats, DocumentSample.of(values, sampled).matrix(LATENTS), norms, self.populations, NO_SOURCES
        )


def planted(seed: int) -> Corpus:
    corpus = Corpus(seed)
    corpus.mean[:, PLANTED] += 2.0 * (corpus.side == Side.DOMAIN)
    return corpus


def ranked_alone(source: RankingInput, **options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(reported features, all latents) of one layer."""
    settings = {"top_n": 6, "rank_by": "specialization", "split": True} | options
    ranking = rank_features({Hookpoint(0): source}, **settings)
    return ranking.top[Hookpoint(0)], ranking.latents[Hookpoint(0)]


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_a_planted_feature_is_selected_ranked_first_and_confirmed(rank_by):
    top, latents = ranked_alone(planted(0).layer_input(), rank_by=rank_by)
    first = top.iloc[0]
    assert first["feature_number"] == PLANTED
    assert first["rank"] == 1
    assert first["confirmed"]
    assert first["q_value"] < 1e-6
    assert first["auroc_low"] > 0.5
    assert first["specialization_low"] < 2.0 < first["specialization_high"]
    assert latents.loc[PLANTED, "selected"]
    assert not top["confirmed"].iloc[1:].any()


def test_a_feature_planted_in_general_text_is_not_confirmed():
    corpus = Corpus(1)
    corpus.mean[:, PLANTED] += 2.0 * (corpus.side == Side.GENERAL)
    top, latents = ranked_alone(corpus.layer_input(), top_n=LATENTS)
    assert not top.set_index("feature_number").loc[PLANTED, "confirmed"]
    assert top["feature_number"].iloc[-1] == PLANTED
    assert latents.loc[PLANTED, "auroc_high"] < 0.5


def test_a_feature_planted_in_one_half_only_is_not_confirmed():
    for half in Half:
        corpus = Corpus(2)
        corpus.mean[:, PLANTED] += 2.0 * ((corpus.side == Side.DOMAIN) & (corpus.half == half))
        top, latents = ranked_alone(corpus.layer_input())
        assert latents.loc[PLANTED, "selected"] == (half == Half.DISCOVERY)
        assert True not in top["confirmed"].tolist()


def test_shuffled_labels_confirm_something_no_more_often_than_the_nominal_rate():
    runs, found = 200, 0
    for seed in range(runs):
        layers = {Hookpoint(n): Corpus(1000 + 2 * seed + n, 120).layer_input() for n in (0, 1)}
        ranking = rank_features(layers, top_n=6, rank_by=RANK_METRICS[seed % len(RANK_METRICS)], split=True)
        found += any(table["confirmed"].any() for table in ranking.top.values())
    assert found <= stats.binom.ppf(0.999, runs, 0.05)


def test_without_held_back_documents_the_best_of_shuffled_labels_looks_better_than_chance():
    above = 0
    for seed in range(30):
        source = Corpus(1000 + seed, 120).layer_input()
        top, _ = ranked_alone(source, split=False, rank_by="auroc", top_n=1)
        above += bool(top["auroc_low"].iloc[0] > 0.5)
    assert above > stats.binom.ppf(0.999, 30, 0.05), "so the control above is able to fail"


def test_published_estimates_of_a_latent_do_not_depend_on_the_discovery_documents():
    corpus = planted(3)
    _, before = ranked_alone(corpus.layer_input())
    rng = np.random.default_rng(0)
    in_discovery = corpus.half == Half.DISCOVERY
    corpus.mean[in_discovery] = rng.permutation(corpus.mean[in_discovery].ravel()).reshape(-1, LATENTS)
    corpus.mean[:, DEAD] = 0
    _, after = ranked_alone(corpus.layer_input())
    published = [name for name in before.columns if name not in OF_BOTH_HALVES]
    assert {"specialization", "normalised_low", "auroc_high", "q_value", "domain_score", "hedges_g"} <= set(published)
    pd.testing.assert_frame_equal(before.filter(items=published), after.filter(items=published))
    assert not np.allclose(before["discovery_auroc"], after["discovery_auroc"], atol=0.05)


def test_published_estimates_are_those_of_the_confirmation_documents():
    corpus = planted(4)
    top, latents = ranked_alone(corpus.layer_input())
    confirmation = corpus.half == Half.CONFIRMATION
    sides = [corpus.mean[confirmation & (corpus.side == side)].astype(np.float32) for side in Side]
    domain, general = (side.mean(0, dtype=np.float64) for side in sides)
    np.testing.assert_allclose(latents["domain_activation"], domain)
    np.testing.assert_allclose(latents["general_activation"], general)
    np.testing.assert_allclose(latents["specialization"], domain - general, atol=1e-9)
    scale = np.linspace(0.5, 2.0, LATENTS) / NORM
    np.testing.assert_allclose(latents["normalised_specialization"], (domain - general) * scale, atol=1e-9)
    np.testing.assert_allclose(latents["domain_firing_rate"], (sides[0] > 0).mean(0))
    np.testing.assert_allclose(latents["general_density"], (sides[1] > 0).mean(0) * 4 / KEPT)
    shared = [name for name in top.columns if name in latents.columns and name != "q_value"]
    pd.testing.assert_frame_equal(
        top.set_index("feature_number", drop=False).filter(items=shared),
        latents.filter(items=top["feature_number"], axis=0).filter(items=shared),
        check_names=False,
    )


def test_domain_share_is_smoothed_by_one_pseudo_document_a_side():
    corpus = planted(4)
    _, latents = ranked_alone(corpus.layer_input())
    for latent in range(LATENTS):
        sides = [
            corpus.mean[(corpus.side == side) & (corpus.half == Half.CONFIRMATION), latent].astype(np.float32)
            for side in Side
        ]
        together = np.concatenate(sides)
        active = together[together > 0].mean(dtype=np.float64) if together.any() else 0.0
        documents = [np.sum(corpus.population == Population(side, Half.CONFIRMATION).number) for side in Side]
        d, g = ((s.mean(dtype=np.float64) * n + active) / (n + 1) for s, n in zip(sides, documents, strict=True))
        expected = d / (d + g) if latent != DEAD else np.nan
        assert latents.loc[latent, "domain_share"] == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert latents["domain_share"].drop(DEAD).between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(latents["domain_score"], latents["auroc"] * latents["domain_share"])


def test_dead_latents_are_never_ranked_and_every_live_one_can_be():
    for rank_by in RANK_METRICS:
        top, latents = ranked_alone(Corpus(5).layer_input(), rank_by=rank_by, top_n=1000)
        assert sorted(top["feature_number"]) == [n for n in range(LATENTS) if n != DEAD]
        assert not latents.loc[DEAD, "live"]
        assert latents.loc[DEAD, "flags"] == "dead"
        assert latents.loc[DEAD, ["q_value", "auroc", "domain_score", "hedges_g"]].isna().all()
        assert (latents.loc[DEAD, ["specialization", "domain_activation", "domain_density"]] == 0).all()
        assert np.isfinite(latents["q_value"].to_numpy()).sum() == LATENTS - 1


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_every_metric_selects_by_its_discovery_value_and_orders_by_its_confirmation_value(rank_by):
    source = Corpus(6).layer_input()
    top, _ = ranked_alone(source, rank_by=rank_by)
    discovery = estimates(source, Half.DISCOVERY)
    best = discovery[discovery["live"]].nlargest(6, rank_by)["feature_number"]
    assert sorted(top["feature_number"]) == sorted(best)
    assert top[rank_by].is_monotonic_decreasing
    assert top["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert estimates(source, Half.CONFIRMATION).loc[top["feature_number"], rank_by].tolist() == top[rank_by].tolist()


def test_metrics_do_not_all_give_the_same_order():
    source = Corpus(6).layer_input()
    orders = {tuple(ranked_alone(source, rank_by=name, top_n=LATENTS)[0]["feature_number"]) for name in RANK_METRICS}
    assert len(orders) >= 4


def test_without_a_split_all_documents_select_and_estimate_and_nothing_is_confirmed():
    corpus = planted(7)
    corpus.population = corpus.population // 2 * 2
    top, latents = ranked_alone(corpus.layer_input(), split=False)
    assert all(value is pd.NA for value in top["confirmed"])
    assert top["feature_number"].iloc[0] == PLANTED
    np.testing.assert_allclose(latents["specialization"], latents["discovery_specialization"])
    expected = corpus.mean[corpus.side == 0].mean(0) - corpus.mean[corpus.side == 1].mean(0)
    np.testing.assert_allclose(latents["specialization"], expected, rtol=1e-5, atol=1e-6)


def test_q_values_are_benjamini_hochberg_over_the_selected_and_over_the_live_latents_of_all_layers():
    layers = {Hookpoint(n): planted(8 + n).layer_input() for n in (4, 10, 16)}
    ranking = rank_features(layers, top_n=5, rank_by="specialization", split=True)
    live = {layer: table[table["live"]] for layer, table in ranking.latents.items()}
    for tables in (ranking.top, live):
        together = pd.concat(tables.values())
        np.testing.assert_allclose(together["q_value"], stats.false_discovery_control(together["p_value"]))
    assert len(pd.concat(ranking.top.values())) == 15
    first = Hookpoint(4)
    alone = rank_features({first: layers[first]}, top_n=5, rank_by="specialization", split=True).top[first]
    assert not np.allclose(alone["q_value"], ranking.top[first]["q_value"])


def test_flags_name_the_class_of_token_that_holds_most_of_the_mass_on_domain_text():
    mass = np.ones((4, LATENTS, len(TOKEN_CLASSES)))
    hits = {
        TokenClass.DIGITS: 0,
        TokenClass.CURRENCY_OR_PERCENT: 1,
        TokenClass.PUNCTUATION: 2,
        TokenClass.CAPITALISED: 4,
    }
    for kind, latent in hits.items():
        mass[:2, latent, kind] = 50
    mass[2:, 5, TokenClass.DIGITS] = 1000
    early = np.full((4, LATENTS), 0.1)
    early[:2, 6] = 0.6 * mass[0, 6].sum()
    fired = np.full(np.count_nonzero(Corpus(9).mean), 4)
    fired[np.nonzero(Corpus(9).mean)[1] == 8] = KEPT
    source = Corpus(9).layer_input(class_mass=mass, early_mass=early, fired=fired)
    flags = estimates(source, Half.CONFIRMATION)["flags"]
    expected = {0: "digits", 1: "currency_or_percent", 2: "punctuation", 4: "capitalised", 6: "early_position"}
    expected |= {8: "dense", DEAD: "dead"}
    assert flags.to_dict() == {latent: expected.get(latent, "") for latent in range(LATENTS)}


def test_several_flags_are_joined():
    mass = np.ones((4, LATENTS, len(TOKEN_CLASSES)))
    mass[:2, 0, TokenClass.DIGITS] = 50
    early = np.full((4, LATENTS), 0.1)
    early[:2, 0] = 40
    source = Corpus(9).layer_input(class_mass=mass, early_mass=early)
    assert estimates(source, Half.CONFIRMATION).loc[0, "flags"] == "digits; early_position"


def test_strata_are_pooled():
    corpus = planted(3)
    one = corpus.layer_input()
    corpus.populations = Populations(("first", "second"))
    corpus.population += len(Populations()) * (np.arange(len(corpus.population)) // 4 % 2)
    two = corpus.layer_input()
    assert set(two.documents.population) == set(range(8))
    for half in Half:
        stratified, plain = estimates(two, half), estimates(one, half)
        of_strata = ["auroc", "auroc_low", "auroc_high", "p_value", "transfer", "domain_score"]
        pd.testing.assert_frame_equal(stratified.drop(columns=of_strata), plain.drop(columns=of_strata), rtol=1e-9)
        np.testing.assert_allclose(stratified["pooled_auroc"], plain["auroc"], rtol=1e-12)
        assert stratified["pooled_auroc"].notna().sum() == LATENTS - 1  # one is dead
