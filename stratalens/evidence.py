"""What fires a reported feature: its strongest passages with their text, and the tokens on which it peaks."""

from collections.abc import Iterable, Mapping

import numpy as np

from stratalens.corpora import Corpus, Half, Side, Survey, population
from stratalens.examples import EXAMPLES_KEPT, TopExamples
from stratalens.report.tables import Example

LABEL_TOKENS = 6


def token_label(examples: TopExamples, feature: int, tokenizer) -> str:
    """The tokens on which a feature peaks in its strongest domain passages of the discovery half, strongest first."""
    at = population(Side.DOMAIN, Half.DISCOVERY)
    weight: dict[str, float] = {}
    for value, token in zip(examples.value[at, feature], examples.peak_token[at, feature], strict=True):
        if value > 0:
            text = tokenizer.decode([int(token)]).strip() or "white space"
            weight[text] = weight.get(text, 0.0) + float(value)
    if not weight:
        return "No activation on discovery text"
    return "Top tokens: " + ", ".join(sorted(weight, key=lambda text: -weight[text])[:LABEL_TOKENS])


def strongest(examples: TopExamples, feature: int, side: int) -> list[tuple[int, int]]:
    """Slots (population, slot) of a feature's strongest passages of one side, both halves together."""
    slots = [
        (population(side, half), slot)
        for half in Half
        for slot in range(EXAMPLES_KEPT)
        if examples.value[population(side, half), feature, slot] > 0
    ]
    return sorted(
        slots, key=lambda at: (-examples.value[at[0], feature, at[1]], examples.content[at[0], feature, at[1]])
    )[:EXAMPLES_KEPT]


def sentences(
    corpus: Corpus, survey: Survey, layers: Mapping[int, TopExamples], features: Mapping[int, Iterable[int]], tokenizer
) -> dict[int, dict[int, list[Example]]]:
    """Layer -> feature -> its strongest passages of both sides, with their text from one more reading of the corpus."""
    chosen = {
        layer: {int(f): [at for side in Side for at in strongest(layers[layer], int(f), side)] for f in numbers}
        for layer, numbers in features.items()
    }
    wanted = {
        _place(layers[layer], f, at) for layer, some in chosen.items() for f, slots in some.items() for at in slots
    }
    texts = _texts(corpus, survey, wanted)
    return {
        layer: {f: [_example(layers[layer], f, at, texts, tokenizer) for at in slots] for f, slots in some.items()}
        for layer, some in chosen.items()
    }


Place = tuple[int, int, int]
"""Text hash, first character, one past the last character."""


def _place(examples: TopExamples, feature: int, at: tuple[int, int]) -> Place:
    where = (at[0], feature, at[1])
    return int(examples.content[where]), int(examples.start[where]), int(examples.end[where])


def _texts(corpus: Corpus, survey: Survey, wanted: set[Place]) -> dict[Place, str]:
    places: dict[int, list[Place]] = {}
    for place in wanted:
        places.setdefault(place[0], []).append(place)
    return {
        place: row.text[place[1] : place[2]]
        for row in survey.select(corpus, frozenset(places))
        for place in places[row.content]
    }


def _example(
    examples: TopExamples, feature: int, at: tuple[int, int], texts: Mapping[Place, str], tokenizer
) -> Example:
    where = (at[0], feature, at[1])
    return Example(
        sentence=texts[_place(examples, feature, at)].strip(),
        activation=float(np.float64(examples.value[where])),
        domain_side=at[0] < population(Side.GENERAL, 0),
        peak_token=tokenizer.decode([int(examples.peak_token[where])]),
    )
