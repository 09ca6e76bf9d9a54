"""Sparse autoencoders: encode vectors into sparse latents as the SAE's own library does, and decode."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from stratalens.config.sae_activation import SaeActivation
from stratalens.hookpoint import Hookpoint
from stratalens.saes.activations import Activation, SparseLatents
from stratalens.saes.cuda_steps import SplitLinear, activation_on, step_on
from stratalens.saes.steps import Centre, GluLinear, Linear, Normalise, Rescale, Step
from stratalens.saes.weights import WIDE_ELEMENTS, row_norms

MAX_DENSE_ELEMENTS = 64_000_000
"""At most this many dense pre-activations are in memory at once; larger inputs are encoded in pieces."""
MAX_DENSE_ON_CUDA = 512_000_000
"""The same on cuda, where every piece costs several waits for the device."""

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
    name: str = ""
    """Path within the folder that the user named, by which one of several at the same hookpoint is chosen."""
    l0: float | None = None
    """Mean number of latents on a token that its name or configuration declares; None if neither does."""
    told: SaeActivation | None = None
    """What the user says of its activation."""
    without_mean: bool = False
    """Whether it was made for vectors whose components have the mean 0, unlike those of the model."""


@dataclass(frozen=True)
class Encoder:
    """From vectors to sparse latents. Activations have the scale of the SAE's own library."""

    d_model: int
    """Width of the vectors that it reads."""
    steps: tuple[Step, ...]
    """From a vector to its pre-activations; if one normalises, it is the first."""
    activation: Activation

    @property
    def num_latents(self) -> int:
        """Number of latents that it computes, dead ones included."""
        return len(self._linear.bias)

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        return self._linear.bias.device

    @property
    def _linear(self) -> Linear | SplitLinear | GluLinear:
        return next(step for step in self.steps if isinstance(step, Linear | SplitLinear | GluLinear))

    def encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """Encode vectors into latent activations, in float32 whatever the type of the input."""
        size = max(1, max_dense_elements(self.device) // max(1, self.num_latents))
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

    def only(self, latents: Int[Tensor, "column"]) -> "Encoder":
        """The encoder of some latents, under their own numbers; of all where the activation must see all.

        Values agree within the rounding of a float32 sum, whose order may be another in a narrower product.

        Args:
            latents: different ones, on the device of the encoder.
        """
        activation = self.activation.only(latents)
        if activation is None:
            return self
        return Encoder(self.d_model, tuple(step.only(latents) for step in self.steps), activation)

    def on(self, device: torch.device) -> "Encoder":
        """Copy the encoder with its tensors on another device, in the form that is fast there."""
        steps = tuple(_moved(step, device) for step in self.steps)
        return Encoder(self.d_model, steps, _moved(self.activation, device))


@dataclass(frozen=True)
class Decoder:
    """Reconstructs vectors from latents, and from the encoded vectors if it has a skip weight.

    It stays on the host, wherever the vectors are: few of its rows are ever used, and only these are copied.
    """

    weight: Float[Tensor, "latent d_out"]
    """One row for each latent: its direction; of any floating-point type, and perhaps mapped from a file."""
    bias: Float[Tensor, "d_out"]
    skip: Float[Tensor, "d_out d_model"] | None = None
    scale: Float[Tensor, "latent"] | None = None
    """Factor of each row: undoes what scaled the latents; None where the rows are as they are."""

    def __call__(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """Reconstruct, in float32."""
        used, row = latents.latent.unique(return_inverse=True)
        rows = self.rows(used.to(self.weight.device), x.device)
        starts = torch.searchsorted(latents.token, torch.arange(len(x), device=latents.token.device))
        total = embedding_bag(row, rows, starts, per_sample_weights=latents.value, mode="sum")
        total = total + self.bias.to(x.device)
        return total if self.skip is None else total + x.float() @ self.skip.to(x.device).T

    def rows(self, latents: Int[Tensor, "row"], device: torch.device) -> Float[Tensor, "row d_out"]:
        """What one unit of each of some latents adds to a reconstruction, in float32 on a device."""
        rows = self.weight[latents].to(device, torch.float32)
        return rows if self.scale is None else rows * self.scale[latents].to(device)[:, None]

    def norms(self) -> Float[Tensor, "latent"]:
        """Euclidean norm of what one unit of each latent adds to a reconstruction."""
        norms = row_norms(self.weight)
        return norms if self.scale is None else norms * self.scale.abs()


@dataclass(frozen=True)
class Sae(Encoder):
    """A sparse autoencoder or transcoder."""

    decoder: Decoder

    @property
    def encoder(self) -> Encoder:
        """What encodes, alone."""
        return Encoder(self.d_model, self.steps, self.activation)

    def on(self, device: torch.device) -> "Sae":
        """Copy the SAE with the tensors of its encoder on another device."""
        moved = self.encoder.on(device)
        return Sae(self.d_model, moved.steps, moved.activation, self.decoder)

    def decode(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """Reconstruct the target's vectors in float32.

        Args:
            latents: the latents of each token.
            x: the vectors that were encoded.
        """
        reconstruction, read = self.decoder(latents, x), x
        undone = list[tuple[Normalise | Rescale | Centre, Tensor]]()
        for step in self.steps:
            if isinstance(step, Normalise | Rescale | Centre):
                undone.append((step, read))
                read = step(read)
        for step, vectors in reversed(undone):
            reconstruction = step.undo(reconstruction, vectors)
        return reconstruction


@dataclass(frozen=True)
class SaeFile:
    """A checkpoint on disk, described by its configuration; its weights are read only when they are asked for."""

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
    """SHA-256 of the weight file, and of what in its configuration changes the latents."""
    load: Callable[[], Sae]
    """Reads the weights.

    Raises:
        CheckpointError: they are damaged.
    """
    load_encoder: Callable[[], Encoder] | None = None
    """Reads the encoder alone; None for a format that cannot."""
    load_decoder: Callable[[], Decoder] | None = None
    """Reads the decoder alone; None for a format that cannot."""
    bfloat16_encoder: bool = False
    """Whether the file has the weights of the encoder in bfloat16."""
    products: int = 1
    """Matrices of the encoder: two where one product gates another."""
    l0: float | None = None
    """Mean number of latents on a token that its name or configuration declares; None if neither does."""
    name: str = ""
    """Path within the folder or repository that the user named."""
    commit: str = ""
    """Of the Hub repository that it comes from."""
    warning: str = ""
    """What limits the meaning of its latents, in one line; empty for nothing."""

    @property
    def encoder_bytes(self) -> int:
        """Memory of the weights of the encoder."""
        elements = self.products * self.num_latents * self.d_model
        return elements * (2 if self.bfloat16_encoder and elements >= WIDE_ELEMENTS else 4)

    def encoder(self) -> Encoder:
        """Read what encodes.

        Raises:
            CheckpointError: it is damaged.
        """
        return self.load().encoder if self.load_encoder is None else self.load_encoder()

    def decoder(self) -> Decoder:
        """Read what reconstructs.

        Raises:
            CheckpointError: it is damaged.
        """
        return self.load().decoder if self.load_decoder is None else self.load_decoder()


def max_dense_elements(device: torch.device) -> int:
    """Most dense pre-activations that are in memory at once on a device."""
    return MAX_DENSE_ON_CUDA if device.type == "cuda" else MAX_DENSE_ELEMENTS


def _moved(part: Part, device: torch.device) -> Part:
    """Copy a part of an encoder, and the parts in it, with its tensors on another device, in the form for that."""
    there: Any = step_on(part, device) or activation_on(part, device)
    if there is not None:
        return there
    assert is_dataclass(part)
    assert not isinstance(part, type)
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    moved: dict[str, Any] = {
        name: value.to(device) if isinstance(value, Tensor) else _moved(value, device)
        for name, value in values.items()
        if isinstance(value, Tensor) or is_dataclass(value)
    }
    return replace(part, **moved)
