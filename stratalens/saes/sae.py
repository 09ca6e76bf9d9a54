"""Sparse autoencoders in evaluation: residual stream in, sparse latents out, as the SAE's own library encodes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag, linear

DENSE_ELEMENTS = 64_000_000
"""At most this many dense pre-activations exist at once; wider inputs are encoded in pieces."""


class SparseLatents(NamedTuple):
    """The latents that may fire on each token. A value of 0 means that the slot did not fire."""

    values: Float[Tensor, "token slot"]
    indices: Int[Tensor, "token slot"]


@contextmanager
def _bfloat16_products() -> Iterator[None]:
    """Let float32 products use bfloat16 (cpu) or TF32 (cuda) units, with float32 sums.

    Both formats hold every bfloat16 number, so nothing is lost where both factors are bfloat16 numbers.
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
    """A checkpoint on disk whose weights are loaded only while a layer is worked on."""

    hookpoint: str
    activation: str
    k: int
    num_latents: int
    d_model: int
    reads_input: bool
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

    Activations keep the scale of the SAE's own library.
    """

    hookpoint: str
    """Module name relative to the base model, such as `layers.16`."""
    activation: Literal["topk", "groupmax"]
    k: int
    """Most latents that fire on one token."""
    reads_input: bool
    """True for a transcoder: it reads the module's input and rebuilds the module's output."""
    digest: str
    """SHA-256 of the weight file."""
    encoder_weight: Float[Tensor, "latent d_model"]
    encoder_bias: Float[Tensor, "latent"]
    decoder_weight: Float[Tensor, "latent d_model"]
    decoder_bias: Float[Tensor, "d_model"]
    skip_weight: Float[Tensor, "d_model d_model"] | None
    bfloat16_weights: bool
    """True when bfloat16 holds the encoder weights exactly: then products with bfloat16 input lose nothing in it."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.encoder_weight.shape[1]

    @property
    def num_latents(self) -> int:
        """Number of latents, dead ones included."""
        return self.encoder_weight.shape[0]

    def to(self, device: torch.device) -> "Sae":
        """The same SAE on another device."""
        tensors = {f.name: value.to(device) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}
        return replace(self, **tensors)

    def decoder_norms(self) -> Float[Tensor, "latent"]:
        """Euclidean norm of each decoder row."""
        return self.decoder_weight.norm(dim=1)

    def encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """Latent activations of residual-stream vectors, in float32 whatever the input's type."""
        pieces = [self._encode(piece) for piece in x.split(max(1, DENSE_ELEMENTS // self.num_latents))]
        if len(pieces) == 1:
            return pieces[0]
        return SparseLatents(torch.cat([p.values for p in pieces]), torch.cat([p.indices for p in pieces]))

    def _encode(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        if self.bfloat16_weights and x.dtype == torch.bfloat16:
            with _bfloat16_products():
                pre = linear(x.float(), self.encoder_weight, self.encoder_bias)
        else:
            pre = linear(x.float(), self.encoder_weight, self.encoder_bias)
        if self.activation == "topk":  # ReLU keeps the order, so it may as well come after the selection
            values, indices = pre.topk(self.k, dim=-1, sorted=False)
            return SparseLatents(values.relu_(), indices)
        values, within = pre.unflatten(-1, (self.k, -1)).max(dim=-1)
        firsts = torch.arange(0, self.num_latents, self.num_latents // self.k, device=x.device)
        return SparseLatents(values.relu_(), within + firsts)

    def decode(self, latents: SparseLatents, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Rebuild the hookpoint from latents (and from the input itself where there is a skip connection)."""
        rebuilt = embedding_bag(latents.indices, self.decoder_weight, per_sample_weights=latents.values, mode="sum")
        rebuilt = rebuilt + self.decoder_bias
        return rebuilt if self.skip_weight is None else rebuilt + x.float() @ self.skip_weight.T
