"""Choose the passages shown for a feature: the strongest, some with smaller activations, and near misses."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.corpus import Half, Side
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.passages import Passage
from stratalens.evidence.similarity import PassageSet
from stratalens.hookpoint import Hookpoint

TOP_PER_HALF = 4
"""Strongest passages shown of each side and half."""
QUANTILES = (0.75, 0.5, 0.25)
"""Quantiles, among the passages of a side in which the feature fires, at which further passages are shown."""
NEAR_MISSES_PER_HALF = 2
"""Near misses shown of each half."""


class ExampleChoice(NamedTuple):
    """A passage that is chosen to be shown for a feature."""

    passage: int
    """Index among all passages of the evidence."""
    kind: str
    """`top`, `quantile` or `near_miss` (a domain passage similar to the strongest, but without activation)."""
    quantile: float | None
    """Share of the side's firing passages with a smaller maximum; None for near misses."""
    activation: float
    """Maximum activation in the passage."""


def choose_examples(
    passages: Sequence[Passage], maxima: Float[np.ndarray, "passage"], sets: dict[Half, PassageSet]
) -> list[ExampleChoice]:
    """Choose the passages of one feature.

    Args:
        passages: all passages of the evidence.
        maxima: the feature's maximum activation in each of them.
        sets: half -> its passages.
    """
    side, half = np.array([passage.population[:2] for passage in passages], np.int64).reshape(-1, 2).T
    strongest = list(_strongest(maxima, side, half))
    shown = {choice.passage for choice in strongest}
    chosen = [*strongest, *_sampled(maxima, side, shown)]
    shown |= {choice.passage for choice in chosen}
    return [*chosen, *(miss for half in Half for miss in _near_misses(maxima, sets[half], shown))]


def _quantile(maxima: np.ndarray, firing: np.ndarray, passage: int | np.integer) -> float:
    return float((maxima[firing] < maxima[passage]).mean())


def _strongest(
    maxima: np.ndarray, side: Int[np.ndarray, "passage"], half: Int[np.ndarray, "passage"]
) -> Iterator[ExampleChoice]:
    for own_side, own_half in product(Side, Half):
        firing = np.flatnonzero((side == own_side) & (maxima > 0))
        own = firing[half[firing] == own_half]
        for at in own[np.argsort(-maxima[own], kind="stable")][:TOP_PER_HALF]:
            yield ExampleChoice(int(at), "top", _quantile(maxima, firing, at), float(maxima[at]))


def _sampled(maxima: np.ndarray, side: Int[np.ndarray, "passage"], shown: set[int]) -> Iterator[ExampleChoice]:
    for own_side in Side:
        firing = np.flatnonzero((side == own_side) & (maxima > 0))
        ordered = [int(at) for at in firing[np.argsort(maxima[firing], kind="stable")] if int(at) not in shown]
        if len(ordered) < len(QUANTILES):
            continue
        for quantile in QUANTILES:
            at = ordered[int(quantile * len(ordered))]
            yield ExampleChoice(at, "quantile", _quantile(maxima, firing, at), float(maxima[at]))


def _near_misses(maxima: np.ndarray, half: PassageSet, shown: set[int]) -> Iterator[ExampleChoice]:
    value = maxima[half.numbers]
    strong = np.flatnonzero((value > 0) & (half.side == Side.DOMAIN))
    strong = strong[np.argsort(-value[strong], kind="stable")][:TOP_PER_HALF]
    if len(strong) == 0:
        return
    silent = np.flatnonzero((value == 0) & (half.side == Side.DOMAIN))
    similarity = half.similarity(strong)
    for at in silent[np.argsort(-similarity[silent], kind="stable")][:NEAR_MISSES_PER_HALF]:
        if int(half.numbers[at]) not in shown:
            yield ExampleChoice(int(half.numbers[at]), "near_miss", None, 0.0)


class Example(NamedTuple):
    """A passage shown for a feature, with the feature's activation on each token."""

    choice: ExampleChoice
    side: Side
    half: Half
    text: str
    tokens: list[str]
    """Text of each token in order, without special tokens; a character of several tokens is with the first of them."""
    activations: list[float]

    @property
    def peak(self) -> int:
        """Index of the token with the largest activation."""
        return int(np.argmax(self.activations))


def layer_examples(evidence: Evidence, hookpoint: Hookpoint, sets: dict[Half, PassageSet]) -> list[list[Example]]:
    """Choose the examples of every feature of a layer.

    Args:
        evidence: passages and activations.
        hookpoint: one of its layers.
        sets: half -> its passages.

    Returns:
        For each feature its examples: the strongest, those at quantiles, then near misses.
    """
    maxima = evidence.maxima(hookpoint)
    starts = evidence.starts
    examples: list[list[Example]] = []
    for column in range(maxima.shape[1]):
        values = evidence.layers[hookpoint].dense(column)
        chosen = choose_examples(evidence.passages, maxima[:, column], sets)
        examples.append([])
        for choice in chosen:
            own = slice(starts[choice.passage], starts[choice.passage + 1])
            examples[-1].append(_make_example(choice, evidence.passages[choice.passage], values[own]))
    return examples


def _make_example(choice: ExampleChoice, passage: Passage, values: np.ndarray) -> Example:
    tokens = passage.tokens
    activations = [float(values[at]) for at in tokens.positions]
    return Example(choice, passage.side, passage.half, passage.text.strip(), tokens.texts, activations)
