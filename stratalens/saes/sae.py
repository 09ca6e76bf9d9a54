"""Sparse autoencoders: encode residual-stream vectors into sparse latents as the SAE's own library does, and decode."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

MAX_DENSE_ELEMENTS = 64_000_000
"""At most this many dense pre-activations are in memory at once; larger inputs are encoded in pieces."""


class SparseLatents(NamedTuple):
    """The activations of the latents that may fire on each token, k slots per token."""

    values: Float[Tensor, "token slot"]
    """Activation of the latent in each slot; 0 if it does not fire."""
    indices: Int[Tensor, "token slot"]
    """Latent in each slot."""


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """While open, allow float32 matrix products to use bfloat16 (cpu) or TF32 (cuda) units, with float32 sums.

    Both formats represent every bfloat16 number exactly, so products of two bfloat16 numbers lose no precision.
    """
    cpu = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    cuda = torch.backends.cuda.matmul
    before = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision, cuda.fp32_precision = "bf16", "tf32"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = before


@dataclass(frozen=True)
class SaeFile:
    """A checkpoint on disk, described by its configuration; its weights are read only when `load` is called."""

    hookpoint: str
    """Module name relative to the base model, such as `layers.16`."""
    activation: str
    """`topk` or `groupmax`."""
    k: int
    """Most latents that fire on one token."""
    num_latents: int
    d_model: int
    reads_input: bool
    """True for a transcoder: see `Sae.reads_input`."""
    digest: str
    """SHA-256 of the weight file."""
    load: "Callable[[], Sae]"
    """Reads the weights.

    Raises:
        CheckpointError: they are damaged.
    """


@dataclass(frozen=True)
class Sae:
    """A TopK or groupmax sparse autoencoder or transcoder; `b_dec` is folded into the encoder bias in float64.

    Activations have the scale of the SAE's own library.
    """

    hookpoint: str
    """Module name relative to the base model, such as `layers.16`."""
    activation: Literal["topk", "groupmax"]
    k: int
    """Most latents that fire on one token."""
    reads_input: bool
    """True for a transcoder: it reads the module's input and reconstructs the module's output."""
    digest: str
    """SHA-256 of the weight file."""
    encoder_weight: Float[Tensor, "latent d_model"]
    encoder_bias: Float[Tensor, "latent"]
    decoder_weight: Float[Tensor, "latent d_model"]
    decoder_bias: Float[Tensor, "d_model"]
    skip_weight: Float[Tensor, "d_model d_model"] | None
    bfloat16_weights: bool
    """True if bfloat16 represents the encoder weights exactly; products with bfloat16 input then lose no precision."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.encoder_weight.shape[1]

    @property
    def num_latents(self) -> int:
        """Number of latents, dead ones included."""
        return self.encoder_weight.shape[0]

    def to(self, device: torch.device) -> "Sae":
        """Copy the SAE with its tensors on another device."""
        tensors = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **tensors)

    def decoder_norms(self) -> Float[Tensor, "latent"]:
        """Euclidean norm of each decoder row."""
        return self.decoder_weight.norm(dim=1)

    def encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """Encode residual-stream vectors into latent activations, in float32 whatever the type of the input."""
        pieces = [self._encode(piece) for piece in x.split(max(1, MAX_DENSE_ELEMENTS // self.num_latents))]
        if len(pieces) == 1:
            return pieces[0]
        return SparseLatents(torch.cat([p.values for p in pieces]), torch.cat([p.indices for p in pieces]))

    def _encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        if self.bfloat16_weights and x.dtype == torch.bfloat16:
            with _bfloat16_products():
                pre = linear(x.float(), self.encoder_weight, self.encoder_bias)
        else:
            pre = linear(x.float(), self.encoder_weight, self.encoder_bias)
        if self.activation == "topk":  # ReLU keeps the order, so it may come after the selection
            values, indices = pre.topk(self.k, dim=-1, sorted=False)
            return SparseLatents(values.relu_(), indices)
        values, index_in_group = pre.unflatten(-1, (self.k, -1)).max(dim=-1)
        group_starts = torch.arange(0, self.num_latents, self.num_latents // self.k, device=x.device)
        return SparseLatents(values.relu_(), index_in_group + group_starts)

    def decode(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Reconstruct the hookpoint's vectors in float32 from latents, and from the input if the SAE has a skip weight.

        Args:
            latents: the latents of each token.
            x: the vectors that were encoded.
        """
        reconstruction = embedding_bag(
            latents.indices, self.decoder_weight, per_sample_weights=latents.values, mode="sum"
        )
        reconstruction = reconstruction + self.decoder_bias
        return reconstruction if self.skip_weight is None else reconstruction + x.float() @ self.skip_weight.T
