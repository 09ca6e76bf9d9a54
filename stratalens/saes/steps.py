"""The steps of an encoder, from a vector to its pre-activations."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratalens.saes.products import float32_product
from stratalens.saes.weights import is_bfloat16, row_blocks

EPSILON = 1e-5
"""What SAELens adds to a standard deviation."""


@runtime_checkable
class Step(Protocol):
    """One step of an encoder: vectors in, vectors or pre-activations out, `[token, _]`."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the step; the first one gets vectors in the type of the model."""
        ...

    def only(self, latents: Int[Tensor, "column"]) -> "Step":
        """The step for some latents; the same one where it comes before there are any."""
        ...


@dataclass(frozen=True)
class Normalise:
    """Bring every vector to the same scale, and what is reconstructed from it back to its own.

    SAELens calls this `layer_norm`, or `constant_norm_rescale` without a centre.
    """

    centred: bool
    """Whether the mean over components is subtracted and the vector divided by their standard deviation + 1e-5; else
    it is only divided, by the root of its mean square."""
    undone: bool = True
    """Whether what is reconstructed is brought back: not by a transcoder, whose target has a scale of its own."""

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Apply the step."""
        mean, scale = self._mean_and_scale(x.float())
        return (x.float() - mean) / scale

    def only(self, latents: Int[Tensor, "column"]) -> "Normalise":
        """See `Step`."""
        return self

    def undo(
        self, reconstruction: Float[Tensor, "token d_out"], x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_out"]:
        """Bring reconstructions to the scale of the vectors x that were encoded, as SAELens does: without the 1e-5."""
        if not self.undone:
            return reconstruction
        return reconstruction * self.undo_scale(x) + self._mean_and_scale(x.float())[0]

    def undo_scale(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token 1"]:
        """What `undo` multiplies a reconstruction by."""
        scale = self._mean_and_scale(x.float())[1]
        return torch.ones_like(scale) if not self.undone else scale - EPSILON if self.centred else scale

    def _mean_and_scale(self, x: Float[Tensor, "token d_model"]) -> tuple[Tensor, Tensor]:
        if self.centred:
            return x.mean(-1, keepdim=True), x.std(-1, keepdim=True) + EPSILON
        scale = x.norm(dim=-1, keepdim=True) / x.shape[-1] ** 0.5
        return torch.zeros((len(x), 1), device=x.device), scale.clamp(min=torch.finfo(torch.float32).tiny)


@dataclass(frozen=True)
class Centre:
    """Subtract from every vector the mean of its components, and add it to what is reconstructed.

    A model with LayerNorms gives the same with or without this mean. TransformerLens' `center_writing_weights` takes
    it out of the residual stream, and SAEs that were trained on that never saw it.
    """

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Apply the step."""
        return x.float() - x.float().mean(-1, keepdim=True)

    def only(self, latents: Int[Tensor, "column"]) -> "Centre":
        """See `Step`."""
        return self

    def undo(
        self, reconstruction: Float[Tensor, "token d_out"], x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_out"]:
        """Give reconstructions the mean of the vectors x that were encoded."""
        return reconstruction + x.float().mean(-1, keepdim=True)

    def undo_scale(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token 1"]:
        """What `undo` multiplies a reconstruction by: 1."""
        return torch.ones(len(x), 1, device=x.device)


@dataclass(frozen=True)
class Rescale:
    """Multiply every vector by the same number, and what is reconstructed by another one."""

    factor: float
    back: float
    """1 / factor where the SAE reconstructs what it reads."""

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """Apply the step."""
        return x.float() * self.factor

    def only(self, latents: Int[Tensor, "column"]) -> "Rescale":
        """See `Step`."""
        return self

    def undo(
        self, reconstruction: Float[Tensor, "token d_out"], x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_out"]:
        """Bring reconstructions to the scale of the vectors that the SAE reconstructs."""
        return reconstruction * self.back

    def undo_scale(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token 1"]:
        """What `undo` multiplies a reconstruction by."""
        return torch.full((len(x), 1), self.back, device=x.device)


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
class GluLinear:
    """A product times the sigmoid of another one (Llamascopium's `use_glu_encoder`)."""

    linear: Step
    """A `Linear`, or its form for a device."""
    gate: Step

    @property
    def bias(self) -> Float[Tensor, "latent"]:
        """Of the product that is not the gate."""
        return getattr(self.linear, "bias")  # noqa: B009

    def __call__(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """Apply the step."""
        return self.linear(x) * torch.sigmoid(self.gate(x))

    def only(self, latents: Int[Tensor, "column"]) -> "GluLinear":
        """See `Step`."""
        return GluLinear(self.linear.only(latents), self.gate.only(latents))


@dataclass(frozen=True)
class Scale:
    """Multiply every pre-activation by the factor of its latent.

    The latents then have that scale; a decoder that is to undo it has the reciprocals as its `scale`.
    """

    factor: Float[Tensor, "latent"]

    def __call__(self, x: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Apply the step."""
        return x * self.factor

    def only(self, latents: Int[Tensor, "column"]) -> "Scale":
        """See `Step`."""
        return Scale(self.factor[latents])
