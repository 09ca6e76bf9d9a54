"""The steps of an encoder, and the activation that picks the latents that fire."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.saes.products import float32_product
from stratalens.saes.weights import is_bfloat16, row_blocks

MAX_PARTITION_WIDTH = 2**14
"""Rows up to this width are partitioned by NumPy."""


class SparseLatents(NamedTuple):
    """The latents that fire, one entry for each token and latent, in the order of tokens."""

    token: Int[Tensor, "entry"]
    """Index of the token among those encoded, never falling."""
    latent: Int[Tensor, "entry"]
    value: Float[Tensor, "entry"]
    """Activation, above 0."""


@runtime_checkable
class Step(Protocol):
    """One step of an encoder: vectors in, vectors or pre-activations out, `[token, _]`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the step; the first one gets vectors in the type of the model."""
        ...

    def only(self, latents: Int[Tensor, "column"]) -> "Step":
        """The step for some latents; the same one where it comes before there are any."""
        ...


@runtime_checkable
class Activation(Protocol):
    """The last step of an encoder: which latents fire on each token."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        ...

    def only(self, latents: Int[Tensor, "column"]) -> "Activation | None":
        """The activation for some latents; None where it must see all of them."""
        ...


@dataclass(frozen=True)
class Normalise:
    """Bring every vector to the same scale, and what is reconstructed from it back to its own.

    SAELens calls this `layer_norm`, or `constant_norm_rescale` without a centre.
    """

    centred: bool
    """Whether the mean over components is subtracted and the vector divided by their standard deviation + 1e-5; else
    it is only divided, by the root of its mean square."""

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Apply the step."""
        mean, scale = self._mean_and_scale(x.float())
        return (x.float() - mean) / scale

    def only(self, latents: Int[Tensor, "column"]) -> "Normalise":
        """See `Step`."""
        return self

    def undo(
        self, reconstruction: Float[Tensor, "token d_model"], x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_model"]:
        """Bring reconstructions to the scale of the vectors x that were encoded."""
        mean, scale = self._mean_and_scale(x.float())
        return reconstruction * scale + mean

    def _mean_and_scale(self, x: Float[Tensor, "token d_model"]) -> tuple[Tensor, Tensor]:
        if self.centred:
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True) + 1e-5
        return torch.zeros((len(x), 1), device=x.device), x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5


@dataclass(frozen=True)
class Subtract:
    """Subtract the same vector from every vector, in float32."""

    vector: Float[Tensor, "d_model"]

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Apply the step."""
        return x.float() - self.vector

    def only(self, latents: Int[Tensor, "column"]) -> "Subtract":
        """See `Step`."""
        return self


@dataclass(frozen=True)
class Linear:
    """Pre-activations: a matrix product in float32 whatever the type of the input, plus a bias."""

    weight: Float[Tensor, "latent d_model"]
    """In float32; or, of a wide SAE, in bfloat16 where that loses nothing: the product has the same bits."""
    bias: Float[Tensor, "latent"]
    bfloat16_weights: bool
    """True if bfloat16 represents the weights exactly; products with bfloat16 input then lose no precision."""

    @classmethod
    def of(cls, weight: Float[Tensor, "latent d_model"], bias: Float[Tensor, "latent"]) -> "Linear":
        """Look at weights whether bfloat16 represents them."""
        return cls(weight, bias, all(map(is_bfloat16, row_blocks(weight))))

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """Apply the step."""
        are_bfloat16 = self.bfloat16_weights and x.dtype == torch.bfloat16
        if self.weight.dtype == torch.bfloat16:
            return self._by_blocks(x.float(), are_bfloat16)
        return float32_product(x.float(), self.weight, self.bias, are_bfloat16=are_bfloat16)

    def _by_blocks(self, x: Float[Tensor, "token d_model"], are_bfloat16: bool) -> Float[Tensor, "token latent"]:
        """The same, with a few weights at a time in float32: there is no product of bfloat16 with a float32 result."""
        pre = torch.empty(len(x), len(self.bias), device=x.device)
        blocks = row_blocks(self.weight)
        places = zip(blocks, self.bias.split(len(blocks[0])), pre.split(len(blocks[0]), dim=1), strict=True)
        for rows, bias, place in places:
            place.copy_(float32_product(x, rows.float(), bias, are_bfloat16=are_bfloat16))
        return pre

    def only(self, latents: Int[Tensor, "column"]) -> "Linear":
        """See `Step`."""
        return Linear(self.weight[latents], self.bias[latents], self.bfloat16_weights)


@dataclass(frozen=True)
class Scale:
    """Multiply every pre-activation by the factor of its latent."""

    factor: Float[Tensor, "latent"]

    def __call__(self, x: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Apply the step."""
        return x * self.factor

    def only(self, latents: Int[Tensor, "column"]) -> "Scale":
        """See `Step`."""
        return Scale(self.factor[latents])


@dataclass(frozen=True)
class TopK:
    """ReLU of the k largest pre-activations of each token; fewer fire where fewer are positive."""

    k: int

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        return positive(*largest(pre, self.k))  # ReLU keeps the order, so it may come afterwards

    def only(self, latents: Int[Tensor, "column"]) -> None:
        """See `Activation`: whether a latent is among the k largest depends on all."""


@dataclass(frozen=True)
class GroupMax:
    """ReLU of the largest pre-activation in each of k groups of neighbouring latents."""

    k: int

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        width = pre.shape[1]
        values, in_group = pre.unflatten(-1, (self.k, -1)).max(dim=-1)
        return positive(values, in_group + torch.arange(0, width, width // self.k, device=pre.device))

    def only(self, latents: Int[Tensor, "column"]) -> None:
        """See `Activation`: whether a latent is the largest of its group depends on the others."""


@dataclass(frozen=True)
class Threshold:
    """Pre-activations above a threshold: JumpReLU, and ReLU where it is 0 (Rajamanoharan et al. 2024)."""

    threshold: Float[Tensor, "latent"]
    """At least 0."""
    numbers: Int[Tensor, "latent"] | None = None
    """Number of the latent in each column, where there are columns for some only."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        found = pick(pre, pre > self.threshold)
        return found if self.numbers is None else found._replace(latent=self.numbers[found.latent])

    def only(self, latents: Int[Tensor, "column"]) -> "Threshold":
        """See `Activation`: each latent fires by itself."""
        return Threshold(self.threshold[latents], latents)


def largest(pre: Float[Tensor, "token latent"], k: int) -> tuple[Float[Tensor, "token k"], Int[Tensor, "token k"]]:
    """The k largest pre-activations of each token, in no order, and their latents.

    On the CPU NumPy finds them in half the time of PyTorch, except in wide rows.
    """
    width = pre.shape[1]
    if pre.device.type != "cpu" or width > MAX_PARTITION_WIDTH:
        return pre.topk(k, dim=-1, sorted=False)
    latents = torch.from_numpy(np.argpartition(pre.numpy(), width - k, axis=1)[:, width - k :])
    return pre.gather(1, latents), latents


def pick(values: Float[Tensor, "token latent"], fires: Bool[Tensor, "token latent"]) -> SparseLatents:
    """The latents that fire, with their values."""
    token, latent = fires.nonzero(as_tuple=True)
    return SparseLatents(token, latent, values[fires])


def positive(values: Float[Tensor, "token slot"], latents: Int[Tensor, "token slot"]) -> SparseLatents:
    """Those of the chosen latents whose values are positive."""
    fires = values > 0
    return SparseLatents(fires.nonzero()[:, 0], latents[fires], values[fires])
