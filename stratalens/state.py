"""What a reading leaves of one layer: bounded, folded in a fixed order, packed into bytes and back."""

from collections.abc import Iterable
from dataclasses import fields
from typing import NamedTuple

import numpy as np

from stratalens import documents, examples, statistics
from stratalens.corpora import POPULATIONS
from stratalens.documents import DocumentSample
from stratalens.examples import TopExamples
from stratalens.statistics import HISTOGRAM_BINS, FeatureStats


class LayerState(NamedTuple):
    """What some passages leave of one layer."""

    stats: FeatureStats
    examples: TopExamples
    documents: DocumentSample
    batches_split: int = 0
    """Batches that did not fit into memory and were halved, which may change last bits."""


PARTS = {"stats": FeatureStats, "examples": TopExamples, "documents": DocumentSample}


def fold(states: Iterable[LayerState]) -> LayerState:
    """All states together, in the order given; at least one. One state is held beside the result at a time."""
    stats, best, samples, split = FeatureStats.empty(), TopExamples.empty(), [], 0
    for state in states:
        split += state.batches_split
        stats = statistics.merge(stats, state.stats)
        best = examples.merge(best, state.examples)
        samples.append(state.documents)
    return LayerState(stats, best, documents.join(samples), split)


def pack(state: LayerState) -> bytes:
    """A state as bytes, in the safetensors format."""
    from safetensors.numpy import save

    arrays = {"batches_split": np.array([state.batches_split])}
    for part in PARTS:
        value = getattr(state, part)
        arrays |= {f"{part}.{field.name}": getattr(value, field.name) for field in fields(value)}
    counts = arrays.pop("stats.histogram").reshape(-1)
    arrays["histogram.place"] = np.flatnonzero(counts)  # of a shard's bins most are empty
    arrays["histogram.count"] = counts[arrays["histogram.place"]]
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpack(packed: bytes) -> LayerState:
    """The state that `pack` packed."""
    from safetensors.numpy import load

    arrays = load(packed)
    counts = np.zeros(POPULATIONS * len(arrays["stats.latents"]) * HISTOGRAM_BINS, np.int64)
    counts[arrays["histogram.place"]] = arrays["histogram.count"]
    arrays["stats.histogram"] = counts.reshape(POPULATIONS, -1, HISTOGRAM_BINS)
    parts = {
        part: kind(**{field.name: arrays[f"{part}.{field.name}"] for field in fields(kind)})
        for part, kind in PARTS.items()
    }
    return LayerState(**parts, batches_split=int(arrays["batches_split"][0]))
