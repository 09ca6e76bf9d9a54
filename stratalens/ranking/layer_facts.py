"""What a harvest says of a layer as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stratalens.harvest import FeatureStats
from stratalens.ranking.estimates import mean_norm


class LayerFacts(NamedTuple):
    """What the layer comparison says of a layer besides its features."""

    fvu: float
    mean_hookpoint_norm: float
    dropped_share: float
    """Share of countable positions dropped as sinks."""


@dataclass(frozen=True)
class HarvestSummary:
    """What the harvest says of layers and text, apart from single latents."""

    layers: Mapping[int, LayerFacts]
    batches_split: Mapping[int, int]
    """Layer -> batches that did not fit into memory and were halved."""
    passages: Int[np.ndarray, "population"]
    tokens: Int[np.ndarray, "population"]
    countable_positions: Int[np.ndarray, "population"]


def layer_facts(fvu: float, stats: FeatureStats) -> LayerFacts:
    """What the layer comparison says besides the features."""
    countable, kept = int(stats.countable_positions.sum()), int(stats.positions.sum())
    return LayerFacts(fvu, mean_norm(stats), 1 - kept / max(1, countable))
