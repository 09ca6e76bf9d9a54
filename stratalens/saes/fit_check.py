"""Fit check: compare how well an SAE reconstructs its own hookpoint and others where it may have been trained instead.

FVU alone does not detect an SAE of a neighbouring layer, because the residual streams of adjacent blocks are similar.
The share of the squared error that is due to the mean error does: it is near zero where the SAE was trained and grows
as soon as the mean activation shifts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from stratalens.errors import MismatchError, ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.families import locate
from stratalens.models.site_check import true_sites
from stratalens.saes.activations import is_relu
from stratalens.saes.fit_candidates import Trial, in_words, neighbours, places_of, siblings
from stratalens.saes.fit_measure import SINK_RATIO, TrialMeasurement, measure
from stratalens.saes.fit_numbers import HookpointFit, LatentUse
from stratalens.saes.fit_verdict import is_doubtful, problem_of
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

__all__ = ["SINK_RATIO", "FitCheck", "check_fit", "describe_check", "require_fit"]


@dataclass(frozen=True)
class FitCheck:
    """Result of the fit check of one layer: what was measured on the calibration documents, and the verdict."""

    median_norm: float
    """Of the vectors at the SAE's hookpoint, special tokens and padding left out."""
    own: HookpointFit
    """At the SAE's own hookpoint."""
    neighbours: tuple[HookpointFit, ...]
    """At the same site of the blocks below and above."""
    problem: str
    """Why the SAE does not seem to belong here; empty if it fits."""
    siblings: tuple[HookpointFit, ...] = ()
    """At other sites of the block, where they were tried and have the width of the SAE."""
    declared_l0: float | None = None
    """Latents that fire on a token, as the file of a threshold SAE says; None where it says nothing."""
    use: LatentUse | None = None
    """Which latents fire here."""

    @property
    def candidates(self) -> tuple[HookpointFit, ...]:
        """Its own hookpoint and all others that were tried."""
        return (self.own, *self.neighbours, *self.siblings)


def check_fit(
    model: nn.Module,
    probes: Iterable[Probe[Sae]],
    batches: Iterable[TokenBatch],
    batch_tokens: int,
    declared_l0: Mapping[Hookpoint, float | None] | None = None,
    *,
    thorough: bool = False,
) -> dict[Hookpoint, FitCheck]:
    """Measure, in one pass over the calibration documents, the median norm at each hookpoint and the fit of its SAE.

    Where that leaves a doubt about an SAE, a second pass tries it at the other sites of its block.

    Args:
        model: the decoder, with one block above the deepest hookpoint where the model has one.
        probes: the SAEs, encoders on the model's device; their norm limits do not matter.
        batches: the calibration passages, on the model's device.
        batch_tokens: most tokens of a batch; a batch that does not fit into memory is halved.
        declared_l0: hookpoint -> L0 that the file of its SAE declares.
        thorough: try the other sites of every block, in the first pass.

    Returns:
        Hookpoint -> the fit of its SAE there, in the neighbouring blocks, and where it was tried besides.

    Raises:
        CapacityError: memory does not suffice for a single passage.
        ModelError: the vectors at a hookpoint are not finite.
    """
    batches, declared, probes = list(batches), declared_l0 or {}, list(probes)
    tried = {probe.hookpoint: neighbours(model, probe) for probe in probes}
    others = _true_siblings(model, probes) if thorough else {}
    trials = [trial for own in (*tried.values(), *others.values()) for trial in own]
    found = measure(model, trials, batches, batch_tokens)
    checks = {place: _judged(model, own, others.get(place, []), found, declared) for place, own in tried.items()}
    if thorough:
        return checks
    doubted = [probe for probe in probes if _is_doubtful(checks[probe.hookpoint])]
    others = _true_siblings(model, doubted)
    found |= measure(model, [trial for own in others.values() for trial in own], batches, batch_tokens)
    return checks | {place: _judged(model, tried[place], own, found, declared) for place, own in others.items()}


def _is_doubtful(check: FitCheck) -> bool:
    return is_doubtful(check.own, check.problem, check.declared_l0)


def _true_siblings(model: nn.Module, probes: Sequence[Probe[Sae]]) -> dict[Hookpoint, list[Trial]]:
    """Hookpoint -> trials of its SAE at other sites of its block; sites that are not what their name says left out."""
    found = {probe.hookpoint: siblings(model, probe) for probe in probes}
    own = {place for probe in probes for place in (probe.hookpoint, probe.target)}
    true = own | true_sites(model, {place for trials in found.values() for place in places_of(trials)} - own)
    return {place: [trial for trial in trials if places_of([trial]) <= true] for place, trials in found.items()}


def _judged(
    model: nn.Module,
    tried: Sequence[Trial],
    others: Sequence[Trial],
    found: Mapping[Trial, TrialMeasurement],
    declared: Mapping[Hookpoint, float | None],
) -> FitCheck:
    """The check of one SAE, of what its trials gave; the first is at its own hookpoint."""

    def fit(trial: Trial) -> HookpointFit | None:
        name, words = locate(model, trial.target).module, in_words(model, trial)
        return found[trial].sums.fit(name, trial.reads, trial.target, words) if trial in found else None

    first, probe = found[tried[0]], tried[0].probe
    own, norms = fit(tried[0]), torch.cat(first.norms)
    if own is None or not bool(torch.isfinite(norms).all()):
        raise ModelError(
            f"the activations at {locate(model, probe.target).module} are not finite on some of the text, or all the "
            "same; use --dtype float32 or bfloat16, and no --load_in 8bit"
        )
    assert first.fired is not None
    adjacent, elsewhere = (tuple(own for own in map(fit, trials) if own is not None) for trials in (tried[1:], others))
    l0 = declared.get(probe.hookpoint)
    return FitCheck(
        median_norm=float(norms.median()),
        own=own,
        neighbours=adjacent,
        problem=problem_of(own, (*adjacent, *elsewhere), l0, may_shrink=is_relu(probe.sae.activation)),
        siblings=elsewhere,
        declared_l0=l0,
        use=LatentUse.of(first.fired, own.tokens, probe.sae.decoder.norms()),
    )


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
    declared = "" if check.declared_l0 is None else f" ({check.declared_l0:g} declared)"
    return (
        f"SAE of {check.own.hookpoint}: FVU {check.own.fvu:.3f}, L0 {check.own.l0:.1f}{declared}, "
        f"error in the mean {check.own.mean_error_share:.4f} ({others or 'no neighbours'}): {verdict}"
    )
