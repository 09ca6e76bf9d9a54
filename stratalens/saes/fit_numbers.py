"""How well an SAE reconstructs the vectors at a hookpoint: sums over batches, and the numbers made of them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stratalens.hookpoint import Hookpoint

DENSE_SHARE = 0.1
"""A latent that fires on more than this share of the tokens of a check is dense. (That of a reported feature, among
its flags, is told by a larger share: it limits what the feature can mean, this one how sparse the SAE is.)"""

MIN_VARIANCE_SHARE = 1e-9
"""Reconstructions whose variance is at most this share of that of the vectors are all the same, but for rounding."""


@dataclass(frozen=True)
class HookpointFit:
    """How well an SAE reconstructs one hookpoint."""

    hookpoint: str
    """Module whose input or output is reconstructed."""
    fvu: float
    """Fraction of variance unexplained."""
    mean_error_share: float
    """Squared error due to the mean error, as a fraction of variance: n |mean(x - x_hat)|^2 / sum |x - mean(x)|^2."""
    l0: float
    """Mean number of latents that fire on a token."""
    reads: str = ""
    """Name of the hookpoint that is encoded, such as `16_mlp`."""
    reconstructs: str = ""
    """Name of the hookpoint that is reconstructed."""
    place: str = ""
    """The two in words."""
    tokens: int = 0
    """That were measured."""
    best_scale: float = 1.0
    """What reconstructions, without their mean, would have to be multiplied by to come nearest to the vectors, by least
    squares: cov(x, x_hat) / var(x_hat), near 1 where a training ended; 0 where all reconstructions are the same."""

    @property
    def explained_variance(self) -> float:
        """Share of the variance that is explained, the error's mean left out: 1 - sum |e - mean(e)|^2 / variance."""
        return 1 - self.fvu + self.mean_error_share


@dataclass(frozen=True)
class LatentUse:
    """Which latents an SAE uses at its hookpoint, and the norms of its decoder rows."""

    latents: int
    dead_share: float
    """Share of the latents that fired on no token that was measured."""
    dense_share: float
    """Share of the latents that fired on more than `DENSE_SHARE` of them."""
    smallest_decoder_norm: float
    median_decoder_norm: float
    largest_decoder_norm: float

    @classmethod
    def of(cls, fired: Int[Tensor, "latent"], tokens: int, decoder_norms: Float[Tensor, "latent"]) -> "LatentUse":
        """Summarise on how many tokens each latent fired."""
        return cls(
            latents=len(fired),
            dead_share=float((fired == 0).double().mean()),
            dense_share=float((fired > DENSE_SHARE * tokens).double().mean()),
            smallest_decoder_norm=float(decoder_norms.min()),
            median_decoder_norm=float(decoder_norms.median()),
            largest_decoder_norm=float(decoder_norms.max()),
        )


class FitSums(NamedTuple):
    """Sums over tokens, for one SAE at one hookpoint."""

    tokens: int
    fired: int
    """Latents that fired, of all tokens."""
    squared_error: float
    squared_target: float
    error: Float[Tensor, "width"]
    target: Float[Tensor, "width"]
    error_times_target: float

    @classmethod
    def of(cls, target: Float[Tensor, "token width"], reconstruction: Float[Tensor, "token width"], fired: int):
        """Sum over the tokens of a batch, in float64 where the device has it."""
        sum_dtype = torch.float32 if target.device.type == "mps" else torch.float64
        error, target = (target - reconstruction).to(sum_dtype), target.to(sum_dtype)
        squares = float(error.pow(2).sum()), float(target.pow(2).sum())
        return cls(len(target), fired, *squares, error.sum(0), target.sum(0), float((error * target).sum()))

    def plus(self, other: "FitSums") -> "FitSums":
        """The sums over the tokens of both."""
        return FitSums(
            self.tokens + other.tokens,
            self.fired + other.fired,
            self.squared_error + other.squared_error,
            self.squared_target + other.squared_target,
            self.error + other.error,
            self.target + other.target,
            self.error_times_target + other.error_times_target,
        )

    def fit(self, module: str, reads: Hookpoint, reconstructs: Hookpoint, place: str) -> HookpointFit | None:
        """The fit at a hookpoint; None where no vector is finite, or all are the same."""
        variance = self.squared_target - float(self.target.pow(2).sum()) / max(1, self.tokens)
        if not 0 < variance < math.inf:
            return None
        return HookpointFit(
            hookpoint=module,
            fvu=self.squared_error / variance,
            mean_error_share=float(self.error.pow(2).sum()) / self.tokens / variance,
            l0=self.fired / self.tokens,
            reads=str(reads),
            reconstructs=str(reconstructs),
            place=place,
            tokens=self.tokens,
            best_scale=self._best_scale(variance),
        )

    def _best_scale(self, variance: float) -> float:
        """Of x_hat = x - e: (var(x) - cov(x, e)) / (var(x) - 2 cov(x, e) + var(e))."""
        error_variance = self.squared_error - float(self.error.pow(2).sum()) / self.tokens
        covariance = self.error_times_target - float((self.error * self.target).sum()) / self.tokens
        reconstructed = variance - 2 * covariance + error_variance
        return (variance - covariance) / reconstructed if reconstructed > MIN_VARIANCE_SHARE * variance else 0.0
