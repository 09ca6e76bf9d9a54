"""Facts about a layer as a whole, from its harvest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stratalens.harvest import FeatureStats
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import mean_norm


class LayerFacts(NamedTuple):
    """Facts about a layer, besides its features, for the comparison of layers."""

    fvu: float
    """Fraction of variance unexplained by the SAE."""
    mean_hookpoint_norm: float
    dropped_share: float
    """Share of countable positions dropped as sinks."""


@dataclass(frozen=True)
class HarvestSummary:
    """Facts from the harvest about layers and text, without single latents."""

    layers: Mapping[Hookpoint, LayerFacts]
    batches_split: Mapping[Hookpoint, int]
    """Hookpoint -> batches that did not fit into memory and were halved."""
    passages: Int[np.ndarray, "population"]
    tokens: Int[np.ndarray, "population"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "population"]


def layer_facts(fvu: float, stats: FeatureStats) -> LayerFacts:
    """Compute the facts about a layer from the FVU of its SAE and its statistics."""
    countable, kept = int(stats.countable_positions.sum()), int(stats.positions.sum())
    return LayerFacts(fvu, mean_norm(stats), 1 - kept / max(1, countable))
