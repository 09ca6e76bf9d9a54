"""Populations are numbered by stratum, side and half; with one stratum there are four."""

import numpy as np
import pytest

from stratalens.corpus.populations import Half, Population, Populations, Side

ONE, THREE = Populations(), Populations(("", "news", "law"))


def test_one_stratum_has_the_four_populations_in_order():
    assert [tuple(population) for population in ONE] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert len(ONE) == 4


@pytest.mark.parametrize("populations", [ONE, THREE])
def test_numbers_run_through_all_populations_once(populations):
    assert [population.number for population in populations] == list(range(len(populations)))
    assert [Population.numbered(number) for number in range(len(populations))] == list(populations)
    for population in populations:
        assert (type(population.side), type(population.half)) == (Side, Half)
        assert populations.sides[population.number] == population.side
        assert populations.halves[population.number] == population.half


def test_populations_are_chosen_by_side_half_and_stratum():
    assert ONE.where(side=Side.GENERAL).tolist() == [2, 3]
    assert ONE.where(half=Half.CONFIRMATION).tolist() == [1, 3]
    assert ONE.where(side=Side.DOMAIN, half=Half.CONFIRMATION).tolist() == [1]
    assert THREE.where(side=Side.GENERAL, half=Half.DISCOVERY).tolist() == [2, 6, 10]
    assert THREE.where(stratum=1).tolist() == [4, 5, 6, 7]
    assert THREE.where().tolist() == list(range(12))
    assert THREE.where(stratum=7).dtype == np.int64
