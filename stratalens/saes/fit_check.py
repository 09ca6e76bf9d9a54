"""Fit check: compare how well each SAE reconstructs its own hookpoint and the two neighbouring ones.

FVU alone does not detect an SAE of a neighbouring layer, because the residual streams of adjacent blocks are similar.
The share of the squared error that is due to the mean error does: it is near zero where the SAE was trained and grows
as soon as the mean activation shifts.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import MismatchError, ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import BatchRunner, TokenBatch
from stratalens.models.families import has_hookpoint, locate
from stratalens.models.hooks import forward, hooked
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

SINK_RATIO = 10.0
"""Positions whose norm exceeds this multiple of the layer's median norm are attention sinks."""
MIN_MEAN_ERROR_SHARE = 0.001
"""With a share of the error in the mean up to this, the SAE fits, whatever the neighbouring hookpoints give."""
MIN_MEAN_ERROR_RATIO = 1.5
"""A neighbour fits clearly better if its share is lower by more than this factor and its FVU is not higher."""


@dataclass(frozen=True)
class HookpointFit:
    """How well an SAE reconstructs one hookpoint."""

    hookpoint: str
    fvu: float
    """Fraction of variance unexplained."""
    mean_error_share: float
    """Squared error due to the mean error, as a fraction of variance: n |mean(x - x_hat)|^2 / sum |x - mean(x)|^2."""
    l0: float
    """Mean number of latents that fire on a position."""


@dataclass(frozen=True)
class FitCheck:
    """Result of the fit check of one layer: what was measured on the calibration documents, and the verdict."""

    median_norm: float
    """Of the vectors at the SAE's hookpoint, special tokens and padding left out."""
    own: HookpointFit
    """At the SAE's own hookpoint."""
    neighbours: tuple[HookpointFit, ...]
    problem: str
    """Why the SAE does not seem to belong here; empty if it fits."""


class _Sums(NamedTuple):
    """Sums over positions, for one SAE at one hookpoint."""

    positions: int
    fired: int
    """Latents that fired."""
    squared_error: float
    squared_target: float
    error: Float[Tensor, "d_model"]
    target: Float[Tensor, "d_model"]

    @classmethod
    def of(
        cls, target: Float[Tensor, "token d_model"], reconstruction: Float[Tensor, "token d_model"], fired: int
    ) -> "_Sums":
        sum_dtype = torch.float32 if target.device.type == "mps" else torch.float64
        error, target = (target - reconstruction).to(sum_dtype), target.to(sum_dtype)
        squares = float(error.pow(2).sum()), float(target.pow(2).sum())
        return cls(len(target), fired, *squares, error.sum(0), target.sum(0))

    def fit(self, hookpoint: str) -> HookpointFit | None:
        """The fit at a hookpoint; None where no vector is finite, or all are the same."""
        variance = self.squared_target - float(self.target.pow(2).sum()) / max(1, self.positions)
        if not 0 < variance < math.inf:
            return None
        return HookpointFit(
            hookpoint=hookpoint,
            fvu=self.squared_error / variance,
            mean_error_share=float(self.error.pow(2).sum()) / self.positions / variance,
            l0=self.fired / self.positions,
        )


def _total(batch_sums: Iterable[_Sums]) -> _Sums:
    """Add the sums of several batches."""

    def add(a: _Sums, b: _Sums) -> _Sums:
        return _Sums(
            a.positions + b.positions,
            a.fired + b.fired,
            a.squared_error + b.squared_error,
            a.squared_target + b.squared_target,
            a.error + b.error,
            a.target + b.target,
        )

    return reduce(add, batch_sums)


class _BatchMeasurement(NamedTuple):
    """What one batch gives for one SAE at one hookpoint."""

    sums: _Sums
    norms: Float[Tensor, "position"]
    """Of the vectors at the countable positions, sinks included."""


@dataclass(frozen=True, eq=False)
class _Trial:
    """An SAE tried at a hookpoint, its own or another."""

    probe: Probe[Sae]
    block: int

    @property
    def reads(self) -> Hookpoint:
        return replace(self.probe.hookpoint, block=self.block)

    @property
    def target(self) -> Hookpoint:
        return replace(self.probe.target, block=self.block)


def _trials(model: nn.Module, probe: Probe[Sae]) -> list[_Trial]:
    """The SAE at its own hookpoint, then at those of the same site in the blocks below and above."""
    own = probe.hookpoint.block
    trials = [_Trial(probe, block) for block in (own, own - 1, own + 1) if block >= 0]
    return [trial for trial in trials if has_hookpoint(model, trial.reads) and has_hookpoint(model, trial.target)]


def check_fit(
    model: nn.Module, probes: Iterable[Probe[Sae]], batches: Iterable[TokenBatch], batch_tokens: int
) -> dict[Hookpoint, FitCheck]:
    """Measure, in one pass over the calibration documents, the median norm at each hookpoint and the fit of its SAE.

    Args:
        model: the decoder, with one block above the deepest hookpoint where the model has one.
        probes: the SAEs, encoders on the model's device; their norm limits do not matter.
        batches: the calibration passages, on the model's device.
        batch_tokens: most tokens of a batch; a batch that does not fit into memory is halved.

    Returns:
        Hookpoint -> the fit of its SAE there and in the neighbouring blocks.

    Raises:
        CapacityError: memory does not suffice for a single passage.
        ModelError: the vectors at a hookpoint are not finite.
    """
    trials = [_trials(model, probe) for probe in probes]
    runner = BatchRunner(batch_tokens)
    measure = partial(_measure_batch, model, [trial for own in trials for trial in own])
    measured = [result for batch in batches for result in runner.run(batch, measure)]
    checks = {}
    for own_trials in trials:
        names = [locate(model, trial.target).module for trial in own_trials]
        own, *others = (
            _total(result[trial].sums for result in measured).fit(name)
            for trial, name in zip(own_trials, names, strict=True)
        )
        norms = torch.cat([result[own_trials[0]].norms for result in measured])
        if own is None or not bool(torch.isfinite(norms).all()):
            raise ModelError(
                f"the activations at {names[0]} are not finite on some of the text, or all the same; use --dtype "
                "float32 or bfloat16, and no --load_in 8bit"
            )
        neighbours = tuple(fit for fit in others if fit is not None)
        checks[own_trials[0].reads] = FitCheck(
            median_norm=float(norms.median()),
            own=own,
            neighbours=neighbours,
            problem=_problem(own, neighbours),
        )
    return checks


def _measure_batch(model: nn.Module, trials: Sequence[_Trial], batch: TokenBatch) -> dict[_Trial, _BatchMeasurement]:
    """Trial -> what a batch gives for it."""
    measured: dict[_Trial, _BatchMeasurement] = {}
    inputs: dict[Hookpoint, Tensor] = {}
    """The vectors that transcoders read, until those that they reconstruct are there."""

    def consumer(hookpoint: Hookpoint, vectors: Tensor) -> None:
        for trial in trials:
            if hookpoint == trial.target:
                measured[trial] = _measure(trial.probe.sae, batch, inputs.get(trial.reads, vectors), vectors)
            elif hookpoint == trial.reads:
                inputs[hookpoint] = vectors

    hookpoints = {hookpoint for trial in trials for hookpoint in (trial.reads, trial.target)}
    with hooked(model, {hookpoint: partial(consumer, hookpoint) for hookpoint in hookpoints}):
        forward(model, batch.input_ids)
    return measured


def _measure(
    sae: Sae, batch: TokenBatch, source: Float[Tensor, "batch seq d_model"], target: Float[Tensor, "batch seq d_out"]
) -> _BatchMeasurement:
    """What a batch gives for an SAE that reads `source` and reconstructs `target`."""
    source, target = source.to(batch.countable.device), target.to(batch.countable.device)
    norms = torch.linalg.vector_norm(source, dim=-1, dtype=torch.float32)
    countable_norms = norms[batch.countable]
    median = countable_norms[torch.isfinite(countable_norms)].median()  # one NaN would make it NaN, and drop them all
    keep = batch.countable & (norms <= SINK_RATIO * median)
    x = source[keep]
    latents = sae.encode(x)
    sums = _Sums.of(target[keep].float(), sae.decode(latents, x), len(latents.value))
    return _BatchMeasurement(sums, countable_norms)


def _problem(own: HookpointFit, others: Iterable[HookpointFit]) -> str:
    """Why an SAE does not seem to belong to its hookpoint; empty if it fits."""
    better = [
        other
        for other in others
        if own.mean_error_share > MIN_MEAN_ERROR_SHARE
        and own.mean_error_share > MIN_MEAN_ERROR_RATIO * other.mean_error_share
        and other.fvu <= own.fvu
    ]
    if better:
        best = min(better, key=lambda fit: fit.mean_error_share)
        return (
            f"it fits {best.hookpoint} clearly better (error in the mean {best.mean_error_share:.4f} against "
            f"{own.mean_error_share:.4f}): was it trained there, or on the input of this block?"
        )
    if not own.fvu <= 1:
        return f"it explains nothing here (FVU {own.fvu:.2f}): was it trained on another model, layer or input scale?"
    return ""


def require_fit(checks: Mapping[Hookpoint, FitCheck]) -> None:
    """Raise an error if an SAE does not fit the layer it is used at.

    Raises:
        MismatchError: names the first such layer and the likely cause.
    """
    for check in checks.values():
        if check.problem:
            raise MismatchError(
                f"the SAE of {check.own.hookpoint} does not fit: {check.problem} "
                "Check --base_model and --sae_model, or pass --allow_poor_fit"
            )


def describe_check(check: FitCheck) -> str:
    """One line: how well an SAE fits its hookpoint, with the share of error in the mean at the neighbours."""
    others = ", ".join(f"{fit.hookpoint} {fit.mean_error_share:.4f}" for fit in check.neighbours)
    verdict = "fits" if not check.problem else f"DOES NOT FIT: {check.problem}"
    return (
        f"SAE of {check.own.hookpoint}: FVU {check.own.fvu:.3f}, L0 {check.own.l0:.1f}, "
        f"error in the mean {check.own.mean_error_share:.4f} ({others or 'no neighbours'}): {verdict}"
    )
