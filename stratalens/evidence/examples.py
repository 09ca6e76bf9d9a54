"""Which passages are shown for a feature: the strongest, some that fire less, and near misses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.corpus import Half, Side
from stratalens.corpus.populations import POPULATIONS
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.passages import Passage
from stratalens.evidence.similarity import PassageSet

TOP = 4
"""Strongest passages of each side and half."""
QUANTILES = (0.75, 0.5, 0.25)
"""Where among the passages of a side that fire, by their strongest token, the sampled ones stand."""
NEAR_MISSES = 2
"""Of each half."""


class ExampleChoice(NamedTuple):
    """A passage shown for a feature."""

    passage: int
    kind: str
    """`top`, `quantile` or `near_miss`: a domain passage much like the strongest in which the feature does not fire."""
    quantile: float | None
    """Share of the side's firing passages that are weaker; None at near misses."""
    activation: float
    """Maximum over the passage."""


def choose_examples(
    passages: Sequence[Passage], maxima: Float[np.ndarray, "passage"], sets: dict[Half, PassageSet]
) -> list[ExampleChoice]:
    """Choose the passages of one feature.

    Args:
        passages: all there are.
        maxima: the feature's largest activation in each.
        sets: the passages of each half.
    """
    population = np.array([passage.population for passage in passages])
    strongest = list(_strongest(maxima, population))
    shown = {one.passage for one in strongest}
    chosen = [*strongest, *_sampled(maxima, population, shown)]
    shown |= {one.passage for one in chosen}
    return [*chosen, *(miss for half in Half for miss in _near_misses(maxima, sets[half], shown))]


def _quantile(maxima: np.ndarray, firing: np.ndarray, at: int | np.integer) -> float:
    return float((maxima[firing] < maxima[at]).mean())


def _strongest(maxima: np.ndarray, population: Int[np.ndarray, "passage"]) -> Iterator[ExampleChoice]:
    for p in range(POPULATIONS):
        own = np.flatnonzero((population == p) & (maxima > 0))
        firing = np.flatnonzero((population // 2 == p // 2) & (maxima > 0))
        for at in own[np.argsort(-maxima[own], kind="stable")][:TOP]:
            yield ExampleChoice(int(at), "top", _quantile(maxima, firing, at), float(maxima[at]))


def _sampled(maxima: np.ndarray, population: Int[np.ndarray, "passage"], shown: set[int]) -> Iterator[ExampleChoice]:
    for side in Side:
        firing = np.flatnonzero((population // 2 == side) & (maxima > 0))
        ordered = [int(at) for at in firing[np.argsort(maxima[firing], kind="stable")] if int(at) not in shown]
        if len(ordered) < len(QUANTILES):
            continue
        for quantile in QUANTILES:
            at = ordered[int(quantile * len(ordered))]
            yield ExampleChoice(at, "quantile", _quantile(maxima, firing, at), float(maxima[at]))


def _near_misses(maxima: np.ndarray, own: PassageSet, shown: set[int]) -> Iterator[ExampleChoice]:
    value = maxima[own.numbers]
    strong = np.flatnonzero((value > 0) & (own.side == Side.DOMAIN))
    strong = strong[np.argsort(-value[strong], kind="stable")][:TOP]
    if len(strong) == 0:
        return
    silent = np.flatnonzero((value == 0) & (own.side == Side.DOMAIN))
    similarity = own.similarity(strong)
    for at in silent[np.argsort(-similarity[silent], kind="stable")][:NEAR_MISSES]:
        if int(own.numbers[at]) not in shown:
            yield ExampleChoice(int(own.numbers[at]), "near_miss", None, 0.0)


class Example(NamedTuple):
    """A passage shown for a feature, with what the feature does on each of its tokens."""

    choice: ExampleChoice
    side: Side
    half: Half
    text: str
    tokens: list[str]
    """Pieces of the text in order, special tokens left out; a character of several tokens stands with the first."""
    activations: list[float]

    @property
    def peak(self) -> int:
        """Index of the strongest token."""
        return int(np.argmax(self.activations))


def layer_examples(evidence: Evidence, layer: int, sets: dict[Half, PassageSet]) -> list[list[Example]]:
    """For each feature of a layer its passages, strongest first within each kind, with tokens and activations."""
    maxima = evidence.maxima(layer)
    starts = evidence.starts
    shown = []
    for column in range(maxima.shape[1]):
        values = evidence.layers[layer].dense(column)
        chosen = choose_examples(evidence.passages, maxima[:, column], sets)
        shown.append(
            [
                _shown(one, evidence.passages[one.passage], values[starts[one.passage] : starts[one.passage + 1]])
                for one in chosen
            ]
        )
    return shown


def _shown(choice: ExampleChoice, passage: Passage, values: np.ndarray) -> Example:
    tokens = passage.tokens()
    activations = [float(values[at]) for at in tokens.positions]
    return Example(choice, passage.side, passage.half, passage.text.strip(), tokens.texts, activations)
