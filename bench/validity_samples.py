"""Documents of which the truth is known, drawn from the document values of a real harvest.

A run draws documents with replacement from those of the harvest, which are then the whole population: its AUROC and its
difference of means are the truth that an interval should hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

import stratalens
from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.populations import Population
from stratalens.report.saved import Result

STRENGTHS = (0.25, 0.5, 1.0)
PREVALENCES = (0.1, 0.3, 1.0)
LATENTS_PER_PLANT = 2
LATENTS_PER_DECOY = 4
LOUDNESS = 30
"""Factor of the decoys that are loud on both sides."""
PLANTS = tuple(f"{strength:g} in {prevalence:.0%}" for strength, prevalence in product(STRENGTHS, PREVALENCES))
NOTHING, LOUD, ONE_HALF = "nothing", "loud", "one half"
GROUPS = (NOTHING, LOUD, ONE_HALF, *PLANTS)
"""What may have been done to a latent. `LOUD`: all its values are multiplied; `ONE_HALF`: it is planted in the
documents that select, and not in those that confirm. Neither makes a feature."""


class HarvestValues(NamedTuple):
    """Document values of all layers of a harvest."""

    layers: tuple[Float[np.ndarray, "document latent"], ...]
    """Of live latents."""
    side: Int[np.ndarray, "document"]
    kind: Int[np.ndarray, "document"]
    """Kind of text, a number."""


@dataclass(frozen=True)
class Sample:
    """The documents of one run, and the truth about each latent."""

    values: Float[np.ndarray, "document latent"]
    population: Int[np.ndarray, "document"]
    populations: Populations
    auroc: Float[np.ndarray, "latent"]
    specialization: Float[np.ndarray, "latent"]
    group: Int[np.ndarray, "latent"]
    """Index into `GROUPS`."""


Setting = Callable[[HarvestValues, int, int, np.random.Generator], Sample]
"""Values, documents a side in each half, latents, source of randomness -> the documents of a run."""


def read_harvest(folder: Path) -> HarvestValues:
    """Analyse the built-in texts with the embedded model and take the values of each document from the harvest."""
    return values_of(stratalens.analyze(top_n=1, no_examples=True, output_dir=str(folder / "result")))


def values_of(result: Result) -> HarvestValues:
    """The values of the sampled documents of a result, at every layer."""
    layers, population = [], np.zeros(0, np.int64)
    for hookpoint, file in result.harvest.items():
        width = len(result.findings.latents[hookpoint])
        matrix = file.state(width).documents.matrix(width)
        dense, population = matrix.values.toarray(), matrix.population
        layers.append(dense[:, (dense > 0).any(0)])
    kind = np.array([Population.numbered(number).stratum for number in population.tolist()])
    return HarvestValues(tuple(layers), result.record.populations.sides[population], kind)


def shuffled(values: HarvestValues, documents: int, latents: int, rng: np.random.Generator) -> Sample:
    """Both sides are drawn from all documents, so no latent is of the domain."""
    dense = _some_latents(values, latents, rng)
    rows = rng.integers(0, len(dense), len(Populations()) * documents)
    nothing = np.zeros(dense.shape[1])
    group = np.full(dense.shape[1], GROUPS.index(NOTHING))
    return Sample(dense[rows], _in_turn(documents), Populations(), nothing + 0.5, nothing, group)


def planted(values: HarvestValues, documents: int, latents: int, rng: np.random.Generator) -> Sample:
    """The same, with planted features and decoys.

    A plant of strength s in a share of the domain documents adds s times a value that the latent has in one of the
    documents in which it fires, so it is as skewed as the latent itself.
    """
    dense = _some_latents(values, latents, rng)
    rows = rng.integers(0, len(dense), len(Populations()) * documents)
    drawn, population = dense[rows], _in_turn(documents)
    domain = np.isin(population, Populations().where(side=Side.DOMAIN))
    selects = np.isin(population, Populations().where(half=Half.DISCOVERY))
    group = np.full(dense.shape[1], GROUPS.index(NOTHING))
    names = [LOUD, ONE_HALF] * LATENTS_PER_DECOY + [*PLANTS] * LATENTS_PER_PLANT
    chosen = rng.permutation(dense.shape[1])[: len(names)]
    group[chosen] = [GROUPS.index(name) for name in names[: len(chosen)]]
    auroc, specialization = np.full(dense.shape[1], 0.5), np.zeros(dense.shape[1])
    drawn[:, group == GROUPS.index(LOUD)] *= LOUDNESS
    for latent in np.flatnonzero(group == GROUPS.index(ONE_HALF)):
        raised = _raised(dense[:, latent], 1.0, rng)
        drawn[:, latent] = np.where(domain & selects, raised[rows], drawn[:, latent])
    for name, (strength, share) in zip(PLANTS, product(STRENGTHS, PREVALENCES), strict=True):
        for latent in np.flatnonzero(group == GROUPS.index(name)):
            raised = _raised(dense[:, latent], strength, rng)
            hit = domain & (rng.random(len(rows)) < share)
            drawn[:, latent] = np.where(hit, raised[rows], drawn[:, latent])
            auroc[latent] = (1 - share) / 2 + share * _aurocs(raised[:, None], dense[:, [latent]])[0]
            specialization[latent] = share * (raised.mean() - dense[:, latent].mean())
    return Sample(drawn, population, Populations(), auroc, specialization, group)


def real(values: HarvestValues, documents: int, latents: int, rng: np.random.Generator) -> Sample:
    """Domain documents against general ones as they are; nothing is planted."""
    return _as_they_are(values, documents, latents, rng, np.zeros(len(values.side), np.int64))


def real_by_kind(values: HarvestValues, documents: int, latents: int, rng: np.random.Generator) -> Sample:
    """The same within kinds of text, each with its share of the documents."""
    return _as_they_are(values, documents, latents, rng, values.kind)


SETTINGS: dict[str, Setting] = {
    "shuffled": shuffled,
    "planted": planted,
    "real": real,
    "real, by kind": real_by_kind,
}


def _as_they_are(
    values: HarvestValues, documents: int, latents: int, rng: np.random.Generator, kind: Int[np.ndarray, "document"]
) -> Sample:
    dense = _some_latents(values, latents, rng)
    kinds = np.unique(kind)
    populations = Populations(tuple(f"kind {own}" for own in kinds) if len(kinds) > 1 else ("",))
    rows, population, weights = [], [], []
    auroc, mean = np.zeros((len(kinds), dense.shape[1])), np.zeros((2, len(kinds), dense.shape[1]))
    counts = np.zeros((2, len(kinds)), np.int64)
    for stratum, own in enumerate(kinds):
        pools = [np.flatnonzero((values.side == side) & (kind == own)) for side in Side]
        for side in Side:
            count = max(2, round(documents * len(pools[side]) / np.sum(values.side == side)))
            counts[side, stratum], mean[side, stratum] = count, dense[pools[side]].mean(0)
            for half in Half:
                rows.append(rng.choice(pools[side], count))
                population.append(np.full(count, Population(side, half, stratum).number))
        auroc[stratum] = _aurocs(*(dense[pool] for pool in pools))
    weights = counts[0] * counts[1] / counts.sum(0)
    domain, general = (np.average(mean[side], 0, counts[side]) for side in Side)
    drawn = np.concatenate(rows)
    return Sample(
        dense[drawn],
        np.concatenate(population),
        populations,
        np.average(auroc, 0, weights),
        domain - general,
        np.zeros(dense.shape[1], np.int64),
    )


def _some_latents(
    values: HarvestValues, latents: int, rng: np.random.Generator
) -> Float[np.ndarray, "document latent"]:
    layer = values.layers[rng.integers(len(values.layers))]
    return layer[:, rng.choice(layer.shape[1], min(latents, layer.shape[1]), replace=False)]


def _in_turn(documents: int) -> Int[np.ndarray, "document"]:
    """The populations of equally many documents each."""
    return np.repeat(np.arange(len(Populations())), documents)


def _raised(values: Float[np.ndarray, "document"], strength: float, rng: np.random.Generator) -> np.ndarray:
    return values + strength * rng.choice(values[values > 0], len(values))


def _aurocs(domain: np.ndarray, general: np.ndarray) -> Float[np.ndarray, "latent"]:
    rank = stats.rankdata(np.concatenate([domain, general]), axis=0)[: len(domain)]
    return (rank.mean(0) - (len(domain) + 1) / 2) / len(general)
