"""Where an SAE reads the model, and which positions count there."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stratalens.models.batches import TokenBatch
from stratalens.saes.sae import Sae


@dataclass(frozen=True)
class LayerProbe:
    """What is read at one layer."""

    layer: int
    sae: Sae
    norm_limit: float
    """Positions whose hookpoint norm exceeds this are sinks and never count."""

    def read(
        self,
        batch: TokenBatch,
        module_input: Float[Tensor, "batch seq d_model"],
        module_output: Float[Tensor, "batch seq d_model"],
    ) -> "HookpointBatch":
        """What the SAE reads at its module, and which positions of it count."""
        hidden = module_input if self.sae.reads_input else module_output
        hidden = hidden.to(batch.countable.device)  # elsewhere only when the model is spread over several GPUs
        norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        return HookpointBatch(hidden, norms, batch.countable & (norms <= self.norm_limit))


class HookpointBatch(NamedTuple):
    """A hookpoint's vectors in one batch."""

    hidden: Float[Tensor, "batch seq d_model"]
    norms: Float[Tensor, "batch seq"]
    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""
