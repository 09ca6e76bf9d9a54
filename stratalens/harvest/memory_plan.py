"""Estimate the memory of a run before anything is loaded, and plan which layers can be read together."""

from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import torch

from stratalens.config.options import RunConfig
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.shard_reader import CHUNK_TOKENS
from stratalens.harvest.state.top_examples import EXAMPLES_KEPT
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import skeleton
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.sae import max_dense_elements

PROCESS_BYTES = 700_000_000
"""Memory of Python with its libraries, the tables and the figure."""
USABLE_SHARE = 0.9
"""Share of the free memory that a run plans to use."""
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.55}
"""Bytes per parameter of the blocks, scales included."""
CELL_BYTES = 8 * (len(TOKEN_CLASSES) + 7) + 16 * 8 + 44 * EXAMPLES_KEPT
"""Memory for one latent in one population: its statistics, eight filled bins of its histogram, and its examples."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a run needs, in bytes."""

    process: int
    """Python itself, see `PROCESS_BYTES`."""
    model: int
    """Weights of the embedding and of the blocks that are loaded."""
    batch: int
    """Activations of one batch, and the pre-activations of one SAE."""
    layers: Mapping[Hookpoint, int]
    """Hookpoint -> its encoder and its statistics."""
    on_device: bool
    """Whether all but `process` is in the memory of a GPU."""

    @property
    def fixed(self) -> int:
        """Memory needed however few layers are read together."""
        return self.model + self.batch + (0 if self.on_device else self.process)

    @property
    def total(self) -> int:
        """Memory needed to read all layers together."""
        return self.fixed + sum(self.layers.values())

    def describe(self) -> str:
        """One line for the user, in GB."""
        parts = {"model": self.model, "batch": self.batch, "encoders and statistics": sum(self.layers.values())}
        if not self.on_device:
            parts["program"] = self.process
        detail = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
        return f"Memory: about {self.total / 1e9:.1f} GB{' on the GPU' if self.on_device else ''} ({detail})"


def count_parameters(inputs: RunInputs) -> tuple[int, int]:
    """Count the parameters of the blocks up to the deepest layer with an SAE, and those of the embedding.

    Raises:
        ModelError: the configuration of the model cannot be read.
    """
    model = skeleton(inputs.source)
    embedding = sum(p.numel() for p in model.get_input_embeddings().parameters())
    blocks = sum(p.numel() for p in model.parameters()) - embedding
    return blocks * (max(inputs.saes).block + 1) // inputs.source.num_layers, embedding


def estimate_memory(config: RunConfig, inputs: RunInputs, device: torch.device, dtype: torch.dtype) -> MemoryEstimate:
    """Estimate the memory of a run that reads all layers together.

    Raises:
        ModelError: the configuration of the model cannot be read.
    """
    blocks, embedding = count_parameters(inputs)
    block_bytes = QUANTISED_BYTES[config.load_in] if config.load_in else dtype.itemsize
    d_model, populations = inputs.source.d_model, len(inputs.survey.populations)
    widest = max(sae.num_latents for sae in inputs.saes.values())
    # Per token, a block needs about a dozen vectors of d_model at once (residual, queries, keys, values, twice the
    # intermediate size of the MLP), the encoder one in float32, and top-k a copy of the pre-activations.
    batch_tokens = min(config.batch_tokens, CHUNK_TOKENS)
    activations = batch_tokens * d_model * (12 * dtype.itemsize + 8)
    dense = 8 * min(max_dense_elements(device), batch_tokens * widest)
    return MemoryEstimate(
        process=PROCESS_BYTES,
        model=round(blocks * block_bytes + embedding * dtype.itemsize),
        batch=activations + dense,
        layers={
            hookpoint: sae.encoder_bytes + populations * sae.num_latents * CELL_BYTES
            for hookpoint, sae in inputs.saes.items()
        },
        on_device=device.type == "cuda",
    )


def free_memory(device: torch.device) -> int:
    """Bytes that a run may use: a share of what is free on the device now."""
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return int(USABLE_SHARE * free)


def plan_passes(estimate: MemoryEstimate, limit: int) -> tuple[tuple[Hookpoint, ...], ...]:
    """Group the layers that fit into memory together, the deepest first; a group has at least one layer.

    Args:
        estimate: memory of the run and of each layer.
        limit: bytes that may be used.
    """
    passes: list[list[Hookpoint]] = []
    free_bytes = 0
    for hookpoint in sorted(estimate.layers, reverse=True):
        if not passes or estimate.layers[hookpoint] > free_bytes:
            passes.append([])
            free_bytes = limit - estimate.fixed
        passes[-1].append(hookpoint)
        free_bytes -= estimate.layers[hookpoint]
    return tuple(tuple(sorted(hookpoints)) for hookpoints in passes)
