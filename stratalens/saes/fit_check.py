"""Does each SAE belong to its layer? Compares how well it rebuilds its own hookpoint and the two neighbouring ones.

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
from stratalens.models.batches import Room
from stratalens.models.loading import forward, hooked
from stratalens.models.tokens import TokenBatch
from stratalens.saes.sae import Sae

SINK_RATIO = 10.0
"""Positions whose norm exceeds this multiple of the layer's median norm are attention sinks."""
MEAN_ERROR_FLOOR = 0.001
"""Below this share of error in the mean the SAE is at home."""
MEAN_ERROR_RATIO = 1.5
"""A neighbour fits clearly better when this many times less of the error lies in its mean and its FVU is no higher."""


@dataclass(frozen=True)
class Fit:
    """How well an SAE rebuilds one hookpoint."""

    hookpoint: str
    fvu: float
    """Fraction of variance unexplained."""
    mean_error_share: float
    """n |mean(x - x_hat)|^2 / total variance."""
    l0: float
    """Mean number of latents that fire on a position."""


@dataclass(frozen=True)
class LayerCheck:
    """The self-check of one layer, with what the pass over the calibration documents measured."""

    layer: int
    median_norm: float
    own: Fit
    neighbours: tuple[Fit, ...]
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

    def fit(self, hookpoint: str) -> Fit:
        variance = self.squared - float(self.target.pow(2).sum()) / self.positions
        return Fit(
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
    """What one batch says of one SAE at one place."""

    sums: _Sums
    norms: Float[Tensor, "position"]
    """Of the countable positions."""


def neighbours(hookpoint: str) -> tuple[str, ...]:
    """The same place in the blocks below and above: `layers.3`, `layers.5` for `layers.4`."""
    blocks, number, *rest = hookpoint.split(".")
    return tuple(".".join([blocks, str(n), *rest]) for n in (int(number) - 1, int(number) + 1) if n >= 0)


def check(
    model: nn.Module, saes: Mapping[int, Sae], batches: Iterable[TokenBatch], batch_tokens: int
) -> dict[int, LayerCheck]:
    """Read the calibration documents once: each layer's median norm, and the fit of its SAE here and next door.

    Args:
        model: the decoder, with one block above the deepest hookpoint where the model has one.
        saes: layer -> SAE, on the model's device.
        batches: the calibration passages, on the model's device.
        batch_tokens: tokens a batch.

    Raises:
        CapacityError: memory does not suffice for a single passage.
    """
    modules = dict(model.named_modules())
    places = {
        layer: (sae.hookpoint, *(n for n in neighbours(sae.hookpoint) if n in modules)) for layer, sae in saes.items()
    }

    def attempt(batch: TokenBatch) -> dict[tuple[int, str], _Part]:
        found: dict[tuple[int, str], _Part] = {}

        def consumer(place: str, module_input: Tensor, module_output: Tensor) -> None:
            for layer, sae in saes.items():
                if place in places[layer]:
                    found[layer, place] = _read(sae, batch, module_input, module_output)

        everywhere = {place for several in places.values() for place in several}
        with hooked(model, {place: partial(consumer, place) for place in everywhere}):
            forward(model, batch.input_ids)
        return found

    room = Room(batch_tokens)
    parts = [part for batch in batches for part in room.read(batch, attempt)]
    checks = {}
    for layer, sae in saes.items():
        own, *others = (_total(p[layer, place].sums for p in parts).fit(place) for place in places[layer])
        checks[layer] = LayerCheck(
            layer=layer,
            median_norm=float(torch.cat([part[layer, sae.hookpoint].norms for part in parts]).median()),
            own=own,
            neighbours=tuple(others),
            problem=_problem(own, others),
        )
    return checks


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


def _problem(own: Fit, others: list[Fit]) -> str:
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


def require_fit(checks: Mapping[int, LayerCheck]) -> None:
    """Refuse SAEs that do not belong where they are used.

    Raises:
        MismatchError: naming the first such layer and the likely cause.
    """
    for check_ in checks.values():
        if check_.problem:
            raise MismatchError(
                f"the SAE of {check_.own.hookpoint} does not fit: {check_.problem} "
                "Check --base_model and --sae_model, or pass --allow_poor_fit"
            )
