"""What tasks lose: plain means over the items that are solved before, beside the same of the controls."""

import numpy as np
import pytest
from made_changes import change_of, made_documents, on_controls

from stratalens.effects.changes import LayerChanges
from stratalens.effects.excess import corrected, excess
from stratalens.effects.layer_effects import Excess, holm, layer_effects
from stratalens.effects.task_effects import AblatedMargins, TaskEffect, task_effects
from stratalens.effects.task_items import ALL_KINDS, MIN_SOLVED_ITEMS, TaskItem, load_task_items
from stratalens.effects.task_run import TaskTokens
from stratalens.effects.task_tokens import MarkedTokens, TokenisedItem
from stratalens.hookpoint import Hookpoint

FIRST, SECOND = map(Hookpoint, (1, 2))
PER_KIND, DRAWS = 30, 6
KINDS = ("direction", "term")


def made_items() -> list[TaskItem]:
    return [
        TaskItem("", f"{kind}-{domain}-{number}", domain, kind, "", "", "")
        for kind in KINDS
        for domain in (True, False)
        for number in range(PER_KIND)
    ]


ITEMS = made_items()
DOMAIN = np.array([item.domain for item in ITEMS])
KIND = np.array([item.kind for item in ITEMS])


def made_margins(rng: np.random.Generator, plain: np.ndarray, cost: float = 0) -> AblatedMargins:
    """Margins that lose something anywhere, and so much more on the items of the domain by the own features alone."""

    def ablated(*draws: int) -> np.ndarray:
        return plain - rng.gamma(1, 0.3, (*draws, len(plain)))

    return AblatedMargins(ablated() - cost * DOMAIN, ablated(DRAWS), ablated(DRAWS))


def controls_of(effect: TaskEffect) -> list[Excess]:
    found = [one for one in (effect.random, effect.matched) if one is not None]
    assert len(found) == 2
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def plain(rng) -> np.ndarray:
    return rng.normal(0.7, 1, len(ITEMS))


@pytest.fixture
def ablated(rng, plain) -> dict[Hookpoint, AblatedMargins]:
    return {FIRST: made_margins(rng, plain, cost=0.5), SECOND: made_margins(rng, plain)}


def test_numbers_are_means_over_the_items_that_are_solved_before(plain, ablated):
    effects = task_effects(ITEMS, plain, ablated, 0)
    assert list(effects) == [FIRST, SECOND]
    own = ablated[FIRST].own
    for kind, effect in effects[FIRST].items():
        means = {}
        for side, mask in (("domain", DOMAIN), ("general", ~DOMAIN)):
            asked = mask & ((kind == KIND) | (kind == ALL_KINDS))
            solved = asked & (plain > 0)
            means[side] = (plain - own)[solved].mean()
            assert getattr(effect, f"{side}_items") == solved.sum()
            assert getattr(effect, f"{side}_unsolved") == (asked & ~solved).sum() > 0
            assert getattr(effect, f"{side}_still_solved") == (own[solved] > 0).sum()
            assert getattr(effect, f"{side}_margin") == pytest.approx(plain[solved].mean())
            assert getattr(effect, f"{side}_effect") == pytest.approx(means[side])
        assert effect.difference == pytest.approx(means["domain"] - means["general"])
        assert effect.difference is not None
        assert effect.difference_low is not None
        assert effect.difference_high is not None
        assert effect.difference_low < effect.difference < effect.difference_high
    assert list(effects[FIRST]) == [ALL_KINDS, *KINDS]


def test_what_the_domain_alone_loses_goes_beyond_controls_and_nothing_else_does(plain, ablated):
    effects = task_effects(ITEMS, plain, ablated, 0)
    for kind in (ALL_KINDS, *KINDS):
        for found in controls_of(effects[FIRST][kind]):
            assert found.low > 0
            assert found.holm_p < 0.05
            assert (found.rank, found.controls) == (1, DRAWS)
        for found in controls_of(effects[SECOND][kind]):
            assert found.low < 0
            assert found.holm_p > 0.05


def test_the_result_depends_neither_on_the_order_of_items_nor_on_unsolved_ones(plain, ablated, rng):
    expected = task_effects(ITEMS, plain, ablated, 0)
    order = rng.permutation(len(ITEMS))
    moved = {key: AblatedMargins(*(part[..., order] for part in margins)) for key, margins in ablated.items()}
    assert task_effects([ITEMS[i] for i in order], plain[order], moved, 0) == expected
    other = {key: AblatedMargins(*(np.where(plain > 0, part, 9) for part in one)) for key, one in ablated.items()}
    assert task_effects(ITEMS, plain, other, 0) == expected


def test_controls_of_a_subsample_are_compared_with_the_own_features_on_it(plain, ablated):
    measured = np.array([index % PER_KIND < 20 for index in range(len(ITEMS))])
    margins = ablated[FIRST]
    hidden = AblatedMargins(margins.own, *(np.where(measured, part, np.nan) for part in margins[1:]))
    found = task_effects(ITEMS, plain, {FIRST: hidden}, 0)[FIRST]
    part = [item for item, own in zip(ITEMS, measured, strict=True) if own]
    alone = task_effects(part, plain[measured], {FIRST: AblatedMargins(*(x[..., measured] for x in margins))}, 0)[FIRST]
    whole = task_effects(ITEMS, plain, {FIRST: margins}, 0)[FIRST]
    assert (found[ALL_KINDS].random, found[ALL_KINDS].matched) == (alone[ALL_KINDS].random, alone[ALL_KINDS].matched)
    assert found[ALL_KINDS]._replace(random=None, matched=None) == whole[ALL_KINDS]._replace(random=None, matched=None)


def test_without_controls_or_with_too_few_items_of_them_nothing_is_compared(plain, ablated):
    margins = ablated[FIRST]
    few = np.array([index % PER_KIND < 5 for index in range(len(ITEMS))])
    hidden = AblatedMargins(margins.own, np.where(few, margins.random, np.nan), margins.matched[:0])
    effect = task_effects(ITEMS, plain, {FIRST: hidden}, 0)[FIRST]["term"]
    assert effect.random is effect.matched is None
    assert effect.difference is not None


def test_of_a_side_with_few_solved_items_only_their_number_is_said(plain, ablated):
    term = DOMAIN & (KIND == "term")
    few = np.where(term, -1.0, plain)
    few[np.flatnonzero(term)[: MIN_SOLVED_ITEMS - 1]] = 1.0
    effect = task_effects(ITEMS, few, ablated, 0)[FIRST]["term"]
    general = int((few[~DOMAIN & (KIND == "term")] > 0).sum())
    assert effect[:4] == (MIN_SOLVED_ITEMS - 1, general, PER_KIND - MIN_SOLVED_ITEMS + 1, PER_KIND - general)
    said = {name for name, value in effect._asdict().items() if value is not None}
    assert {name for name in said if name.startswith("domain")} == {"domain_items", "domain_unsolved"}
    assert {"general_effect", "general_margin"} <= said
    assert said.isdisjoint({"difference", "random", "matched"})
    few[np.flatnonzero(term)[MIN_SOLVED_ITEMS - 1]] = 1.0
    assert None not in task_effects(ITEMS, few, ablated, 0)[FIRST]["term"]


def test_an_excess_is_that_of_the_effects_on_the_loss():
    rng = np.random.default_rng(5)
    documents = made_documents(rng)
    size = len(documents.domain)
    own, controls = (
        change_of(documents, rng.normal(1, 1, size)),
        [on_controls(documents, change_of(documents, rng.normal(0, 1, size))) for _ in range(DRAWS)],
    )
    layer = layer_effects(documents, {FIRST: LayerChanges((1,), own, controls, [])}, 7)[FIRST]
    order = np.argsort(documents.hashes)
    sides = [order[(side & documents.control)[order]] for side in (documents.domain, ~documents.domain)]
    cost, others = own.loss_per_token(documents), np.stack([one.loss_per_token(documents) for one in controls])
    assert excess(*(cost[side] for side in sides), *(others[:, side] for side in sides), seed=7) == layer.random


def test_p_values_are_corrected_over_the_layers_that_have_one():
    def of(p_value: float) -> Excess:
        return Excess(0, 0, 0, p_value, p_value, 1, 2, None, 0, 0)

    found = corrected({"a": of(0.04), "b": None, "c": of(0.01)})
    assert found == {"a": of(0.04), "b": None, "c": of(0.01)._replace(holm_p=0.02)}
    assert holm(np.array([0.04, 0.01])).tolist() == [0.04, 0.02]
    assert corrected({}) == {}


def test_equal_costs_are_no_excess_by_rounding():
    own = np.full(12, 0.1)
    found = excess(own, own, np.full((3, 12), 0.1), np.full((3, 12), 0.1), 0)
    assert (found.value, found.low, found.high, found.p_value, found.rank) == (0, 0, 0, 1, 4)


def test_where_the_sides_lose_alike_an_excess_is_rarely_found():
    """Choosing the solved items makes all margins fall, on both sides and by the controls as well."""
    wrong, runs = 0, 100
    for seed in range(runs):
        rng = np.random.default_rng([11, seed])
        truth = np.where(DOMAIN, 0.9, 0.3) + rng.normal(0, 0.5, len(ITEMS))
        plain, own = (truth + rng.normal(0, 1, len(ITEMS)) for _ in range(2))
        random = truth + rng.normal(0, 1, (DRAWS, len(ITEMS)))
        effect = task_effects(ITEMS, plain, {FIRST: AblatedMargins(own, random, random[:0])}, seed)[FIRST][ALL_KINDS]
        assert effect.random is not None
        wrong += effect.random.p_value < 0.05
    assert wrong <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def test_the_columns_have_the_numbers_of_the_controls_by_name(plain, ablated):
    effect = task_effects(ITEMS, plain, ablated, 0)[FIRST]["term"]
    columns = effect.flat()
    assert columns["matched_holm_p"] == controls_of(effect)[1].holm_p
    assert columns["domain_effect"] == effect.domain_effect
    assert len(columns) == len(TaskEffect._fields) - 2 + 2 * len(Excess._fields)
    none = effect._replace(random=None).flat()
    assert list(none) == list(columns)
    assert none["random_excess"] is None


def test_the_tokens_of_items_and_of_those_with_controls_are_told_before():
    items = load_task_items("financial", [])
    sequences = [MarkedTokens(np.arange(length), np.ones(length, bool)) for length in (10, 12)]
    found = TaskTokens.of(items, [TokenisedItem(*sequences)] * len(items), controls=5, seed=0)
    groups = {(item.kind, item.domain) for item in items}
    assert len(groups) == 8
    assert found == TaskTokens(every=22 * len(items), controls=22 * 5 * len(groups))
