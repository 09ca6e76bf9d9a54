"""Estimate the memory of a run before anything is loaded, and plan which layers can be read together.

There are two budgets where the model runs on a GPU: the GPU's for model, batch and SAEs, the host's for the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from stratalens.config.options import RunConfig
from stratalens.corpus import Populations
from stratalens.harvest.chunks import chunk_tokens
from stratalens.harvest.inputs import ModelInputs, RunInputs
from stratalens.harvest.state.top_examples import EXAMPLES_KEPT
from stratalens.hookpoint import Hookpoint
from stratalens.models.memory import USABLE_SHARE, MemoryBytes, free_gpu_bytes, free_host_bytes, free_mps_bytes
from stratalens.models.placement import gpus_for
from stratalens.models.source import skeleton
from stratalens.models.streams import division_of
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.sae import SaeFile, max_dense_elements

PROCESS_BYTES = 700_000_000
"""Memory of Python with its libraries, the tables and the figure."""
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.55}
"""Bytes per parameter of the blocks, scales included."""
CELL_BYTES = 8 * (len(TOKEN_CLASSES) + 7) + 16 * 8 + 44 * EXAMPLES_KEPT
"""Memory for one latent in one population: its statistics, eight filled bins of its histogram, and its examples."""
TYPICAL_L0 = 100
"""Latents that fire on a token, of an encoder that neither limits nor declares their number."""
ENTRY_VALUE_BYTES = 15
"""Memory for a latent that fires on a token, in the values of its passage: 56 bytes for each of its latents, and about
one latent of a passage for five that fire on its tokens; somewhat more while those of batches are joined."""
ENTRY_CODE_BYTES = 25
"""The same in the token-level codes: 16 in those of batches, 40 for one layer while its table is made, 5 compressed."""


class LayerBytes(NamedTuple):
    """Memory of one layer, in bytes."""

    sae: int
    """Its encoder: on the device of the model."""
    statistics: int
    """Statistics, examples and sampled documents: on the host."""
    passages: int
    """Values and token-level codes of the passages that are being read: on the device until a chunk is read, then on
    the host."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory that a run needs, in bytes."""

    process: int
    """Python itself, see `PROCESS_BYTES`: on the host."""
    model: int
    """Weights of the embedding and of the blocks that are loaded."""
    batch: int
    """Activations of the batches that are read beside each other, and the pre-activations of an SAE for each."""
    layers: Mapping[Hookpoint, LayerBytes]
    on_device: bool
    """Whether model, batch and SAEs are in memory of a GPU."""

    def needs(self, hookpoints: Iterable[Hookpoint]) -> MemoryBytes:
        """Memory needed to read some layers together."""
        parts = self._parts(hookpoints)
        host, device = (sum(own.values()) for own in parts)
        return MemoryBytes(host, device)

    @property
    def total(self) -> MemoryBytes:
        """Memory needed to read all layers together."""
        return self.needs(self.layers)

    def _parts(self, hookpoints: Iterable[Hookpoint]) -> tuple[dict[str, int], dict[str, int]]:
        """Name of each part -> its bytes: on the host, and on the device."""
        layers = [self.layers[hookpoint] for hookpoint in hookpoints]
        beside = {"program": self.process}
        beside |= {name: sum(getattr(layer, name) for layer in layers) for name in ("statistics", "passages")}
        working = {"model": self.model, "batch": self.batch, "SAEs": sum(layer.sae for layer in layers)}
        if not self.on_device:
            return working | beside, {}
        return beside, working | {"passages": beside["passages"]}

    def describe(self) -> str:
        """One line for the user, in GB: each budget as the sum of its parts."""
        host, device = self._parts(self.layers)
        lines = [f"about {_gigabytes(device, 'on the GPU')}"] if device else []
        return "Memory: " + " and ".join([*lines, f"about {_gigabytes(host, 'of the host' if device else '')}"])


def _gigabytes(parts: Mapping[str, int], where: str) -> str:
    detail = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in parts.items())
    return f"{sum(parts.values()) / 1e9:.1f} GB{' ' * bool(where)}{where} ({detail})"


def loaded_blocks(inputs: ModelInputs) -> int:
    """Number of blocks that are loaded: up to the deepest layer with an SAE, and one more for the fit check."""
    return min(inputs.source.num_layers, max(inputs.saes).block + 2)


def count_parameters(inputs: ModelInputs, blocks: int) -> tuple[int, int]:
    """Count the parameters of the first blocks, and those of the embedding.

    Raises:
        ModelError: the configuration of the model cannot be read.
    """
    model = skeleton(inputs.source)
    embedding = sum(p.numel() for p in model.get_input_embeddings().parameters())
    all_blocks = sum(p.numel() for p in model.parameters()) - embedding
    return all_blocks * blocks // inputs.source.num_layers, embedding


def estimate_memory(config: RunConfig, inputs: ModelInputs, device: torch.device, dtype: torch.dtype) -> MemoryEstimate:
    """Estimate the memory of a run that reads all layers together.

    Args:
        config: options of the run.
        inputs: its model source and SAEs; with the text, if that was looked at.
        device: where the model runs.
        dtype: type of the model.

    Raises:
        ModelError: the configuration of the model cannot be read.
    """
    blocks, embedding = count_parameters(inputs, loaded_blocks(inputs))
    block_bytes = QUANTISED_BYTES[config.load_in] if config.load_in else dtype.itemsize
    return MemoryEstimate(
        process=PROCESS_BYTES,
        model=round(blocks * block_bytes + embedding * dtype.itemsize),
        batch=_batch_bytes(config, inputs, device, dtype),
        layers={hookpoint: _layer_bytes(config, inputs, sae, device) for hookpoint, sae in inputs.saes.items()},
        on_device=device.type != "cpu",
    )


def _batch_bytes(config: RunConfig, inputs: ModelInputs, device: torch.device, dtype: torch.dtype) -> int:
    """Memory for all batches that are read beside each other: a batch has at least one passage.

    Per token, a block needs about a dozen vectors of d_model at once (residual, queries, keys, values, twice the
    intermediate size of the MLP), and the encoder one in float32. Top-k needs a copy of the pre-activations; on the CPU
    it finds the numbers of their latents instead, in 8 bytes each.
    """
    streams = division_of(device).streams
    batch_tokens = max(streams * config.max_length, min(config.tokens_per_batch, chunk_tokens(device.type)))
    widest = max(sae.num_latents for sae in inputs.saes.values())
    activations = batch_tokens * inputs.source.d_model * (12 * dtype.itemsize + 8)
    dense_elements = min(streams * max_dense_elements(device), batch_tokens * widest)
    return activations + (12 if device.type == "cpu" else 8) * dense_elements


def _layer_bytes(config: RunConfig, inputs: ModelInputs, sae: SaeFile, device: torch.device) -> LayerBytes:
    text = inputs.survey if isinstance(inputs, RunInputs) else None
    populations = len(Populations() if text is None else text.populations)
    chunks_held = 1 + division_of(device).ahead  # a chunk is finished while the next one is being read
    firing = chunks_held * chunk_tokens(device.type) * latents_per_token(sae)
    return LayerBytes(
        sae=sae.encoder_bytes,
        statistics=populations * sae.num_latents * CELL_BYTES,
        passages=round(firing * (ENTRY_VALUE_BYTES + ENTRY_CODE_BYTES * bool(config.keep_bytes))),
    )


def latents_per_token(sae: SaeFile) -> float:
    """How many latents of an SAE fire on a token: at most, by its declaration, or as is typical."""
    return float(sae.k or sae.l0 or TYPICAL_L0)


def memory_limits(config: RunConfig, estimate: MemoryEstimate, device: torch.device) -> MemoryBytes:
    """Bytes that a run may use: `--memory_gb` of the memory that the model is in, a share of all else that is free.

    With a model that does not fit on one GPU, all of them count.
    """
    given = None if config.memory_gb is None else int(config.memory_gb * 1e9)
    host = int(USABLE_SHARE * free_host_bytes())
    if not estimate.on_device:
        return MemoryBytes(host if given is None else given, 0)
    return MemoryBytes(host, _free_on(device, estimate.total.device) if given is None else given)


def _free_on(device: torch.device, needed: int) -> int:
    """Bytes of the device that a run which needs so many may use."""
    if device.type == "cuda":
        return sum(int(USABLE_SHARE * free_gpu_bytes(number)) for number in gpus_for(device, needed))
    return int(USABLE_SHARE * free_mps_bytes())


def plan_passes(estimate: MemoryEstimate, limit: MemoryBytes) -> tuple[tuple[Hookpoint, ...], ...]:
    """Group the layers that fit into memory together, the deepest first; a group has at least one layer.

    Args:
        estimate: memory of the run and of each layer.
        limit: bytes that may be used.
    """
    passes: list[list[Hookpoint]] = []
    for hookpoint in sorted(estimate.layers, reverse=True):
        if not passes or not estimate.needs([*passes[-1], hookpoint]).fits(limit):
            passes.append([])
        passes[-1].append(hookpoint)
    return tuple(tuple(sorted(hookpoints)) for hookpoints in passes)
