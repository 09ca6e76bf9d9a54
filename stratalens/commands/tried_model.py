"""A model that is loaded again for work beside a run, whole with its head or without, and tried on a small batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from stratalens.config.options import RunConfig
from stratalens.errors import ModelError
from stratalens.harvest.inputs import LoadedModel, ModelInputs
from stratalens.harvest.memory_plan import estimate_memory, loaded_blocks, memory_limits, plan_passes
from stratalens.harvest.open_model import load_probe
from stratalens.harvest.trial import try_model
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.families import decoder_of
from stratalens.models.hub import hub_errors
from stratalens.models.limits import require_known_ids
from stratalens.models.loading import Placement, choose_device, choose_dtype, load_blocks, load_model
from stratalens.models.site_check import require_true_sites
from stratalens.progress import Progress
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae


@dataclass(frozen=True)
class TriedModel:
    """A model that was loaded and tried, and the SAEs that can be loaded beside it."""

    run: RunConfig
    inputs: ModelInputs
    model: nn.Module
    device: torch.device
    no_head: str
    """Why it has no head; empty if it has one."""
    passes: tuple[tuple[Hookpoint, ...], ...]
    """Groups of SAEs that fit into memory together."""

    @classmethod
    def load(cls, run: RunConfig, inputs: ModelInputs, progress: Progress, *, head: bool) -> "TriedModel":
        """Load a model, whole if its head is wanted, and try it on a small batch.

        Raises:
            StratalensError: it cannot be loaded or used.
        """
        device = choose_device(run.device)
        dtype = choose_dtype(run.dtype, device)
        estimate = estimate_memory(run, inputs, device, dtype)
        limit = memory_limits(run, estimate, device)
        placement = Placement(device, dtype, run.load_in, estimate.total.device - estimate.model)
        with progress.track("Loading and trying", None):
            model, no_head = _with_head(inputs, placement) if head else (None, "")
            if model is None:
                model = load_blocks(inputs.source, loaded_blocks(inputs), placement, progress.say)
            require_known_ids(inputs.source, inputs.cutter)
            require_true_sites(model, {place for sae in inputs.saes.values() for place in (sae.hookpoint, sae.target)})
            loaded = LoadedModel(decoder_of(model), device, dtype, limit, run.load_in)
            try_model(inputs, loaded, run.max_length)
        return cls(run, inputs, model, device, no_head, plan_passes(estimate, limit))

    def probes(self, hookpoints: Sequence[Hookpoint]) -> list[Probe[Sae]]:
        """Load some SAEs."""
        return [load_probe(self.inputs.saes[hookpoint], self.device) for hookpoint in hookpoints]

    def batches(self, sequences: Sequence[np.ndarray], batch_tokens: int) -> list[TokenBatch]:
        """Passages in batches of at most so many tokens, on the device."""
        packed = pack_batches(sequences, batch_tokens, self.inputs.cutter.special_ids)
        return [batch.to(self.device) for batch in packed]


def _with_head(inputs: ModelInputs, placement: Placement) -> tuple[nn.Module | None, str]:
    """Load a whole model with its head, or say why it has none."""
    source = inputs.source
    try:
        with hub_errors(source.location, ModelError):
            model = load_model(
                source.location,
                blocks=None,
                placement=placement,
                revision=source.revision,
                trust_remote_code=source.trust_remote_code,
                head=True,
            )
    except ModelError as error:
        return None, f"the model has no head that can be loaded ({error})"
    return model, ""
