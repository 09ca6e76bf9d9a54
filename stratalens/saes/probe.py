"""Read the vectors at the hookpoint of an SAE, and decide which positions count."""

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.saes.sae import Encoder

Own = TypeVar("Own", bound=Encoder, covariant=True)


@dataclass(frozen=True)
class Probe(Generic[Own]):
    """A loaded SAE, or its encoder alone, at its hookpoint, and the norm above which positions there are left out."""

    hookpoint: Hookpoint
    """Where the SAE reads."""
    target: Hookpoint
    """Where the vectors are that it reconstructs: elsewhere for a transcoder."""
    sae: Own
    norm_limit: float
    """Positions where the vector's norm exceeds this are attention sinks and never count."""

    def read(self, batch: TokenBatch, vectors: Float[Tensor, "batch seq d_model"]) -> "HookpointBatch":
        """Decide which positions of a batch count.

        Args:
            batch: the passages, with the positions that are countable at any hookpoint.
            vectors: those at the SAE's hookpoint.
        """
        vectors = vectors.to(batch.countable.device)  # differs only if the model is spread over several GPUs
        norms = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float32)
        return HookpointBatch(vectors, norms, batch.countable & (norms <= self.norm_limit))


class HookpointBatch(NamedTuple):
    """The vectors at a hookpoint in one batch."""

    hidden: Float[Tensor, "batch seq d_model"]
    norms: Float[Tensor, "batch seq"]
    """Euclidean norm of each vector."""
    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""
