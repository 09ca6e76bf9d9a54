"""Activations: the last step of an encoder, which picks the latents that fire."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
class Activation(Protocol):
    """The last step of an encoder: which latents fire on each token."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        ...

    def only(self, latents: Int[Tensor, "column"]) -> "Activation | None":
        """The activation for some latents; None where it must see all of them."""
        ...


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

    @classmethod
    def of(cls, threshold: Float[Tensor, "latent"]) -> "Threshold":
        """The activation relu(h) where h > threshold; below 0 a threshold changes nothing, since ReLU gives 0 there."""
        return cls(threshold.float().clamp(min=0))

    @classmethod
    def relu(cls, num_latents: int) -> "Threshold":
        """ReLU."""
        return cls(torch.zeros(num_latents))

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        found = pick(pre, pre > self.threshold)
        return found if self.numbers is None else found._replace(latent=self.numbers[found.latent])

    def only(self, latents: Int[Tensor, "column"]) -> "Threshold":
        """See `Activation`: each latent fires by itself."""
        return Threshold(self.threshold[latents], latents)


@dataclass(frozen=True)
class Gated:
    """A gate decides which latents fire, and a magnitude how strongly (Rajamanoharan et al. 2024, "Gated").

    Gate and magnitude share one product p without bias: a latent with p + gate_bias > 0 has the value
    relu(p * scale + magnitude_bias).
    """

    gate_bias: Float[Tensor, "latent"]
    scale: Float[Tensor, "latent"]
    """exp(r_mag)."""
    magnitude_bias: Float[Tensor, "latent"]
    numbers: Int[Tensor, "latent"] | None = None
    """Number of the latent in each column, where there are columns for some only."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        values = pre * self.scale + self.magnitude_bias
        found = pick(values, (pre + self.gate_bias > 0) & (values > 0))
        return found if self.numbers is None else found._replace(latent=self.numbers[found.latent])

    def only(self, latents: Int[Tensor, "column"]) -> "Gated":
        """See `Activation`: each latent fires by itself."""
        parts = (self.gate_bias[latents], self.scale[latents], self.magnitude_bias[latents])
        return Gated(*parts, latents)


@dataclass(frozen=True)
class Divided:
    """Another activation, whose values are divided by a factor of their latent.

    After a `Scale` of the same factor, latents compete by their scaled values and keep their own.
    """

    inner: Activation
    factor: Float[Tensor, "all_latents"]
    """Above 0, of all latents, whatever the inner activation has columns for."""

    def __call__(self, pre: Float[Tensor, "token latent"]) -> SparseLatents:
        """Pick the latents that fire."""
        found = self.inner(pre)
        return found._replace(value=found.value / self.factor[found.latent])

    def only(self, latents: Int[Tensor, "column"]) -> "Divided | None":
        """See `Activation`."""
        inner = self.inner.only(latents)
        return None if inner is None else Divided(inner, self.factor)


def is_relu(activation: Activation) -> bool:
    """Whether an activation is a ReLU: a threshold of 0 for every latent."""
    return isinstance(activation, Threshold) and not bool(activation.threshold.any())


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
