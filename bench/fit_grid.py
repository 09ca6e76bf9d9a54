"""The grid of faults by which the fit check is measured: SAEs in the files of every format, right and wrong ones.

A format takes part by one line of `WRITERS` in `fit_writers.py`, a fault of the weights by one line of `WEIGHT_FAULTS`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from fit_writers import Weights, Written
from torch import Tensor, nn

from stratalens.config.validation import make_config
from stratalens.errors import StratalensError
from stratalens.harvest.open_model import load_probe
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch
from stratalens.models.source import ModelSource
from stratalens.saes import find_saes
from stratalens.saes.fit_check import FitCheck, check_fit
from stratalens.saes.sae import SaeFile

BATCH_TOKENS = 4096
NOTHING = "it explains nothing here"
"""What is said where no place fits: all that can be known of weights in another order."""
CUT_BYTES = 1000
"""Cut off a file that is truncated."""


def _order(size: int) -> Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(0))


def _random_norms(size: int) -> Tensor:
    return (2 * torch.rand(size, 1, generator=torch.Generator().manual_seed(0)) - 1).mul(1.5).exp()


class WeightFault(NamedTuple):
    """What may be wrong with weights."""

    make: Callable[[Weights], Weights]
    reason: str
    """Expression for what the refusal must say."""


WEIGHT_FAULTS: dict[str, WeightFault] = {
    "transposed": WeightFault(lambda w: replace(w, encoder=w.encoder.T), r"shape|width"),
    "b_dec not subtracted": WeightFault(lambda w: replace(w, bias=w.bias + w.encoder @ w.b_dec), r"b_dec|nothing here"),
    "b_dec not added": WeightFault(
        lambda w: replace(w, b_dec=torch.zeros_like(w.b_dec), bias=w.folded_bias), r"b_dec|nothing here"
    ),
    "input scale forgotten": WeightFault(
        lambda w: replace(w, encoder=w.encoder * w.rms, decoder=w.decoder / w.rms, b_dec=w.b_dec / w.rms),
        r"scale|declares",
    ),
    "decoder norms forgotten": WeightFault(
        lambda w: replace(w, decoder=w.decoder * _random_norms(len(w.decoder))), r"scale|norm"
    ),
    "latents shuffled": WeightFault(lambda w: replace(w, decoder=w.decoder[_order(len(w.decoder))]), NOTHING),
    "dimensions shuffled": WeightFault(
        lambda w: replace(
            w,
            encoder=w.encoder[:, _order(len(w.b_dec))],
            decoder=w.decoder[:, _order(len(w.b_dec))],
            b_dec=w.b_dec[_order(len(w.b_dec))],
        ),
        NOTHING,
    ),
}
"""Fault -> how weights get it, in the file of any format, and the right reason."""


NO_FAULTS = frozenset([("named arrays", "transposed"), ("circuit-tracer", "transposed")])
"""(Format, fault) that is none, since the format takes the arrays either way."""


@dataclass(frozen=True)
class Case:
    """One SAE that is used somewhere."""

    fault: str
    """`right` where there is none."""
    format: str
    file: SaeFile
    reason: str
    """Expression for the right reason of a refusal; empty for a right SAE."""


@dataclass(frozen=True)
class Verdict:
    """What came out of a case."""

    fault: str
    format: str
    place: str
    problem: str
    """Empty where it was taken."""
    is_right_reason: bool
    fit: FitCheck | None = None


def read(written: Written, model: ModelSource) -> dict[Hookpoint, SaeFile]:
    """Find SAEs as a user's command does."""
    options = {"base_model": model.location, "sae_model": str(written.root), **written.options}
    return find_saes(make_config(**options), model)


def moved(case: Case, place: Hookpoint, reason: str) -> Case:
    """The same SAE used at another place."""
    return replace(case, file=replace(case.file, hookpoint=place, target=place), reason=reason)


def refused_when_read(name: str, kind: str, written: Written, model: ModelSource, reason: str) -> Verdict | Case:
    """A case of a fault in a file; the verdict at once if the file cannot be read."""
    try:
        ((place, file),) = read(written, model).items()
        file.load()
    except StratalensError as error:
        return Verdict(name, kind, "", str(error), re.search(reason, str(error)) is not None)
    assert place == file.hookpoint
    return Case(name, kind, file, reason)


def cut(written: Written) -> None:
    """Truncate every file of weights."""
    for path in written.root.rglob("*"):
        if path.suffix in (".safetensors", ".npz", ".pt", ".pth"):
            path.write_bytes(path.read_bytes()[:-CUT_BYTES])


def judged(model: nn.Module, cases: Sequence[Case], batches: Sequence[TokenBatch]) -> Iterator[Verdict]:
    """Yield the verdict on each case, of `stratalens check`: at most one SAE of a hookpoint in a pass."""
    device, waiting = next(model.parameters()).device, list(cases)
    while waiting:
        own: dict[Hookpoint, Case] = {}
        for case in waiting:
            own.setdefault(case.file.hookpoint, case)
        waiting = [case for case in waiting if case not in own.values()]
        probes = [load_probe(case.file, device) for case in own.values()]
        declared = {place: case.file.l0 for place, case in own.items()}
        for place, check in check_fit(model, probes, batches, BATCH_TOKENS, declared, thorough=True).items():
            case = own[place]
            is_right = bool(check.problem) and re.search(case.reason, check.problem) is not None
            yield Verdict(case.fault, case.format, str(place), check.problem, is_right, check)
