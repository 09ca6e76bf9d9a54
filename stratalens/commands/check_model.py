"""Parts of `check` that need the model: load it, measure fits, and measure losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

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
from stratalens.models.families import can_replace, decoder_of
from stratalens.models.hub import hub_errors
from stratalens.models.limits import require_known_ids
from stratalens.models.loading import Placement, choose_device, choose_dtype, load_blocks, load_model
from stratalens.models.site_check import require_true_sites
from stratalens.progress import Progress
from stratalens.saes.fit_check import SINK_RATIO, FitCheck, check_fit
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae
from stratalens.saes.splice_loss import SpliceLoss, plain_pass, splice_loss

LOSS_TOKENS = 2048
"""Most tokens of which the loss is measured: the passages are the same each time, so few of them suffice."""
MIN_LOSS_TOKENS = 128
"""With fewer, the loss is not measured."""
MAX_LOGITS = 2**27
"""Most logits of a batch."""
NOT_REPLACEABLE = "vectors before the gain of a norm cannot be replaced"


class Loss(NamedTuple):
    """What is known of the loss with an SAE's reconstruction in place."""

    loss: SpliceLoss | None
    left_out: str
    """Why there is none; empty if there is one."""


@dataclass(frozen=True)
class CheckModel:
    """A model that was loaded and tried, and the passages that it reads."""

    run: RunConfig
    inputs: ModelInputs
    model: nn.Module
    device: torch.device
    no_head: str
    """Why it has no head; empty if it has one."""
    passes: tuple[tuple[Hookpoint, ...], ...]
    """Groups of SAEs that fit into memory together."""

    @classmethod
    def load(cls, run: RunConfig, inputs: ModelInputs, progress: Progress, *, head: bool) -> "CheckModel":
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

    def fits(
        self, probes: Sequence[Probe[Sae]], sequences: Sequence[np.ndarray], *, thorough: bool
    ) -> dict[Hookpoint, FitCheck]:
        """Check the fit of some SAEs, in one pass over the passages."""
        tokens = self.run.tokens_per_batch
        declared = {probe.hookpoint: self.inputs.saes[probe.hookpoint].l0 for probe in probes}
        model = decoder_of(self.model)  # the head would cost time for nothing
        return check_fit(model, probes, self._batches(sequences, tokens), tokens, declared, thorough=thorough)

    def losses(
        self,
        probes: Sequence[Probe[Sae]],
        fits: Mapping[Hookpoint, FitCheck],
        sequences: Sequence[np.ndarray],
        progress: Progress,
    ) -> dict[Hookpoint, Loss]:
        """Measure the loss with each SAE's reconstruction in place."""
        if self.no_head:
            return {probe.hookpoint: Loss(None, self.no_head) for probe in probes}
        chosen = _first_tokens(sequences)
        predicted = sum(len(sequence) - 1 for sequence in chosen)
        if predicted < MIN_LOSS_TOKENS:
            reason = f"the text has only {predicted} tokens to predict; give --data with more"
            return {probe.hookpoint: Loss(None, reason) for probe in probes}
        rows = self.model.get_output_embeddings().weight.shape[0]  # pyright: ignore[reportCallIssue]
        batches = self._batches(chosen, min(self.run.tokens_per_batch, max(1, MAX_LOGITS // rows)))
        limited = [
            replace(probe, norm_limit=SINK_RATIO * fits[probe.hookpoint].median_norm)
            for probe in probes
            if can_replace(self.model, probe.target)
        ]
        with progress.track("Measuring losses", len(batches) * (1 + 3 * len(limited))) as advance:
            plain = plain_pass(self.model, limited, batches, lambda: advance(1, 0))
            losses = {
                probe.hookpoint: splice_loss(self.model, probe, batches, plain, lambda: advance(1, 0))
                for probe in limited
            }
        found = {place: Loss(loss, "") for place, loss in losses.items()}
        return {probe.hookpoint: found.get(probe.hookpoint, Loss(None, NOT_REPLACEABLE)) for probe in probes}

    def _batches(self, sequences: Sequence[np.ndarray], batch_tokens: int) -> list[TokenBatch]:
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


def _first_tokens(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first passages, up to `LOSS_TOKENS` tokens; the last one is cut."""
    chosen, left = [], LOSS_TOKENS
    for sequence in sequences:
        if left < 2:
            break
        chosen.append(sequence[:left])
        left -= len(chosen[-1])
    return chosen
