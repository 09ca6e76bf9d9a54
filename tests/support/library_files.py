"""Checkpoints that other libraries wrote, and what their own encoders gave: `tests/saes/oracles`, by `make oracles`."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.hookpoint import Hookpoint
from stratalens.saes.sae import Checkpoint, SaeFile
from stratalens.saes.tree import SaeTree

ORACLES = Path(__file__).parents[1] / "saes" / "oracles"
BLOCKS = 30


class Expected(NamedTuple):
    """What a library's own encoder and decoder gave."""

    latents: Tensor
    """Of all tokens, dense."""
    reconstructions: Tensor
    """Of the first tokens."""


def expected(path: Path) -> Expected:
    content = load_file(path)
    return Expected(content["latents"], content["reconstructions"])


def activations(site: str, components: int | None = None) -> Tensor:
    """Real activations of block 16 of the embedded model, as float32: of all components or of the first ones."""
    return load_file(ORACLES / "activations.safetensors")[site].float()[:, :components].clone()


def llama_without_weights(blocks: int = BLOCKS) -> nn.Module:
    """A model of the embedded one's family, to find hookpoints in."""
    with torch.device("meta"):
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=blocks, num_attention_heads=1
            )
        )


def found(
    kind: ModuleType, root: Path, told: SaeActivation | None = None, model: nn.Module | None = None
) -> dict[str, Checkpoint]:
    """Path in a folder -> checkpoint, as a format finds them."""
    assert kind.recognises(SaeTree.of(root))
    sequence = kind.checkpoints(SaeTree.of(root), model or llama_without_weights(), told)
    return {checkpoint.name: checkpoint for checkpoint in sequence}


def described(kind: ModuleType, root: Path, told: SaeActivation | None = None) -> SaeFile:
    """The only SAE of a folder."""
    (checkpoint,) = found(kind, root, told).values()
    return kind.describe(checkpoint)


def at_block_16(path: Path, told: SaeActivation | None = None) -> Checkpoint:
    """A checkpoint whose place does not matter."""
    return Checkpoint(path, Hookpoint(16), Hookpoint(16), "somewhere", told=told)


def refusal_of(call: Callable[[], object]) -> str:
    """The line of the error that a call raises, as the command line prints it."""
    try:
        call()
    except CheckpointError as error:
        line = f"stratalens: {error}"
        assert "\n" not in line
        return line
    raise AssertionError("it is not refused")
