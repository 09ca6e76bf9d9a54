"""Does each SAE belong to its layer? Compares how well it rebuilds its own hookpoint and the two neighbouring ones.

FVU alone misses a neighbouring layer, because residual streams of adjacent blocks resemble each other. The share of the
error that lies in its mean does not: it is near zero where the SAE was trained and grows as soon as the mean shifts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import MismatchError
from stratalens.model import forward, hooked
from stratalens.sae import Sae
from stratalens.tokens import TokenBatch

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


@dataclass
class _Sums:
    """Running sums of one SAE on one hookpoint."""

    positions: int = 0
    fired: int = 0
    squared_error: float = 0.0
    squared: float = 0.0
    error: Tensor | None = field(default=None)
    target: Tensor | None = field(default=None)

    def add(self, target: Float[Tensor, "token d_model"], rebuilt: Float[Tensor, "token d_model"], fired: int) -> None:
        error = (target - rebuilt).double() if target.device.type != "mps" else target - rebuilt
        target = target.to(error.dtype)
        self.positions += len(target)
        self.fired += fired
        self.squared_error += float(error.pow(2).sum())
        self.squared += float(target.pow(2).sum())
        self.error = error.sum(0) if self.error is None else self.error + error.sum(0)
        self.target = target.sum(0) if self.target is None else self.target + target.sum(0)

    def fit(self, hookpoint: str) -> Fit:
        assert self.error is not None, "no position was read"
        assert self.target is not None, "no position was read"
        variance = self.squared - float(self.target.pow(2).sum()) / self.positions
        return Fit(
            hookpoint=hookpoint,
            fvu=self.squared_error / variance,
            mean_error_share=float(self.error.pow(2).sum()) / self.positions / variance,
            l0=self.fired / self.positions,
        )


def neighbours(hookpoint: str) -> tuple[str, ...]:
    """The same place in the blocks below and above: `layers.3`, `layers.5` for `layers.4`."""
    blocks, number, *rest = hookpoint.split(".")
    return tuple(".".join([blocks, str(n), *rest]) for n in (int(number) - 1, int(number) + 1) if n >= 0)


def check(model: nn.Module, saes: Mapping[int, Sae], batches: Iterable[TokenBatch]) -> dict[int, LayerCheck]:
    """Read the calibration documents once: each layer's median norm, and the fit of its SAE here and next door.

    Args:
        model: the decoder, with one block above the deepest hookpoint where the model has one.
        saes: layer -> SAE, on the model's device.
        batches: the calibration passages, on the model's device.
    """
    modules = dict(model.named_modules())
    places = {
        layer: (sae.hookpoint, *(n for n in neighbours(sae.hookpoint) if n in modules)) for layer, sae in saes.items()
    }
    sums = {(layer, place): _Sums() for layer in saes for place in places[layer]}
    norms: dict[int, list[Tensor]] = {layer: [] for layer in saes}
    for batch in batches:
        consumers = {
            place: partial(_consume, batch, place, saes, places, sums, norms)
            for place in {place for several in places.values() for place in several}
        }
        with hooked(model, consumers):
            forward(model, batch.input_ids)
    checks = {}
    for layer in saes:
        own, *others = (sums[layer, place].fit(place) for place in places[layer])
        checks[layer] = LayerCheck(
            layer=layer,
            median_norm=float(torch.cat(norms[layer]).median()),
            own=own,
            neighbours=tuple(others),
            problem=_problem(own, others),
        )
    return checks


def _consume(
    batch: TokenBatch,
    place: str,
    saes: Mapping[int, Sae],
    places: Mapping[int, tuple[str, ...]],
    sums: Mapping[tuple[int, str], _Sums],
    norms: Mapping[int, list[Tensor]],
    module_input: Float[Tensor, "batch seq d_model"],
    module_output: Float[Tensor, "batch seq d_model"],
) -> None:
    for layer, sae in saes.items():
        if place not in places[layer]:
            continue
        source = (module_input if sae.reads_input else module_output).to(batch.countable.device)
        length = torch.linalg.vector_norm(source, dim=-1, dtype=torch.float32)
        countable = length[batch.countable]
        if place == sae.hookpoint:
            norms[layer].append(countable)
        keep = batch.countable & (length <= SINK_RATIO * countable.median())
        x = source[keep]
        latents = sae.encode(x)
        fired = int((latents.values > 0).sum())
        sums[layer, place].add(module_output.to(keep.device)[keep].float(), sae.decode(latents, x), fired)


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
