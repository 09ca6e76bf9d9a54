"""What an ablation removes from the vectors at a hookpoint: what latents contribute, or random directions of its norm.

The SAE's error term stays: x' = x - sum a_f W_f, where W_f is a decoder row in the units of x. A dense latent is set to
its mean on general text in place of 0, since what it adds everywhere works like a bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.files.hashing import hash64
from stratalens.saes.activations import SparseLatents
from stratalens.saes.contributions import contribution, decoder_rows, only_latents
from stratalens.saes.sae import Sae


@dataclass(frozen=True)
class EncodedTokens:
    """The tokens of some passages from which something may be removed."""

    latents: SparseLatents
    scale: Float[Tensor, "token"]
    """What decoder rows are multiplied by, see `saes.contributions.unit_scale`."""
    row: Int[Tensor, "token"]
    """Index of the passage of each token."""
    position: Int[Tensor, "token"]
    """Position of each token in its passage."""


@runtime_checkable
class Ablation(Protocol):
    """Says what is removed from tokens."""

    def removed(self, tokens: EncodedTokens) -> Float[Tensor, "token d_out"]:
        """The vector that is removed from each token, in float32."""
        ...


@dataclass(frozen=True)
class LatentSet:
    """Removes what some latents contribute."""

    sae: Sae
    latents: tuple[int, ...]
    means: Mapping[int, float] = field(default_factory=dict)
    """Latent -> activation that it is set to in place of 0."""

    def removed(self, tokens: EncodedTokens) -> Float[Tensor, "token d_out"]:
        """See `Ablation`."""
        return self._with_rows(tokens, self._rows(tokens.scale.device))

    def _with_rows(self, tokens: EncodedTokens, rows: Float[Tensor, "row d_out"]) -> Float[Tensor, "token d_out"]:
        device = tokens.scale.device
        numbers = torch.tensor(sorted(self.latents), device=device)
        total = contribution(only_latents(tokens.latents, numbers), rows, numbers, len(tokens.scale))
        if self.means:
            kept = torch.tensor([self.means.get(latent, 0.0) for latent in sorted(self.latents)], device=device)
            total = total - kept @ rows
        return total * tokens.scale[:, None]

    def _rows(self, device: torch.device) -> Float[Tensor, "row d_out"]:
        return self._own_rows.to(device)

    @cached_property
    def _own_rows(self) -> Float[Tensor, "row d_out"]:
        return decoder_rows(self.sae, sorted(self.latents), torch.device("cpu"))

    def fires(self, tokens: EncodedTokens) -> Bool[Tensor, "token"]:
        """Tokens from which something is removed."""
        if self.means:
            return torch.ones(len(tokens.scale), dtype=torch.bool, device=tokens.scale.device)
        numbers = torch.tensor(self.latents, device=tokens.scale.device)
        fires = torch.zeros(len(tokens.scale), dtype=torch.bool, device=tokens.scale.device)
        fires[only_latents(tokens.latents, numbers).token] = True
        return fires


@dataclass(frozen=True)
class RandomReplacement:
    """Removes, in place of what a set contributes, vectors of the same norm at each token.

    Every decoder row is replaced by a random direction of its norm, the same at all tokens; the sum is then scaled to
    the norm that the set removes there.
    """

    of: LatentSet
    draw: int
    identity: tuple[int, str]
    """Seed and hookpoint, which give other directions."""

    def removed(self, tokens: EncodedTokens) -> Float[Tensor, "token d_out"]:
        """See `Ablation`."""
        own = torch.linalg.vector_norm(self.of.removed(tokens), dim=-1, keepdim=True)
        random = self.of._with_rows(tokens, self._rows.to(tokens.scale.device))
        norm = torch.linalg.vector_norm(random, dim=-1, keepdim=True)
        return random * (own / norm.clamp(min=torch.finfo(torch.float32).tiny))

    @cached_property
    def _rows(self) -> Float[Tensor, "row d_out"]:
        rows = self.of._own_rows
        directions = torch.stack([self._direction(latent, rows.shape[1]) for latent in sorted(self.of.latents)])
        return directions * torch.linalg.vector_norm(rows, dim=-1, keepdim=True)

    def _direction(self, latent: int, width: int) -> Float[Tensor, "width"]:
        generator = torch.Generator().manual_seed(hash64(*self.identity, "direction", latent, self.draw) >> 1)
        direction = torch.randn(width, generator=generator)
        return direction / torch.linalg.vector_norm(direction)
