"""What single features do: the numbers are plain means, and a verdict needs every one of its tests."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from made_changes import change_of, made_documents, made_feature, on_controls, shuffled_sides
from scipy import stats

from stratalens.effects.changes import Change, EffectDocuments, FeatureChanges
from stratalens.effects.document_means import difference, mean
from stratalens.effects.feature_effects import (
    FeatureEffect,
    feature_effects,
    is_causal,
    rank_correlation,
)
from stratalens.hookpoint import Hookpoint

PLACE = Hookpoint(1)
LEVEL = 0.05


@pytest.fixture(scope="module")
def documents() -> EffectDocuments:
    return made_documents(np.random.default_rng(0), domain=60, general=60, control=30)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def effect_of(documents: EffectDocuments, feature: FeatureChanges) -> FeatureEffect:
    return feature_effects(documents, {PLACE: [feature]})[PLACE][feature.feature]


def exactly(documents: EffectDocuments, domain: float, general: float, *, spread: float = 0.1) -> FeatureChanges:
    """A feature with these effects on every document, within the spread as a share; random directions do nothing."""
    rng = np.random.default_rng(5)
    per_token = np.where(documents.domain, domain, general) * rng.uniform(1 - spread, 1 + spread, len(documents.domain))
    none = on_controls(documents, change_of(documents, np.zeros(len(per_token))))
    own = change_of(documents, per_token)
    return FeatureChanges(7, own, [none, none], own.loss.sum(1))


def test_numbers_are_means_over_documents_with_their_controls(documents, rng):
    feature = made_feature(rng, documents, 7, domain=0.3, general=0.1)
    effect = effect_of(documents, feature)
    own = feature.own.loss.sum(1) / documents.total
    controls = np.mean([one.loss.sum(1) / documents.total for one in feature.random], axis=0)
    domain, beyond = documents.domain, (own - controls)
    x, y = (beyond[documents.control & side] for side in (domain, ~domain))
    expected = [mean(own[domain]), mean(own[~domain]), difference(own[domain], own[~domain]), mean(x), difference(x, y)]
    np.testing.assert_allclose(effect[1:16], np.ravel([part[:3] for part in expected]), rtol=1e-9)
    assert effect.p_value == pytest.approx(max(part.p_value for part in (expected[0], *expected[2:])))
    assert effect.effect_p_value == pytest.approx(max(expected[0].p_value, expected[3].p_value))
    for side, mask in (("domain", domain), ("general", ~domain)):
        assert getattr(effect, f"{side}_kl") == pytest.approx((feature.own.kl.sum(1) / documents.total)[mask].mean())
        assert getattr(effect, f"{side}_norm") == pytest.approx((feature.own.norm / documents.total)[mask].mean())
        assert getattr(effect, f"{side}_documents_fired") == (own[mask] != 0).sum()
        assert getattr(effect, f"{side}_attribution") == pytest.approx(0.9 * own[mask].mean())


def test_q_values_are_over_the_features_of_all_layers(documents, rng):
    changes = {
        Hookpoint(place): [made_feature(rng, documents, number, domain=0.04 * number) for number in range(4)]
        for place in (1, 2)
    }
    effects = feature_effects(documents, changes)
    found = [effects[place][number] for place in changes for number in range(4)]
    for p, q in (("p_value", "q_value"), ("effect_p_value", "effect_q_value")):
        adjusted = stats.false_discovery_control([getattr(one, p) for one in found])
        np.testing.assert_allclose([getattr(one, q) for one in found], adjusted)
    assert feature_effects(documents, {}) == {}
    assert feature_effects(documents, {PLACE: []}) == {PLACE: {}}


@pytest.mark.parametrize(
    ("domain", "general", "verdict"),
    [
        (0.1, 0.0, "moves the domain"),
        (0.1, 0.045, "moves the domain"),
        (0.1, 0.055, "moves everything"),
        (0.1, 0.2, "moves everything"),
        (0.0, 0.0, "undecided"),
        (0.0, 0.1, "undecided"),
        (-0.1, 0.0, "undecided"),
        (-0.0005, 0.0005, "no measurable effect"),
        (-0.0005, 0.002, "undecided"),
        (-0.002, 0.0, "undecided"),
    ],
)
def test_verdicts_follow_the_effects(documents, domain, general, verdict):
    effect = effect_of(documents, exactly(documents, domain, general))
    assert effect.verdict == verdict
    assert is_causal(effect) == (verdict == "moves the domain")


def test_a_feature_that_fires_and_does_nothing_has_no_measurable_effect(documents):
    still = exactly(documents, 0, 0)
    fires = dataclasses.replace(still, own=still.own._replace(norm=np.ones(len(documents.domain))))
    effect = effect_of(documents, fires)
    assert effect.verdict == "no measurable effect"
    assert effect[1:16] == (0,) * 15
    assert (effect.p_value, effect.q_value) == (1, 1)


def with_controls(feature: FeatureChanges, documents: EffectDocuments, share: Mapping[bool, float]) -> FeatureChanges:
    """Random directions do a share of what the feature does on each side."""
    own = feature.own
    factor = np.where(documents.domain, share[True], share[False])[:, None]
    one = on_controls(documents, Change(factor * own.loss, factor * own.kl, own.norm))
    return dataclasses.replace(feature, random=[one, one, one])


def test_controls_that_do_the_same_leave_nothing(documents):
    effect = effect_of(documents, with_controls(exactly(documents, 0.1, 0.0), documents, {True: 1, False: 1}))
    assert effect[10:16] == (0,) * 6
    assert (effect.verdict, effect.p_value) == ("undecided", 1)


def test_the_difference_must_be_above_that_of_the_controls_too(documents):
    """Random directions do half of the domain effect, and take as much from general text as makes the difference."""
    feature = exactly(documents, 0.1, 0.04)
    effect = effect_of(documents, with_controls(feature, documents, {True: 0.5, False: -0.25}))
    assert effect.excess_low > 0
    assert effect.difference_low > 0
    assert effect.difference_excess <= 1e-3
    assert effect.verdict == "undecided"


def test_a_factor_on_all_losses_is_one_on_all_numbers(documents, rng):
    feature = made_feature(rng, documents, 7, domain=0.3)

    def doubled(change: Change) -> Change:
        return Change(2 * change.loss, 2 * change.kl, change.norm)

    other = FeatureChanges(7, doubled(feature.own), [*map(doubled, feature.random)], 2 * feature.attribution)
    own, twice = effect_of(documents, feature), effect_of(documents, other)
    np.testing.assert_allclose(twice[1:16], 2 * np.array(own[1:16]), rtol=1e-9)
    np.testing.assert_allclose(twice[16:20], own[16:20], rtol=1e-9)


def test_exchanged_sides_turn_the_difference(documents, rng):
    feature = made_feature(rng, documents, 7, domain=0.3)
    own = effect_of(documents, feature)
    other = effect_of(dataclasses.replace(documents, domain=~documents.domain), feature)
    assert (other.domain_effect, other.general_effect) == pytest.approx((own.general_effect, own.domain_effect))
    assert other.difference == pytest.approx(-own.difference)
    assert other.difference_excess_low == pytest.approx(-own.difference_excess_high)
    assert (own.verdict, other.verdict) == ("moves the domain", "undecided")


def test_the_order_of_documents_is_the_same_to_the_last_bit(documents, rng):
    feature = made_feature(rng, documents, 7, domain=0.1)
    order = rng.permutation(len(documents.domain))
    moved = EffectDocuments(*(getattr(documents, field.name)[order] for field in dataclasses.fields(documents)))

    def move(change: Change) -> Change:
        return Change(*(part[order] for part in change))

    other = FeatureChanges(7, move(feature.own), [*map(move, feature.random)], feature.attribution[order])
    assert effect_of(moved, other) == effect_of(documents, feature)


def keep(documents: EffectDocuments, feature: FeatureChanges, rows: np.ndarray) -> FeatureEffect:
    """Of some documents."""
    fewer = EffectDocuments(*(getattr(documents, field.name)[rows] for field in dataclasses.fields(documents)))
    parts = [Change(*(part[rows] for part in change)) for change in (feature.own, *feature.random)]
    return effect_of(fewer, FeatureChanges(7, parts[0], parts[1:], feature.attribution[rows]))


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize(
    "few",
    [
        lambda documents: documents.domain,
        lambda documents: ~documents.domain,
        lambda documents: documents.domain & documents.control,
        lambda documents: ~documents.domain & documents.control,
    ],
    ids=["domain", "general", "domain of controls", "general of controls"],
)
def test_of_fewer_than_three_documents_nothing_is_said(
    documents, number: int, few: Callable[[EffectDocuments], np.ndarray]
):
    mask = few(documents)
    first = documents.control & mask
    rows = np.concatenate([np.flatnonzero(first)[:number], np.flatnonzero(~mask)])
    effect = keep(documents, exactly(documents, 0.1, 0.01), np.sort(rows))
    assert effect.verdict == ("undecided" if number < 3 else "moves the domain")


@pytest.mark.parametrize(("fired", "verdict"), [(2, "undecided"), (3, "no measurable effect")])
def test_a_feature_that_hardly_fires_is_undecided(documents, fired, verdict):
    per_token = np.zeros(len(documents.domain))
    per_token[np.flatnonzero(documents.domain & documents.control)[:fired]] = 1e-5
    none = on_controls(documents, change_of(documents, 0 * per_token))
    own = change_of(documents, per_token)
    assert effect_of(documents, FeatureChanges(7, own, [none], own.loss.sum(1))).verdict == verdict


def test_a_clear_effect_is_found_among_many_that_are_none():
    found, wrong = 0, 0
    for seed in range(25):
        rng = np.random.default_rng([3, seed])
        documents = made_documents(rng, domain=60, general=60, control=30)
        features = [made_feature(rng, documents, number, domain=0.3 * (number == 0)) for number in range(10)]
        effects = feature_effects(documents, {PLACE: features})[PLACE]
        found += is_causal(effects[0])
        wrong += sum(is_causal(effects[number]) for number in range(1, 10))
    assert found >= 22, found
    assert wrong <= 2, wrong


def test_shuffled_sides_and_no_effects_are_no_discoveries():
    """A run in which any feature moves the domain is a false discovery; of features that do nothing, any that moves."""
    runs, wrong = 150, np.zeros(3)
    for seed in range(runs):
        rng = np.random.default_rng([4, seed])
        documents = made_documents(rng, domain=40, general=40, control=20)
        nothing = [made_feature(rng, documents, number) for number in range(6)]
        moves = [made_feature(rng, documents, number, domain=0.1, general=0.1) for number in range(6)]
        none = feature_effects(documents, {PLACE: nothing})[PLACE].values()
        shuffled = feature_effects(shuffled_sides(rng, documents), {PLACE: moves})[PLACE].values()
        wrong += [
            any(map(is_causal, none)),
            any(one.verdict == "moves everything" for one in none),
            any(map(is_causal, shuffled)),
        ]
    assert max(wrong) / runs <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / runs), wrong


def test_attribution_is_compared_by_ranks(documents, rng):
    features = [made_feature(rng, documents, number, domain=0.1 * number) for number in range(6)]
    effects = feature_effects(documents, {PLACE: features[:3], Hookpoint(2): features[3:]})
    assert rank_correlation(effects) == 1
    assert rank_correlation({PLACE: effects[PLACE]}) is None
    constant = {
        place: {number: one._replace(domain_attribution=0.5) for number, one in ones.items()}
        for place, ones in effects.items()
    }
    assert rank_correlation(constant) is None
    turned = {
        place: {number: one._replace(domain_attribution=-(one.domain_effect**3)) for number, one in ones.items()}
        for place, ones in effects.items()
    }
    assert rank_correlation(turned) == -1
