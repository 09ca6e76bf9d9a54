"""The state of one layer after some text: bounded in size, merged in a fixed order, packed into bytes and back."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from stratalens.harvest.state import document_sample as documents
from stratalens.harvest.state import statistics
from stratalens.harvest.state import top_examples as examples
from stratalens.harvest.state.document_sample import DocumentSample
from stratalens.harvest.state.soundness import require_sound
from stratalens.harvest.state.statistics import HISTOGRAM_BINS, FeatureStats
from stratalens.harvest.state.top_examples import TopExamples


class LayerState(NamedTuple):
    """Everything that is kept of one layer after reading some passages."""

    stats: FeatureStats
    examples: TopExamples
    documents: DocumentSample
    batches_split: int = 0
    """Batches that did not fit into memory and were halved, which may change last bits."""


HISTOGRAM_ARRAYS = ("data", "indices", "indptr")
"""Arrays of a sparse matrix in CSR format, by the names that scipy gives them."""
PARTS = {"stats": FeatureStats, "examples": TopExamples, "documents": DocumentSample}
"""Field of `LayerState` -> its class."""
MAX_UNMERGED_EXAMPLES = 500_000
"""Examples collected before they are merged: each merge sorts all examples so far, so it is done rarely."""


@dataclass
class StateAccumulator:
    """Merges states one by one, in a fixed order."""

    stats: FeatureStats | None = None
    examples: list[TopExamples] = field(default_factory=lambda: [TopExamples.empty()])
    """The merged examples first, then those that are not merged yet."""
    documents: list[DocumentSample] = field(default_factory=list)
    batches_split: int = 0

    def add(self, state: LayerState) -> None:
        """Merge one more state."""
        self.stats = state.stats if self.stats is None else statistics.merge(self.stats, state.stats)
        self.examples.append(examples.possible_entries(state.examples, self.examples[0]))
        self.documents.append(state.documents)
        self.batches_split += state.batches_split
        unmerged = sum(len(part.value) for part in self.examples[1:])
        if unmerged > max(MAX_UNMERGED_EXAMPLES, len(self.examples[0].value)):
            self.examples = [examples.merge(*self.examples)]

    def result(self) -> LayerState:
        """All states together, at least one."""
        assert self.stats is not None
        return LayerState(
            self.stats, examples.merge(*self.examples), documents.join(self.documents), self.batches_split
        )


def fold(states: Iterable[LayerState]) -> LayerState:
    """Merge states, at least one, in the given order; only one state at a time is held besides the result."""
    accumulator = StateAccumulator()
    for state in states:
        accumulator.add(state)
    return accumulator.result()


def pack_state(state: LayerState) -> bytes:
    """Pack a state into bytes, in the safetensors format."""
    from safetensors.numpy import save

    arrays = {"batches_split": np.array([state.batches_split])}
    for part in PARTS:
        arrays |= {f"{part}.{name}": array for name, array in vars(getattr(state, part)).items()}
    histogram = arrays.pop("stats.histogram")
    arrays |= {f"histogram.{name}": getattr(histogram, name) for name in HISTOGRAM_ARRAYS}
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpack_state(packed: bytes, num_latents: int | None = None) -> LayerState:
    """Restore a state from the bytes of `pack_state`.

    Args:
        packed: those bytes.
        num_latents: width of the SAE, beyond which no latent may lie; None where it is not known.

    Raises:
        ValueError: they are not those of a state.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, Any] = load(packed)
        histogram = tuple(arrays.pop(f"histogram.{name}") for name in HISTOGRAM_ARRAYS)
        arrays["stats.histogram"] = sparse.csr_array(histogram, shape=(len(histogram[2]) - 1, HISTOGRAM_BINS))
        split = int(arrays.pop("batches_split")[0])
        columns = {
            part: {name.split(".")[1]: array for name, array in arrays.items() if name.startswith(part)}
            for part in PARTS
        }
        state = LayerState(**{part: kind(**columns[part]) for part, kind in PARTS.items()}, batches_split=split)
        require_sound(*state[:3], num_latents)
    except (SafetensorError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a state: {error}") from None
    return state
