"""Features that fire less on the domain are selected and tested as those that fire more, with the sides exchanged."""

import numpy as np
import pandas as pd
import pytest
from document_values import ranking_input
from scipy import stats

from stratalens.config.result_options import RANK_METRICS
from stratalens.corpus import Half, Populations, Side
from stratalens.harvest import FeatureStats
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput, document_rows
from stratalens.ranking.opposed import OPPOSED_COLUMNS, opposed_features, with_opposed
from stratalens.ranking.rank import rank_features
from stratalens.ranking.separation import separation

LATENTS, PLANTED, OF_THE_DOMAIN, DEAD = 24, 3, 5, 7
KINDS = Populations(("news", "forum"))
LAYERS = (Hookpoint(0), Hookpoint(1))


def layer(seed: int, planted: float = 2.0, *, reverse: bool = False) -> RankingInput:
    """Documents of two kinds with a latent planted on each side; `reverse`: what is general is called domain."""
    rng = np.random.default_rng(seed)
    population = np.arange(320) % len(KINDS)
    values = rng.lognormal(size=(320, LATENTS)) * (rng.random((320, LATENTS)) < 0.6)
    general = KINDS.sides[population] == Side.GENERAL
    values[:, PLANTED] += planted * general
    values[:, OF_THE_DOMAIN] += planted * ~general
    values[:, DEAD] = 0
    if reverse:
        population = population + np.where(general, -2, 2)
    return ranking_input(values, population, KINDS, np.linspace(0.5, 2, LATENTS))


def found(sources: dict[Hookpoint, RankingInput], **options) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of all latents."""
    settings = {"top_n": 6, "rank_by": "specialization", "split": True} | options
    return with_opposed(rank_features(sources, **settings).latents, sources, **settings)


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_what_is_planted_in_general_text_is_first_and_confirmed(rank_by):
    own = opposed_features(found({LAYERS[0]: layer(0)}, rank_by=rank_by)[LAYERS[0]])
    first = own.iloc[0]
    assert first["feature_number"] == PLANTED
    assert first["rank"] == 1
    assert first["confirmed"]
    assert first["q_value"] < 1e-6
    assert first["specialization"] < -1
    assert first["auroc_high"] < 0.5
    assert not own["confirmed"].iloc[1:].any()
    assert not {OF_THE_DOMAIN, DEAD} & set(own["feature_number"])
    assert (own["discovery_specialization"] < 0).all()


@pytest.mark.parametrize("rank_by", RANK_METRICS)
def test_they_are_what_the_run_reports_of_the_same_documents_with_the_sides_exchanged(rank_by):
    sources, exchanged = ({place: layer(place.block, reverse=own) for place in LAYERS} for own in (False, True))
    settings = {"rank_by": rank_by, "split": True}
    latents = rank_features(exchanged, top_n=LATENTS, **settings)
    for place, table in found(sources, top_n=LATENTS, rank_by=rank_by).items():
        own = opposed_features(table)
        there = latents.top[place]
        there = there[there["discovery_specialization"] > 0].reset_index(drop=True)
        assert own["feature_number"].tolist() == there["feature_number"].tolist()
        np.testing.assert_allclose(own["p_value"], there["p_value"], rtol=1e-9)
        np.testing.assert_allclose(own["specialization"], -there["specialization"])
        np.testing.assert_allclose(own["auroc_low"], 1 - there["auroc_high"])
        np.testing.assert_allclose(own["domain_share"], 1 - there["domain_share"])


def test_every_number_but_those_of_the_test_is_that_of_the_same_latent():
    table = found({LAYERS[0]: layer(1)})[LAYERS[0]]
    own = opposed_features(table).set_index("feature_number")
    assert len(own) == 6
    same = table.set_index("feature_number").loc[own.index]
    columns = [name for name in own if name not in OPPOSED_COLUMNS.values()]
    pd.testing.assert_frame_equal(own[columns], same[columns])
    assert set(table.columns) - set(own.columns) == {*OPPOSED_COLUMNS, "selected", "live", "feature_number"}


def test_the_test_is_one_sided_within_kinds_and_corrected_over_the_opposed_features_alone():
    sources = {place: layer(place.block) for place in LAYERS}
    lists = {place: opposed_features(table) for place, table in found(sources).items()}
    for place, own in lists.items():
        documents = sources[place].documents
        dense = documents.values[:, own["feature_number"]].toarray()
        strata = [document_rows(documents, KINDS, Half.CONFIRMATION, at) for at in range(2)]
        expected = separation([(dense[general], dense[domain]) for domain, general in strata])
        np.testing.assert_allclose(own["p_value"], expected.p_value, rtol=1e-9)
    p, q = (np.concatenate([own[name] for own in lists.values()]) for name in ("p_value", "q_value"))
    np.testing.assert_allclose(q, stats.false_discovery_control(p))


def test_features_that_are_reported_are_the_same_with_and_without():
    sources = {LAYERS[0]: layer(2)}
    before = rank_features(sources, top_n=6, rank_by="auroc", split=True).latents[LAYERS[0]]
    after = found(sources, rank_by="auroc")[LAYERS[0]]
    pd.testing.assert_frame_equal(after.drop(columns=list(OPPOSED_COLUMNS)), before)


def test_the_list_is_shorter_where_fewer_latents_fire_less():
    source = layer(3)
    few = source._replace(stats=source.stats.only(np.array([PLANTED, OF_THE_DOMAIN])))
    none = source._replace(stats=source.stats.only(np.array([OF_THE_DOMAIN])))
    for kept, expected in ((few, [PLANTED]), (none, [])):
        own = opposed_features(found({LAYERS[0]: kept})[LAYERS[0]])
        assert own["feature_number"].tolist() == expected


def test_without_held_out_documents_nothing_is_confirmed():
    own = opposed_features(found({LAYERS[0]: layer(4)}, split=False)[LAYERS[0]])
    assert own["feature_number"].iloc[0] == PLANTED
    assert own["confirmed"].isna().all()


def test_statistics_of_some_latents_are_those_of_all():
    stats_of_all = layer(5).stats
    chosen = stats_of_all.latents[[0, 4, 9]]
    own = stats_of_all.only(chosen)
    silent = np.setdiff1d(stats_of_all.latents, chosen)
    widened = own.for_latents(stats_of_all.latents)
    for name, values in vars(stats_of_all).items():
        there = getattr(widened, name)
        if name == "histogram":
            mass = values.sum(1).reshape(len(KINDS), -1)
            np.testing.assert_array_equal(own.histogram.sum(1).reshape(len(KINDS), -1), mass[:, [0, 4, 9]])
        elif values.ndim > 1:
            at = np.isin(stats_of_all.latents, silent)
            np.testing.assert_array_equal(there[:, ~at], values[:, ~at])
            assert not there[:, at].any()
        else:
            np.testing.assert_array_equal(there, values)
    assert isinstance(own, FeatureStats)
