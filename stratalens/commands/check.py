"""The steps of `check`: do SAEs belong to a model, and how much of what it does do they keep?"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from stratalens.commands.check_model import Loss, check_fits, check_losses
from stratalens.commands.tried_model import TriedModel
from stratalens.config.check_options import CheckConfig
from stratalens.config.options import RunConfig
from stratalens.errors import ModelError
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.check_text import CheckText, check_text
from stratalens.harvest.inputs import ModelInputs, find_model_inputs
from stratalens.hookpoint import Hookpoint
from stratalens.models import find_model
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.models.source import ModelSource
from stratalens.progress import NoProgress, Progress
from stratalens.saes.fit_check import FitCheck
from stratalens.saes.fit_numbers import HookpointFit
from stratalens.saes.sae import SaeFile

LEFT_OUT = "left out by --no_loss"


@dataclass(frozen=True)
class CheckedSae:
    """All that was measured of one SAE."""

    file: SaeFile
    fit: FitCheck
    loss: Loss
    reference: HookpointFit | None = None
    """Its fit in the reference model, of the same text."""


class Checked(NamedTuple):
    """Result of a check."""

    source: ModelSource
    reference: ModelSource | None
    device: torch.device
    dtype: torch.dtype
    text: CheckText
    saes: Mapping[Hookpoint, CheckedSae]

    @property
    def misfits(self) -> list[CheckedSae]:
        """The SAEs that do not fit."""
        return [own for own in self.saes.values() if own.fit.problem]


def check(config: CheckConfig, progress: Progress | None = None) -> Checked:
    """Check the fit of SAEs at their hookpoints and at the candidates, in one pass over a text.

    Args:
        config: all options.
        progress: receives messages and warnings; None for none.

    Raises:
        MismatchError: an SAE is of another width than the model.
        StratalensError: model, SAEs or text cannot be used.
    """
    progress = progress or NoProgress()
    run = with_batch_tokens(config.run_config())
    with torch.inference_mode():
        inputs = find_model_inputs(run, progress)
        text = check_text(config, inputs.cutter)
        reference = None if config.reference_model is None else _find_reference(config, inputs.source, progress)
        checked = _check_saes(run, inputs, text, progress, with_loss=not config.no_loss)
        if reference is not None:
            gc.collect()  # the other model goes first
            fits = _fits_in(run, replace(inputs, source=reference), text, progress)
            checked = {place: replace(own, reference=fits[place].own) for place, own in checked.items()}
    device = choose_device(run.device)
    return Checked(inputs.source, reference, device, choose_dtype(run.dtype, device), text, checked)


def _check_saes(
    run: RunConfig, inputs: ModelInputs, text: CheckText, progress: Progress, *, with_loss: bool
) -> dict[Hookpoint, CheckedSae]:
    loaded = TriedModel.load(run, inputs, progress, head=with_loss)
    checked: dict[Hookpoint, CheckedSae] = {}
    for hookpoints in loaded.passes:
        probes = loaded.probes(hookpoints)
        with progress.track("Trying the SAEs where they belong and elsewhere", None):
            fits = check_fits(loaded, probes, text.sequences, thorough=True)
        losses = check_losses(loaded, probes, fits, text.sequences, progress) if with_loss else {}
        for place in hookpoints:
            checked[place] = CheckedSae(inputs.saes[place], fits[place], losses.get(place, Loss(None, LEFT_OUT)))
    return {place: checked[place] for place in inputs.saes}


def _fits_in(run: RunConfig, inputs: ModelInputs, text: CheckText, progress: Progress) -> dict[Hookpoint, FitCheck]:
    """Check the fit in the reference model."""
    loaded = TriedModel.load(run, inputs, progress, head=False)
    fits: dict[Hookpoint, FitCheck] = {}
    for hookpoints in loaded.passes:
        with progress.track("Trying the SAEs in the reference model", None):
            fits |= check_fits(loaded, loaded.probes(hookpoints), text.sequences, thorough=False)
    return fits


def _find_reference(config: CheckConfig, source: ModelSource, progress: Progress) -> ModelSource:
    """Find the model that the checked one is compared with.

    Raises:
        ModelError: it is of another shape.
    """
    own = {"base_model": config.reference_model, "sae_model": config.sae_model or "shipped", "revision": None}
    found = find_model(config.run_config(**own), progress.say)
    if (found.num_layers, found.d_model) != (source.num_layers, source.d_model):
        raise ModelError(
            f"{found.name}: it has {found.num_layers} layers of width {found.d_model}, and {source.name} has "
            f"{source.num_layers} of width {source.d_model}; compare models of one shape, such as a fine-tuned one "
            "with its base"
        )
    return found
