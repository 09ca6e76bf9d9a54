"""What a reading leaves of one layer: bounded, folded in a fixed order, packed into bytes and back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from stratalens.harvest.state import document_sample as documents
from stratalens.harvest.state import statistics
from stratalens.harvest.state import top_examples as examples
from stratalens.harvest.state.document_sample import DocumentSample
from stratalens.harvest.state.statistics import HISTOGRAM_BINS, FeatureStats
from stratalens.harvest.state.top_examples import TopExamples


class LayerState(NamedTuple):
    """What some passages leave of one layer."""

    stats: FeatureStats
    examples: TopExamples
    documents: DocumentSample
    batches_split: int = 0
    """Batches that did not fit into memory and were halved, which may change last bits."""


HISTOGRAM_ARRAYS = ("data", "indices", "indptr")
PARTS = {"stats": FeatureStats, "examples": TopExamples, "documents": DocumentSample}
EXAMPLES_WAITING = 500_000
"""Examples that may wait to be merged: merging costs as much as all that is held, so it is done seldom."""


@dataclass
class StateFolder:
    """Takes states one by one, in their order, and yields all of them together."""

    stats: FeatureStats = field(default_factory=FeatureStats.empty)
    examples: list[TopExamples] = field(default_factory=lambda: [TopExamples.empty()])
    documents: list[DocumentSample] = field(default_factory=list)
    batches_split: int = 0

    def add(self, state: LayerState) -> None:
        """Take one more state."""
        self.stats = statistics.merge(self.stats, state.stats)
        self.examples.append(examples.possible_entries(state.examples, self.examples[0]))
        self.documents.append(state.documents)
        self.batches_split += state.batches_split
        waiting = sum(len(one.value) for one in self.examples[1:])
        if waiting > max(EXAMPLES_WAITING, len(self.examples[0].value)):
            self.examples = [examples.merge(*self.examples)]

    def result(self) -> LayerState:
        """All that was taken; at least one state."""
        return LayerState(
            self.stats, examples.merge(*self.examples), documents.join(self.documents), self.batches_split
        )


def fold(states: Iterable[LayerState]) -> LayerState:
    """All states together, in the order given; at least one. One state is held beside the result at a time."""
    folding = StateFolder()
    for state in states:
        folding.add(state)
    return folding.result()


def pack_state(state: LayerState) -> bytes:
    """A state as bytes, in the safetensors format."""
    from safetensors.numpy import save

    arrays = {"batches_split": np.array([state.batches_split])}
    for part in PARTS:
        arrays |= {f"{part}.{name}": array for name, array in vars(getattr(state, part)).items()}
    histogram = arrays.pop("stats.histogram")
    arrays |= {f"histogram.{name}": getattr(histogram, name) for name in HISTOGRAM_ARRAYS}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpack_state(packed: bytes) -> LayerState:
    """The state that `pack_state` packed."""
    from safetensors.numpy import load

    arrays: dict[str, Any] = load(packed)
    counts = tuple(arrays.pop(f"histogram.{name}") for name in HISTOGRAM_ARRAYS)
    arrays["stats.histogram"] = sparse.csr_array(counts, shape=(len(counts[2]) - 1, HISTOGRAM_BINS))
    split = int(arrays.pop("batches_split")[0])
    own = {
        part: {name.split(".")[1]: array for name, array in arrays.items() if name.startswith(part)} for part in PARTS
    }
    return LayerState(**{part: kind(**own[part]) for part, kind in PARTS.items()}, batches_split=split)
