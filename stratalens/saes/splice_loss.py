"""Cross-entropy recovered: what a model loses when an SAE's reconstruction takes the place of what it reconstructs.

The reconstruction goes in without its error term. (L_zero - L_splice) / (L_zero - L_plain) is 1 where nothing is lost,
and 0 where the vectors might as well be zero; the same with their mean in place of zero is stricter, since a model
loses less by a constant (Rajamanoharan et al. 2024, "Improving dictionary learning with gated sparse autoencoders").
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.hooks import Consumer, forward, hooked
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

Replace = Callable[[Tensor, Tensor], Tensor | None]
"""Gives what takes the place of vectors `[token, width]`: of what the SAE reads, and of what it reconstructs."""


@dataclass(frozen=True)
class SpliceLoss:
    """Mean next-token loss, in nats, over the countable positions."""

    tokens: int
    """Predicted tokens."""
    plain: float
    splice: float
    """With the reconstruction in place."""
    zero: float
    """With zero in place, at the same positions."""
    mean: float
    """With the mean of the vectors in place."""

    @property
    def recovered_of_zero(self) -> float | None:
        """Share of the loss by zero ablation that the reconstruction avoids; None where that is none."""
        return _recovered(self.zero, self.splice, self.plain)

    @property
    def recovered_of_mean(self) -> float | None:
        """Share of the loss by mean ablation that the reconstruction avoids; None where that is none."""
        return _recovered(self.mean, self.splice, self.plain)


@dataclass(frozen=True)
class PlainPass:
    """What a model does with nothing replaced."""

    tokens: int
    """Predicted tokens."""
    loss: float
    """Mean next-token loss, in nats."""
    means: Mapping[Hookpoint, Float[Tensor, "_"]]
    """Hookpoint of an SAE -> mean of the vectors that it reconstructs, at the positions that are to be replaced."""


def plain_pass(
    model: nn.Module, probes: Sequence[Probe[Sae]], batches: Sequence[TokenBatch], done: Callable[[], None]
) -> PlainPass:
    """Measure the loss of a model as it is, and the means of the vectors that SAEs reconstruct.

    Args:
        model: the whole model with its head.
        probes: the SAEs, with the norms above which positions are left out.
        batches: passages on the model's device.
        done: called after each batch.
    """
    sums: dict[Hookpoint, list[Tensor]] = {probe.hookpoint: [] for probe in probes}
    counts = dict.fromkeys(sums, 0)

    def add(hookpoint: Hookpoint, _source: Tensor, target: Tensor) -> None:
        sums[hookpoint].append(target.float().sum(0))
        counts[hookpoint] += len(target)

    loss, tokens = 0.0, 0
    for batch in batches:
        with ExitStack() as stack:
            for probe in probes:
                stack.enter_context(hooked(model, _consumers(probe, batch, partial(add, probe.hookpoint))))
            loss += _loss(model, batch)
        tokens += int(_predicting(batch).sum())
        done()
    means = {hookpoint: torch.stack(own).sum(0) / max(1, counts[hookpoint]) for hookpoint, own in sums.items()}
    return PlainPass(tokens, loss / max(1, tokens), means)


def splice_loss(
    model: nn.Module,
    probe: Probe[Sae],
    batches: Sequence[TokenBatch],
    plain: PlainPass,
    done: Callable[[], None] = lambda: None,
) -> SpliceLoss:
    """Measure the loss of a model with the vectors replaced that an SAE reconstructs.

    Replaced are the same positions each time: the countable ones, without attention sinks, for which SAEs are not made.

    Args:
        model: the whole model with its head.
        probe: the SAE, its encoder on the model's device.
        batches: those of the plain pass.
        plain: what that gave.
        done: called after each batch of each of the three passes.
    """
    mean = plain.means[probe.hookpoint]
    kinds: dict[str, Replace] = {
        "splice": lambda x, _target: probe.sae.decode(probe.sae.encode(x), x),
        "zero": lambda _x, target: torch.zeros_like(target),
        "mean": lambda _x, target: mean.to(target.device).expand_as(target),
    }
    losses = {}
    for kind, replace in kinds.items():
        total = 0.0
        for batch in batches:
            with hooked(model, _consumers(probe, batch, replace)):
                total += _loss(model, batch)
            done()
        losses[kind] = total / max(1, plain.tokens)
    return SpliceLoss(plain.tokens, plain.loss, **losses)


def _loss(model: nn.Module, batch: TokenBatch) -> float:
    """Sum of the losses at the countable positions of a batch, in nats."""
    logits = forward(model, batch.input_ids).logits
    where = _predicting(batch)[:, :-1].to(logits.device)
    targets = batch.input_ids.to(logits.device)[:, 1:][where]
    return float(cross_entropy(logits[:, :-1][where].float(), targets, reduction="sum").double())


def _consumers(probe: Probe[Sae], batch: TokenBatch, replace: Replace) -> dict[Hookpoint, Consumer]:
    """Consumers that replace the vectors which an SAE reconstructs, or leave them where `replace` gives None."""
    read: dict[Hookpoint, Tensor] = {}

    def keep(vectors: Float[Tensor, "batch seq width"]) -> None:
        read[probe.hookpoint] = vectors.clone()

    def put(vectors: Float[Tensor, "batch seq width"]) -> Float[Tensor, "batch seq width"] | None:
        source = read.get(probe.hookpoint, vectors)
        where = _kept(probe, batch, source).to(vectors.device)
        new = replace(source[where.to(source.device)], vectors[where])
        if new is None:
            return None
        changed = vectors.clone()
        changed[where] = new.to(vectors.device, vectors.dtype)
        return changed

    return {probe.target: put} if probe.hookpoint == probe.target else {probe.hookpoint: keep, probe.target: put}


def _kept(probe: Probe[Sae], batch: TokenBatch, x: Float[Tensor, "batch seq width"]) -> Bool[Tensor, "batch seq"]:
    norms = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).to(batch.countable.device)
    return batch.countable & (norms <= probe.norm_limit)


def _predicting(batch: TokenBatch) -> Bool[Tensor, "batch seq"]:
    """Countable positions that a token follows."""
    lengths = torch.from_numpy(batch.lengths).to(batch.countable.device)
    return batch.countable & (torch.arange(batch.countable.shape[1], device=lengths.device) < lengths[:, None] - 1)


def _recovered(ablated: float, splice: float, plain: float) -> float | None:
    share = (ablated - splice) / (ablated - plain) if ablated > plain else math.nan
    return share if math.isfinite(share) else None
