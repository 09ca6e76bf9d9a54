"""What layers lose: the numbers of every layer are plain means, and controls decide what is shown."""

import dataclasses

import numpy as np
import pytest
from made_changes import change_of, heavy_tailed, made_documents, on_controls, shuffled_sides

from stratalens.effects.changes import Change, EffectDocuments, LayerChanges
from stratalens.effects.layer_effects import best_layer, holm, layer_effects
from stratalens.hookpoint import Hookpoint

FIRST, SECOND, THIRD = map(Hookpoint, (1, 2, 3))
FEATURES = (3, 5)


def made_layer(
    rng: np.random.Generator, documents: EffectDocuments, *, domain: float = 0, norm: float = 1, controls: int = 5
) -> LayerChanges:
    """A layer whose removal costs the domain so many nats a token, besides heavy-tailed noise.

    Args:
        norm: what each matched set removes, in units of what the layer removes.
    """
    size = len(documents.domain)

    def some(mean: float = 0) -> Change:
        changed = change_of(documents, heavy_tailed(rng, size) + mean * documents.domain)
        return changed._replace(norm=2.0 * documents.total)

    def like_controls() -> Change:
        return on_controls(documents, some())

    matched = [(one := like_controls())._replace(norm=norm * one.norm) for _ in range(controls)]
    return LayerChanges(FEATURES, some(domain), [like_controls() for _ in range(controls)], matched)


@pytest.fixture(scope="module")
def documents() -> EffectDocuments:
    return made_documents(np.random.default_rng(0))


@pytest.fixture(scope="module")
def layers(documents) -> dict[Hookpoint, LayerChanges]:
    rng = np.random.default_rng(1)
    return {key: made_layer(rng, documents, domain=cost) for key, cost in ((FIRST, 0.2), (SECOND, 0.4), (THIRD, 0))}


def test_numbers_are_means_over_documents(documents, layers):
    own, effect = layers[FIRST].own, layer_effects(documents, layers, 0)[FIRST]
    per_token = own.loss.sum(1) / documents.tokens.sum(1)
    for side, mask in (("domain", documents.domain), ("general", ~documents.domain)):
        assert getattr(effect, f"{side}_documents") == 40
        assert getattr(effect, f"{side}_effect") == pytest.approx(per_token[mask].mean())
        assert getattr(effect, f"{side}_kl") == pytest.approx((own.kl.sum(1) / documents.total)[mask].mean())
        assert getattr(effect, f"{side}_norm") == pytest.approx(2)
        assert getattr(effect, f"{side}_effect_per_norm") == pytest.approx(per_token[mask].mean() / 2)
        for number, name in enumerate(("term", "after_term", "rest")):
            by_class = (own.loss / documents.tokens)[mask, number].mean()
            assert getattr(effect, f"{side}_{name}_effect") == pytest.approx(by_class)
            divergence = (own.kl / documents.tokens)[mask, number].mean()
            assert getattr(effect, f"{side}_{name}_kl") == pytest.approx(divergence)
    assert effect.features == 2
    assert effect.difference == pytest.approx(effect.domain_effect - effect.general_effect)
    assert effect.difference_low < effect.difference < effect.difference_high


def test_an_excess_is_the_own_difference_less_those_of_the_controls(documents, layers):
    controls, domain = documents.control, documents.domain

    def gap(change: Change) -> float:
        per_token = change.loss_per_token(documents)
        return per_token[controls & domain].mean() - per_token[controls & ~domain].mean()

    for layer, effect in zip(layers.values(), layer_effects(documents, layers, 0).values(), strict=True):
        for excess, others in ((effect.random, layer.random), (effect.matched, layer.matched)):
            gaps = [gap(other) for other in others]
            assert excess is not None
            assert excess.value == pytest.approx(gap(layer.own) - np.mean(gaps))
            assert excess.low < excess.value < excess.high
            assert (excess.control_low, excess.control_high) == pytest.approx((min(gaps), max(gaps)))
            assert excess.rank == 1 + sum(other >= gap(layer.own) for other in gaps)
            assert (excess.controls, excess.rank_p_value) == (5, None)


def test_the_domain_loses_more_where_it_does(documents, layers):
    effects = layer_effects(documents, layers, 0)
    verdicts = [effect.verdict for effect in effects.values()]
    assert verdicts == ["the domain loses more", "the domain loses more", "no difference shown"]
    assert best_layer(effects) == SECOND
    assert best_layer({THIRD: effects[THIRD]}) is None
    assert best_layer({}) is None


def with_loss(change: Change, loss: np.ndarray) -> Change:
    return change._replace(loss=loss)


@pytest.mark.parametrize("kind", ["random", "matched"])
def test_both_kinds_of_control_must_cost_less(documents, kind):
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5)
    same = [with_loss(one, np.where(np.isnan(one.loss), np.nan, layer.own.loss)) for one in getattr(layer, kind)]
    effect = layer_effects(documents, {FIRST: dataclasses.replace(layer, **{kind: same})}, 0)[FIRST]
    other = effect.matched if kind == "random" else effect.random
    assert effect.difference_low > 0
    assert other is not None
    assert other.holm_p < 0.05
    assert effect.verdict == "no difference shown"


def test_the_difference_itself_must_be_shown_on_all_documents(documents):
    """Where the documents without controls say the opposite, an excess is not enough."""
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5)
    turned = np.where(documents.control[:, None], layer.own.loss, -layer.own.loss)
    effect = layer_effects(documents, {FIRST: dataclasses.replace(layer, own=with_loss(layer.own, turned))}, 0)[FIRST]
    assert effect.random is not None
    assert effect.random.holm_p < 0.05
    assert effect.difference_low <= 0
    assert effect.verdict == "no difference shown"


def test_a_layer_among_many_needs_more(documents):
    """What is shown of a layer alone is not shown where twenty others were tried."""
    rng = np.random.default_rng(4)
    layer = dataclasses.replace(made_layer(rng, documents, domain=0.05), matched=[])
    alone = layer_effects(documents, {FIRST: layer}, 0)[FIRST]
    assert alone.random is not None
    assert 0.005 < alone.random.p_value < 0.05
    assert alone.verdict == "the domain loses more"
    others = {Hookpoint(number): made_layer(rng, documents, controls=3) for number in range(5, 25)}
    assert layer_effects(documents, {FIRST: layer, **others}, 0)[FIRST].verdict == "no difference shown"


def test_the_order_of_documents_is_the_same_to_the_last_bit(documents, layers):
    order = np.random.default_rng(2).permutation(len(documents.domain))
    parts = (getattr(documents, field.name) for field in dataclasses.fields(documents))
    moved = EffectDocuments(*(part[order] for part in parts))

    def move(change: Change) -> Change:
        return Change(*(part[order] for part in change))

    others = {
        key: LayerChanges(one.features, move(one.own), [*map(move, one.random)], [*map(move, one.matched)])
        for key, one in layers.items()
    }
    assert layer_effects(moved, others, 0) == layer_effects(documents, layers, 0)


def test_controls_that_do_the_same_leave_no_excess(documents, layers):
    own = layers[SECOND].own
    copies = [on_controls(documents, own)] * 7
    effect = layer_effects(documents, {SECOND: LayerChanges(FEATURES, own, copies, copies)}, 0)[SECOND]
    assert effect.verdict == "no difference shown"
    for excess in (effect.random, effect.matched):
        assert excess is not None
        assert excess[:7] == (0, 0, 0, 1, 1, 8, 7)
    assert (effect.matched_domain_ratio, effect.matched_general_ratio) == pytest.approx((1, 1))


@pytest.mark.parametrize(("norm", "matches"), [(0.79, False), (0.81, True), (1.24, True), (1.26, False)])
def test_sets_that_remove_another_norm_are_no_control(documents, norm, matches):
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5, norm=norm)
    effect = layer_effects(documents, {FIRST: layer}, 0)[FIRST]
    assert effect.matched_domain_ratio == pytest.approx(norm)
    assert effect.verdict == ("the domain loses more" if matches else "controls do not match")


def test_sets_must_match_on_each_side(documents):
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5)
    less = np.where(documents.domain, 1, 0.5)
    layer = dataclasses.replace(layer, matched=[one._replace(norm=less * one.norm) for one in layer.matched])
    effect = layer_effects(documents, {FIRST: layer}, 0)[FIRST]
    assert (effect.matched_domain_ratio, effect.matched_general_ratio) == pytest.approx((1, 0.5))
    assert effect.verdict == "controls do not match"


def test_a_side_on_which_nothing_is_removed(documents):
    """It has no effect per norm, and no other set matches it there."""
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5)
    none = layer.own._replace(norm=np.where(documents.domain, layer.own.norm, 0))
    effect = layer_effects(documents, {FIRST: dataclasses.replace(layer, own=none)}, 0)[FIRST]
    assert effect.general_effect_per_norm is None
    assert effect.matched_general_ratio is None
    assert effect.verdict == "controls do not match"


def test_without_matched_sets_random_directions_decide(documents):
    layer = dataclasses.replace(made_layer(np.random.default_rng(3), documents, domain=0.5), matched=[])
    effects = layer_effects(documents, {FIRST: layer, SECOND: dataclasses.replace(layer, random=[])}, 0)
    assert (effects[FIRST].matched, effects[FIRST].matched_domain_ratio) == (None, None)
    assert effects[FIRST].verdict == "the domain loses more"
    assert effects[SECOND].random is None
    assert effects[SECOND].verdict == "no difference shown"


def test_without_a_lexicon_there_are_no_tokens_of_its_classes(documents):
    bare = dataclasses.replace(documents, tokens=documents.tokens * np.array([0, 0, 1]))
    effect = layer_effects(bare, {FIRST: made_layer(np.random.default_rng(3), bare)}, 0)[FIRST]
    assert effect.domain_term_effect is effect.general_term_effect is effect.domain_after_term_effect is None
    assert effect.domain_rest_effect == pytest.approx(effect.domain_effect)


def test_many_controls_give_a_p_value_by_their_ranks(documents):
    layer = made_layer(np.random.default_rng(3), documents, domain=0.5, controls=199)
    random = layer_effects(documents, {FIRST: layer}, 0)[FIRST].random
    assert random is not None
    assert (random.rank, random.controls, random.rank_p_value) == (1, 199, 0.005)


def test_holm_is_computed_by_steps():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])


def test_both_kinds_of_control_are_corrected_apart(documents, layers):
    alone = {THIRD: layers[THIRD]}
    many = {**layers, FIRST: dataclasses.replace(layers[FIRST], matched=[])}
    for key, effect in layer_effects(documents, many, 0).items():
        assert effect.random is not None
        assert effect.random.holm_p >= effect.random.p_value
        assert (effect.matched is None) == (key == FIRST)
    effect = layer_effects(documents, alone, 0)[THIRD]
    assert effect.random is not None
    assert effect.random.holm_p == effect.random.p_value


def test_layers_that_do_nothing_and_shuffled_sides_show_nothing():
    """At least one of three layers in at most 5% of the runs, and two standard errors more."""
    runs, wrong = 100, np.zeros(2)
    for seed in range(runs):
        rng = np.random.default_rng([9, seed])
        documents = made_documents(rng)
        nothing = {Hookpoint(number): made_layer(rng, documents, controls=3) for number in range(3)}
        something = {Hookpoint(number): made_layer(rng, documents, domain=0.1, controls=3) for number in range(3)}
        shuffled = shuffled_sides(rng, documents)
        for kind, effects in enumerate(
            (layer_effects(documents, nothing, seed), layer_effects(shuffled, something, seed))
        ):
            wrong[kind] += best_layer(effects) is not None
    assert max(wrong) / runs <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs), wrong
