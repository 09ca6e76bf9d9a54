"""Does each SAE fit its layer? Compares how well it rebuilds its own hookpoint and the two neighbouring ones.

FVU alone misses a neighbouring layer, because residual streams of adjacent blocks resemble each other. The share of the
error that lies in its mean does not: it is near zero where the SAE was trained and grows as soon as the mean shifts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import MismatchError
from stratalens.models.batches import BatchRunner, TokenBatch
from stratalens.models.families import BlockModule
from stratalens.models.hooks import forward, hooked
from stratalens.saes.sae import Sae

SINK_RATIO = 10.0
"""Positions whose norm exceeds this multiple of the layer's median norm are attention sinks."""
MEAN_ERROR_FLOOR = 0.001
"""Below this share of error in the mean the SAE fits, whatever its neighbours say."""
MEAN_ERROR_RATIO = 1.5
"""A neighbour fits clearly better when this many times less of the error lies in its mean and its FVU is no higher."""


@dataclass(frozen=True)
class HookpointFit:
    """How well an SAE rebuilds one hookpoint."""

    hookpoint: str
    fvu: float
    """Fraction of variance unexplained."""
    mean_error_share: float
    """n |mean(x - x_hat)|^2 / total variance."""
    l0: float
    """Mean number of latents that fire on a position."""


@dataclass(frozen=True)
class FitCheck:
    """The fit check of one layer, with what the pass over the calibration documents measured."""

    layer: int
    median_norm: float
    own: HookpointFit
    neighbours: tuple[HookpointFit, ...]
    problem: str
    """Why the SAE does not seem to belong here; empty when it does."""


class _Sums(NamedTuple):
    """Sums over the positions of one SAE on one hookpoint."""

    positions: int
    fired: int
    squared_error: float
    squared: float
    error: Float[Tensor, "d_model"]
    target: Float[Tensor, "d_model"]

    @classmethod
    def of(cls, target: Float[Tensor, "token d_model"], rebuilt: Float[Tensor, "token d_model"], fired: int) -> "_Sums":
        exact = torch.float32 if target.device.type == "mps" else torch.float64
        error, target = (target - rebuilt).to(exact), target.to(exact)
        squares = float(error.pow(2).sum()), float(target.pow(2).sum())
        return cls(len(target), fired, *squares, error.sum(0), target.sum(0))

    def fit(self, hookpoint: str) -> HookpointFit:
        variance = self.squared - float(self.target.pow(2).sum()) / self.positions
        return HookpointFit(
            hookpoint=hookpoint,
            fvu=self.squared_error / variance,
            mean_error_share=float(self.error.pow(2).sum()) / self.positions / variance,
            l0=self.fired / self.positions,
        )


def _total(several: Iterable[_Sums]) -> _Sums:
    def add(a: _Sums, b: _Sums) -> _Sums:
        fired, squared_error, squared = a.fired + b.fired, a.squared_error + b.squared_error, a.squared + b.squared
        return _Sums(a.positions + b.positions, fired, squared_error, squared, a.error + b.error, a.target + b.target)

    return reduce(add, several)


class _Part(NamedTuple):
    """What one batch says of one SAE at one hookpoint."""

    sums: _Sums
    norms: Float[Tensor, "position"]
    """Of the countable positions."""


def neighbouring_hookpoints(hookpoint: str) -> tuple[str, ...]:
    """The same place in the blocks below and above: `layers.3`, `layers.5` for `layers.4`."""
    module = BlockModule.parse(hookpoint)
    assert module is not None, hookpoint
    return tuple(str(module._replace(number=n)) for n in (module.number - 1, module.number + 1) if n >= 0)


def check_fit(
    model: nn.Module, saes: Mapping[int, Sae], batches: Iterable[TokenBatch], batch_tokens: int
) -> dict[int, FitCheck]:
    """Read the calibration documents once: each layer's median norm, and how its SAE fits here and next to it.

    Args:
        model: the decoder, with one block above the deepest hookpoint where the model has one.
        saes: layer -> SAE, on the model's device.
        batches: the calibration passages, on the model's device.
        batch_tokens: tokens a batch.

    Raises:
        CapacityError: memory does not suffice for a single passage.
    """
    modules = dict(model.named_modules())
    tried = {
        layer: (sae.hookpoint, *(one for one in neighbouring_hookpoints(sae.hookpoint) if one in modules))
        for layer, sae in saes.items()
    }
    runner = BatchRunner(batch_tokens)
    read_batch = partial(_read_batch, model, saes, tried)
    parts = [part for batch in batches for part in runner.run(batch, read_batch)]
    checks = {}
    for layer, sae in saes.items():
        own, *others = (_total(part[layer, one].sums for part in parts).fit(one) for one in tried[layer])
        checks[layer] = FitCheck(
            layer=layer,
            median_norm=float(torch.cat([part[layer, sae.hookpoint].norms for part in parts]).median()),
            own=own,
            neighbours=tuple(others),
            problem=_problem(own, others),
        )
    return checks


def _read_batch(
    model: nn.Module, saes: Mapping[int, Sae], tried: Mapping[int, tuple[str, ...]], batch: TokenBatch
) -> dict[tuple[int, str], _Part]:
    """(Layer, hookpoint) -> what a batch says of the layer's SAE there."""
    found: dict[tuple[int, str], _Part] = {}

    def consumer(hookpoint: str, module_input: Tensor, module_output: Tensor) -> None:
        for layer, sae in saes.items():
            if hookpoint in tried[layer]:
                found[layer, hookpoint] = _read(sae, batch, module_input, module_output)

    everywhere = {hookpoint for several in tried.values() for hookpoint in several}
    with hooked(model, {hookpoint: partial(consumer, hookpoint) for hookpoint in everywhere}):
        forward(model, batch.input_ids)
    return found


def _read(
    sae: Sae,
    batch: TokenBatch,
    module_input: Float[Tensor, "batch seq d_model"],
    module_output: Float[Tensor, "batch seq d_model"],
) -> _Part:
    source = (module_input if sae.reads_input else module_output).to(batch.countable.device)
    length = torch.linalg.vector_norm(source, dim=-1, dtype=torch.float32)
    countable = length[batch.countable]
    keep = batch.countable & (length <= SINK_RATIO * countable.median())
    x = source[keep]
    latents = sae.encode(x)
    target = module_output.to(keep.device)[keep].float()
    return _Part(_Sums.of(target, sae.decode(latents, x), int((latents.values > 0).sum())), countable)


def _problem(own: HookpointFit, others: list[HookpointFit]) -> str:
    better = [
        other
        for other in others
        if own.mean_error_share > MEAN_ERROR_FLOOR
        and own.mean_error_share > MEAN_ERROR_RATIO * other.mean_error_share
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


def require_fit(checks: Mapping[int, FitCheck]) -> None:
    """Refuse SAEs that do not belong where they are used.

    Raises:
        MismatchError: naming the first such layer and the likely cause.
    """
    for check in checks.values():
        if check.problem:
            raise MismatchError(
                f"the SAE of {check.own.hookpoint} does not fit: {check.problem} "
                "Check --base_model and --sae_model, or pass --allow_poor_fit"
            )


def describe_check(check: FitCheck) -> str:
    """One line: how well an SAE fits."""
    others = ", ".join(f"{fit.hookpoint} {fit.mean_error_share:.4f}" for fit in check.neighbours)
    verdict = "fits" if not check.problem else f"DOES NOT FIT: {check.problem}"
    return (
        f"SAE of {check.own.hookpoint}: FVU {check.own.fvu:.3f}, L0 {check.own.l0:.1f}, "
        f"error in the mean {check.own.mean_error_share:.4f} ({others or 'no neighbours'}): {verdict}"
    )
