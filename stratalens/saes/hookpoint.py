"""Read the vectors at the hookpoint of an SAE, and decide which positions count."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratalens.models.batches import TokenBatch
from stratalens.saes.sae import Sae


@dataclass(frozen=True)
class LayerProbe:
    """The SAE of a layer, and the norm above which positions of its hookpoint are left out."""

    layer: int
    sae: Sae
    norm_limit: float
    """Positions where the vector's norm exceeds this are attention sinks and never count."""

    def read(
        self,
        batch: TokenBatch,
        module_input: Float[Tensor, "batch seq d_model"],
        module_output: Float[Tensor, "batch seq d_model"],
    ) -> "HookpointBatch":
        """Pick the vectors that the SAE reads, and the positions that count.

        Args:
            batch: the passages, with the positions that are countable in any layer.
            module_input: input of the SAE's module, which a transcoder reads.
            module_output: output of the SAE's module, which any other SAE reads.
        """
        hidden = module_input if self.sae.reads_input else module_output
        hidden = hidden.to(batch.countable.device)  # differs only if the model is spread over several GPUs
        norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        return HookpointBatch(hidden, norms, batch.countable & (norms <= self.norm_limit))


class HookpointBatch(NamedTuple):
    """The vectors at a hookpoint in one batch."""

    hidden: Float[Tensor, "batch seq d_model"]
    norms: Float[Tensor, "batch seq"]
    """Euclidean norm of each vector."""
    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""
