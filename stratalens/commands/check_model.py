"""Parts of `check` that need the model: the fits of SAEs, and losses with their reconstructions in place."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from stratalens.commands.tried_model import TriedModel
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import can_replace, decoder_of
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


def check_fits(
    loaded: TriedModel, probes: Sequence[Probe[Sae]], sequences: Sequence[np.ndarray], *, thorough: bool
) -> dict[Hookpoint, FitCheck]:
    """Check the fit of some SAEs, in one pass over the passages."""
    tokens = loaded.run.tokens_per_batch
    declared = {probe.hookpoint: loaded.inputs.saes[probe.hookpoint].l0 for probe in probes}
    model = decoder_of(loaded.model)  # the head would cost time for nothing
    return check_fit(model, probes, loaded.batches(sequences, tokens), tokens, declared, thorough=thorough)


def check_losses(
    loaded: TriedModel,
    probes: Sequence[Probe[Sae]],
    fits: Mapping[Hookpoint, FitCheck],
    sequences: Sequence[np.ndarray],
    progress: Progress,
) -> dict[Hookpoint, Loss]:
    """Measure the loss with each SAE's reconstruction in place."""
    if loaded.no_head:
        return {probe.hookpoint: Loss(None, loaded.no_head) for probe in probes}
    chosen = _first_tokens(sequences)
    predicted = sum(len(sequence) - 1 for sequence in chosen)
    if predicted < MIN_LOSS_TOKENS:
        reason = f"the text has only {predicted} tokens to predict; give --data with more"
        return {probe.hookpoint: Loss(None, reason) for probe in probes}
    rows = loaded.model.get_output_embeddings().weight.shape[0]  # pyright: ignore[reportCallIssue]
    batches = loaded.batches(chosen, min(loaded.run.tokens_per_batch, max(1, MAX_LOGITS // rows)))
    limited = [
        replace(probe, norm_limit=SINK_RATIO * fits[probe.hookpoint].median_norm)
        for probe in probes
        if can_replace(loaded.model, probe.target)
    ]
    with progress.track("Measuring losses", len(batches) * (1 + 3 * len(limited))) as advance:
        plain = plain_pass(loaded.model, limited, batches, lambda: advance(1, 0))
        losses = {
            probe.hookpoint: splice_loss(loaded.model, probe, batches, plain, lambda: advance(1, 0))
            for probe in limited
        }
    found = {place: Loss(loss, "") for place, loss in losses.items()}
    return {probe.hookpoint: found.get(probe.hookpoint, Loss(None, NOT_REPLACEABLE)) for probe in probes}


def _first_tokens(sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first passages, up to `LOSS_TOKENS` tokens; the last one is cut."""
    chosen, left = [], LOSS_TOKENS
    for sequence in sequences:
        if left < 2:
            break
        chosen.append(sequence[:left])
        left -= len(chosen[-1])
    return chosen
