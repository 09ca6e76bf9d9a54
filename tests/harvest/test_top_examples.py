"""Laws of the top examples: the best passages, in a fixed order, whatever the order of work."""

import copy
from dataclasses import fields, replace
from functools import reduce

import numpy as np
import pytest
from synthetic import LATENTS, POPULATIONS, passage_values, pick, pick_pointers, pointers

from stratalens.harvest.state.passage_values import PassageValues
from stratalens.harvest.state.top_examples import (
    EXAMPLES_KEPT,
    PassagePointers,
    TopExamples,
    merge,
    possible_entries,
)

NAMES = [field.name for field in fields(TopExamples)]
PASSAGES = 150


def tied_values(seed: int = 0) -> PassageValues:
    """Maxima of few levels, so that most of them tie."""
    values = passage_values(PASSAGES, seed)
    return values._replace(maximum=np.ceil(values.maximum / values.maximum.max() * 3).astype(np.float32))


def of(values: PassageValues, where: PassagePointers) -> TopExamples:
    return TopExamples.of(values, where)


def assert_same(a: TopExamples, b: TopExamples) -> None:
    for name in NAMES:
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert np.array_equal(getattr(a, name), getattr(b, name)), name


def held_by(held: TopExamples, population: int, latent: int) -> list[tuple[float, int, int, int]]:
    """(value, content, start, end) of the examples of one latent, in their order."""
    rows = np.flatnonzero((held.population == population) & (held.latent == latent))
    return [(float(held.value[r]), int(held.content[r]), int(held.start[r]), int(held.end[r])) for r in rows]


def shards(values: PassageValues, where: PassagePointers, order: np.ndarray) -> list[TopExamples]:
    parts = np.array_split(order, 4)
    return [of(pick(values, part), pick_pointers(where, part)) for part in parts]


@pytest.mark.parametrize("values", [passage_values(PASSAGES, 0), tied_values()], ids=["distinct", "tied"])
def test_kept_are_the_strongest_passages_in_falling_order_ties_by_hash_then_by_start(values):
    where = pointers(PASSAGES, 0)
    held = of(values, where)
    for population in range(POPULATIONS):
        for latent in range(LATENTS):
            mine = np.flatnonzero((values.population[values.passage] == population) & (values.latent == latent))
            expected = sorted(
                (-float(values.maximum[e]), int(where.content[p]), int(where.start[p]), int(where.end[p]))
                for e, p in zip(mine, values.passage[mine], strict=True)
            )[:EXAMPLES_KEPT]
            assert [(-value, *location) for value, *location in held_by(held, population, latent)] == expected


def test_rows_go_by_population_and_latent():
    held = of(tied_values(), pointers(PASSAGES, 0))
    assert (np.diff(held.population * LATENTS + held.latent) >= 0).all()


def test_ties_and_full_slots_are_among_the_cases():
    values, where = tied_values(), pointers(PASSAGES, 0)
    held = of(values, where)
    ties = (np.diff(held.value) == 0) & (np.diff(held.latent) == 0) & (np.diff(held.population) == 0)
    assert (ties & (held.content[1:] == held.content[:-1])).any(), "same text, another start"
    assert (ties & (held.content[1:] != held.content[:-1])).any()
    fired = np.bincount(values.latent[values.population[values.passage] == 0], minlength=LATENTS)
    assert fired.max() > EXAMPLES_KEPT, "some candidates are not kept"


def test_a_latent_that_never_fired_has_no_example():
    held = of(passage_values(PASSAGES, 0), pointers(PASSAGES, 0))
    assert set(held.latent) == set(range(LATENTS - 1))
    assert (held.value > 0).all()


def test_empty_is_the_identity_of_merge():
    held, empty = of(tied_values(), pointers(PASSAGES, 0)), TopExamples.empty()
    assert_same(merge(held, empty), held)
    assert_same(merge(empty, held), held)


def test_merge_commutes_and_associates():
    a, b, c, _ = shards(tied_values(), pointers(PASSAGES, 0), np.arange(PASSAGES))
    assert_same(merge(a, b), merge(b, a))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)))


@pytest.mark.parametrize("seed", range(3))
def test_merged_shards_in_any_order_equal_a_single_pass(seed):
    values, where = tied_values(), pointers(PASSAGES, 0)
    order = np.random.default_rng(seed).permutation(PASSAGES)
    assert_same(reduce(merge, shards(values, where, order)), of(values, where))


def test_dropping_examples_that_cannot_be_kept_changes_nothing():
    values, where = passage_values(4 * PASSAGES, 0), pointers(4 * PASSAGES, 0)
    held, later, *_ = shards(values, where, np.arange(4 * PASSAGES))
    remaining = possible_entries(later, held)
    assert 0 < len(remaining.value) < len(later.value)
    assert_same(merge(held, remaining), merge(held, later))
    assert_same(possible_entries(later, TopExamples.empty()), later)


def test_merging_leaves_the_inputs_alone_and_shares_no_memory_with_them():
    values, where = tied_values(), pointers(PASSAGES, 0)
    a, b, *_ = shards(values, where, np.arange(PASSAGES))
    before = copy.deepcopy((a, b))
    for result in (merge(a, b), merge(a, TopExamples.empty())):
        for name in NAMES:
            assert not np.shares_memory(getattr(result, name), getattr(a, name))
            assert not np.shares_memory(getattr(result, name), getattr(b, name))
            getattr(result, name)[...] = 1
    assert_same(a, before[0])
    assert_same(b, before[1])


def test_a_stronger_passage_pushes_out_the_weakest_one():
    values, where = passage_values(PASSAGES, 0), pointers(PASSAGES, 0)
    held = of(values, where)
    entry = np.flatnonzero(values.latent == 0)[0]
    population = int(values.population[values.passage[entry]])
    before = held_by(held, population, 0)
    assert len(before) == EXAMPLES_KEPT
    one = pick(values, values.passage[[entry]])
    best = float(np.float32(before[0][0] + 1))
    new = one._replace(maximum=np.where(one.latent == 0, best, 0.001).astype(np.float32))
    location = replace(pick_pointers(where, values.passage[[entry]]), content=np.array([1], np.uint64))
    after = held_by(merge(held, of(new, location)), population, 0)
    assert [example[0] for example in after] == [best, *(example[0] for example in before[:-1])]
    assert after[0][1] == 1
