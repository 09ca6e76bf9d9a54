"""The passages shown for a feature: its strongest, some weaker ones and near misses, none of them twice."""

import numpy as np
import pytest
from planted import LAYER, around, at_random, on_words, passage, planted_evidence, written_passages

from stratalens.corpus.populations import Half, Populations, Side
from stratalens.evidence.examples import (
    NEAR_MISSES_PER_HALF,
    QUANTILES,
    TOP_PER_HALF,
    ExampleChoice,
    choose_examples,
    layer_examples,
)
from stratalens.evidence.similarity import PassageSet

PASSAGES = written_passages(40)
EVIDENCE = planted_evidence(
    PASSAGES, [around("dividend", "payout"), at_random(0, 0.2), on_words("heron"), on_words("nothing at all")]
)
SETS = {half: PassageSet(PASSAGES, half) for half in Half}
MAXIMA = EVIDENCE.maxima(LAYER)


def shown(column: int) -> list[ExampleChoice]:
    return choose_examples(PASSAGES, MAXIMA[:, column], SETS)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_the_strongest_passages_of_every_population_come_first(column):
    values = MAXIMA[:, column]
    for p in Populations():
        own = [at for at, one in enumerate(PASSAGES) if one.population == p and values[at] > 0]
        best = sorted(own, key=lambda at: -values[at])[:TOP_PER_HALF]
        found = [one for one in shown(column) if one.kind == "top" and PASSAGES[one.passage].population == p]
        assert [one.passage for one in found] == best
        assert [one.activation for one in found] == [values[at] for at in best]


@pytest.mark.parametrize("column", [0, 1, 2])
def test_no_passage_is_shown_twice(column):
    numbers = [one.passage for one in shown(column)]
    assert len(set(numbers)) == len(numbers) > 0


def test_sampled_passages_fire_at_their_quantile_of_the_side():
    values = MAXIMA[:, 1]
    for side in Side:
        firing = np.array([at for at, one in enumerate(PASSAGES) if one.side == side and values[at] > 0])
        found = [one for one in shown(1) if one.kind == "quantile" and PASSAGES[one.passage].side == side]
        assert len(found) == len(QUANTILES)
        for one, quantile in zip(found, QUANTILES, strict=True):
            assert one.quantile == (values[firing] < values[one.passage]).mean()
            assert one.quantile == pytest.approx(quantile, abs=0.15)
        assert [one.activation for one in found] == sorted((one.activation for one in found), reverse=True)


def test_a_side_with_few_firing_passages_has_no_sampled_ones():
    sides = {PASSAGES[one.passage].side for one in shown(2) if one.kind == "quantile"}
    assert not any(MAXIMA[at, 2] for at, one in enumerate(PASSAGES) if one.side == Side.DOMAIN)
    assert Side.DOMAIN not in sides


def test_near_misses_are_domain_passages_without_activation_from_each_half():
    found = [one for one in shown(0) if one.kind == "near_miss"]
    assert [[PASSAGES[one.passage].half for one in found].count(half) for half in Half] == [NEAR_MISSES_PER_HALF] * 2
    for one in found:
        assert PASSAGES[one.passage].side == Side.DOMAIN
        assert MAXIMA[one.passage, 0] == one.activation == 0
        assert one.quantile is None


def test_a_near_miss_shares_the_words_of_the_strongest():
    texts = [f"The dividend of firm {n} was paid late." for n in range(6)]
    texts += [f"Herons wait in reed {n}." for n in range(30)] + ["The firm was late."]
    passages = [passage(text, Side.DOMAIN, Half.DISCOVERY) for text in texts]
    maxima = planted_evidence(passages, [on_words("dividend")]).maxima(LAYER)[:, 0]
    found = choose_examples(passages, maxima, {half: PassageSet(passages, half) for half in Half})
    misses = [texts[one.passage] for one in found if one.kind == "near_miss"]
    assert misses[0] == "The firm was late."
    assert len(misses) == NEAR_MISSES_PER_HALF


def test_a_feature_that_never_fires_has_no_examples():
    assert shown(3) == []
    assert layer_examples(EVIDENCE, LAYER, SETS)[3] == []


def test_shown_passages_carry_their_tokens_and_activations():
    for column, some in enumerate(layer_examples(EVIDENCE, LAYER, SETS)):
        assert [one.choice for one in some] == shown(column)
        for one in some:
            own = PASSAGES[one.choice.passage]
            assert "".join(one.tokens) == own.text
            assert (one.side, one.half, one.text) == (own.side, own.half, own.text.strip())
            assert len(one.tokens) == len(one.activations)
            assert max(one.activations) == one.choice.activation
            assert one.activations[one.peak] == one.choice.activation
    heron = layer_examples(EVIDENCE, LAYER, SETS)[2][0]
    assert heron.tokens[heron.peak].strip().lower() == "heron"
