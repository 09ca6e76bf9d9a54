"""Sparse autoencoders: encode vectors into sparse latents as the SAE's own library does, and decode."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag

from stratalens.hookpoint import Hookpoint
from stratalens.saes.steps import Activation, Normalise, SparseLatents, Step

MAX_DENSE_ELEMENTS = 64_000_000
"""At most this many dense pre-activations are in memory at once; larger inputs are encoded in pieces."""

Part = TypeVar("Part")


class Checkpoint(NamedTuple):
    """A checkpoint on disk, and where its SAE belongs; none of its files is read yet."""

    path: Path
    hookpoint: Hookpoint
    """Where the SAE reads."""
    target: Hookpoint
    """Where the vectors are that it reconstructs: elsewhere for a transcoder."""
    module: str
    """Name of the module that the checkpoint belongs to, as its library writes it, such as `layers.16`."""


@dataclass(frozen=True)
class SaeFile:
    """A checkpoint on disk, described by its configuration; its weights are read only when `load` is called."""

    hookpoint: Hookpoint
    """Where the SAE reads."""
    target: Hookpoint
    """Where the vectors are that it reconstructs: elsewhere for a transcoder."""
    module: str
    """Name of the module that the checkpoint belongs to, as its library writes it, such as `layers.16`."""
    activation: str
    """Name of the activation, such as `topk`."""
    k: int | None
    """Most latents that fire on one token; None without such a limit."""
    num_latents: int
    d_model: int
    """Width of the vectors that it reads."""
    digest: str
    """SHA-256 of the weight file."""
    load: "Callable[[], Sae]"
    """Reads the weights.

    Raises:
        CheckpointError: they are damaged.
    """


@dataclass(frozen=True)
class Decoder:
    """Reconstructs vectors from latents, and from the encoded vectors if it has a skip weight."""

    weight: Float[Tensor, "latent d_out"]
    """One row for each latent: its direction."""
    bias: Float[Tensor, "d_out"]
    skip: Float[Tensor, "d_out d_model"] | None = None

    def __call__(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """Reconstruct, in float32."""
        starts = torch.searchsorted(latents.token, torch.arange(len(x), device=latents.token.device))
        total = embedding_bag(latents.latent, self.weight, starts, per_sample_weights=latents.value, mode="sum")
        total = total + self.bias
        return total if self.skip is None else total + x.float() @ self.skip.T


@dataclass(frozen=True)
class Sae:
    """A sparse autoencoder or transcoder. Activations have the scale of the SAE's own library."""

    digest: str
    """SHA-256 of the weight file."""
    d_model: int
    """Width of the vectors that it reads."""
    steps: tuple[Step, ...]
    """From a vector to its pre-activations; if one normalises, it is the first."""
    activation: Activation
    decoder: Decoder

    @property
    def num_latents(self) -> int:
        """Number of latents, dead ones included."""
        return self.decoder.weight.shape[0]

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self.decoder.weight.device

    def to(self, device: torch.device) -> "Sae":
        """Copy the SAE with its tensors on another device."""
        return replace(
            self,
            steps=tuple(_moved(step, device) for step in self.steps),
            activation=_moved(self.activation, device),
            decoder=_moved(self.decoder, device),
        )

    def decoder_norms(self) -> Float[Tensor, "latent"]:
        """Euclidean norm of each decoder row."""
        return self.decoder.weight.norm(dim=1)

    def encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """Encode vectors into latent activations, in float32 whatever the type of the input."""
        size = max(1, MAX_DENSE_ELEMENTS // self.num_latents)
        pieces = [self._encode(piece) for piece in x.split(size)]
        if len(pieces) == 1:
            return pieces[0]
        token, latent, value = zip(*pieces, strict=True)
        token = [piece + number * size for number, piece in enumerate(token)]
        return SparseLatents(torch.cat(token), torch.cat(latent), torch.cat(value))

    def _encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        for step in self.steps:
            x = step(x)
        return self.activation(x)

    def decode(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """Reconstruct the target's vectors in float32.

        Args:
            latents: the latents of each token.
            x: the vectors that were encoded.
        """
        reconstruction = self.decoder(latents, x)
        for step in self.steps:
            if isinstance(step, Normalise):
                reconstruction = step.undo(reconstruction, x)
        return reconstruction


def _moved(part: Part, device: torch.device) -> Part:
    """Copy a part of an SAE with its tensors on another device."""
    assert is_dataclass(part)
    assert not isinstance(part, type)
    tensors: dict[str, Any] = {
        field.name: value.to(device) for field in fields(part) if isinstance(value := getattr(part, field.name), Tensor)
    }
    return replace(part, **tensors)
