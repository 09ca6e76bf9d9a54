"""Load the model and try it before the text is read, and then check that each SAE fits its layer."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from stratalens.config.options import RunConfig
from stratalens.harvest.calibration import calibration_text
from stratalens.harvest.inputs import LoadedModel, ModelInputs, RunInputs
from stratalens.harvest.keep_plan import CODE_BYTES
from stratalens.harvest.memory_plan import estimate_memory, loaded_blocks, memory_limits, plan_passes
from stratalens.harvest.trial import try_model
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import pack_batches
from stratalens.models.hooks import drop_blocks_above
from stratalens.models.limits import require_known_ids
from stratalens.models.loading import Placement, choose_device, choose_dtype, load_blocks
from stratalens.models.site_check import require_true_sites
from stratalens.models.source import ModelSource
from stratalens.progress import Progress
from stratalens.saes.fit_check import (
    SINK_RATIO,
    FitCheck,
    check_fit,
    describe_check,
    require_fit,
)
from stratalens.saes.loaded import LoadedEncoders
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Encoder, Sae, SaeFile


@dataclass(frozen=True)
class OpenModel:
    """The loaded model, cut after the deepest hookpoint, and its SAEs, which are loaded a few layers at a time."""

    model: nn.Module
    saes: Mapping[Hookpoint, SaeFile]
    """Hookpoint -> its SAE, not yet loaded."""
    norm_limits: Mapping[Hookpoint, float]
    """Hookpoint -> norm above which a position is a sink."""
    passes: tuple[tuple[Hookpoint, ...], ...]
    """Groups of layers that fit into memory together; the text is read once for each group."""
    checks: Mapping[Hookpoint, FitCheck]
    """Hookpoint -> how well its SAE fits the model."""
    device: torch.device
    dtype: torch.dtype
    code_bytes: Mapping[Hookpoint, float] = field(default_factory=dict)
    """Hookpoint -> bytes that token-level codes take for each character of text, by the fit check's L0."""
    encoders: LoadedEncoders = field(default_factory=LoadedEncoders)
    """Those of the layers that were asked for last."""

    def probes(self, hookpoints: Iterable[Hookpoint]) -> dict[Hookpoint, Probe[Encoder]]:
        """Load the encoders of some layers onto the device; return hookpoint -> probe.

        Encoders of other layers are freed, unless the caller still has their probes.
        """
        files = {hookpoint: self.saes[hookpoint] for hookpoint in hookpoints}
        return {
            hookpoint: Probe(hookpoint, files[hookpoint].target, encoder, self.norm_limits[hookpoint])
            for hookpoint, encoder in self.encoders.of(files, self.device).items()
        }


def load_probe(sae: SaeFile, device: torch.device) -> Probe[Sae]:
    """Load an SAE with its decoder, the encoder onto a device, for a check of its fit."""
    return Probe(sae.hookpoint, sae.target, sae.load().on(device), math.inf)


def load_and_try(config: RunConfig, inputs: ModelInputs, progress: Progress) -> LoadedModel:
    """Load the model with the blocks that a run needs, and try it on a small batch.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and tokenizer.
        progress: receives messages.

    Raises:
        StratalensError: the model cannot be loaded, or cannot be used as the run would use it.
    """
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    progress.say(describe_model(inputs.source, inputs.saes, device, dtype))
    estimate = estimate_memory(config, inputs, device, dtype)
    limit = memory_limits(config, estimate, device)
    placement = Placement(device, dtype, config.load_in, estimate.total.device - estimate.model)
    progress.stage("load")
    with progress.track("Loading and trying", None):
        model = load_blocks(inputs.source, loaded_blocks(inputs), placement, progress.say)
        require_known_ids(inputs.source, inputs.cutter)
        require_true_sites(model, {place for sae in inputs.saes.values() for place in (sae.hookpoint, sae.target)})
        loaded = LoadedModel(model, device, dtype, limit, config.load_in)
        try_model(inputs, loaded, config.max_length)
    return loaded


def open_model(config: RunConfig, inputs: RunInputs, progress: Progress) -> OpenModel:
    """Load the model, if it is not yet loaded, and check that the SAEs belong to it.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and text.
        progress: receives messages and warnings.

    Raises:
        MismatchError: an SAE does not fit its layer, unless `--allow_poor_fit` is set.
        ModelError: the model cannot be loaded or used.
    """
    loaded = load_and_try(config, inputs, progress) if inputs.loaded is None else inputs.loaded
    model, device = loaded.model, loaded.device
    passes = _plan_passes(config, inputs, loaded, progress)
    progress.stage("fit check")
    checks: dict[Hookpoint, FitCheck] = {}
    encoders = LoadedEncoders()
    with progress.track("Checking the fit", None):
        text = calibration_text(inputs.corpus, inputs.survey, inputs.cutter)
        for hookpoints in passes:
            probes = [load_probe(inputs.saes[hookpoint], device) for hookpoint in hookpoints]
            batches = pack_batches(text.sequences, config.tokens_per_batch, inputs.cutter.special_ids)
            on_device, tokens = (batch.to(device) for batch in batches), config.tokens_per_batch
            declared = {hookpoint: inputs.saes[hookpoint].l0 for hookpoint in hookpoints}
            checks |= check_fit(model, probes, on_device, tokens, declared)
            if len(passes) == 1 and config.workers != "ray":  # the text is read with the same ones
                for probe in probes:
                    encoders.keep(inputs.saes[probe.hookpoint], probe.sae.encoder)
            del probes
    checks = {hookpoint: checks[hookpoint] for hookpoint in inputs.saes}
    for check in checks.values():
        progress.say(describe_check(check))
    if not config.allow_poor_fit:
        require_fit(checks)
    drop_blocks_above(model, max(inputs.saes).block)
    limits = {hookpoint: SINK_RATIO * check.median_norm for hookpoint, check in checks.items()}
    code_bytes = {place: CODE_BYTES * check.own.l0 * text.tokens_per_character for place, check in checks.items()}
    return OpenModel(model, inputs.saes, limits, passes, checks, device, loaded.dtype, code_bytes, encoders)


def open_checked(
    config: RunConfig, inputs: RunInputs, norm_limits: Mapping[Hookpoint, float], progress: Progress
) -> OpenModel:
    """Load the model for SAEs whose fit an earlier run has checked.

    Args:
        config: options of the run.
        inputs: its model source, SAEs and text.
        norm_limits: hookpoint -> norm above which a position is a sink, as that run measured it.
        progress: receives messages and warnings.

    Raises:
        ModelError: the model cannot be loaded or used.
    """
    loaded = load_and_try(config, inputs, progress)
    drop_blocks_above(loaded.model, max(inputs.saes).block)
    return OpenModel(loaded.model, inputs.saes, norm_limits, (), {}, loaded.device, loaded.dtype)


def _plan_passes(
    config: RunConfig, inputs: RunInputs, loaded: LoadedModel, progress: Progress
) -> tuple[tuple[Hookpoint, ...], ...]:
    estimate, limit = estimate_memory(config, inputs, loaded.device, loaded.dtype), loaded.memory_limit
    usable = f"{(limit.device if estimate.on_device else limit.host) / 1e9:.1f} GB"
    if estimate.on_device:
        usable += f" and {limit.host / 1e9:.1f} GB"
    progress.say(f"{estimate.describe()}; {usable} may be used")
    passes = plan_passes(estimate, limit)
    if len(passes) > 1:
        groups = "; ".join(" ".join(map(str, hookpoints)) for hookpoints in passes)
        progress.say(f"The layers do not fit into memory together; reading the text {len(passes)} times: {groups}")
    if not all(estimate.needs([hookpoint]).fits(limit) for hookpoint in estimate.layers):
        progress.warn(
            "one layer alone may not fit into memory; if it does not, use shallower layers, --dtype bfloat16, "
            "--load_in 8bit or a lower --batch_tokens"
        )
    return passes


def describe_model(
    source: ModelSource, saes: Mapping[Hookpoint, SaeFile], device: torch.device, dtype: torch.dtype
) -> str:
    """One line for the user: model, blocks, dtype, device and SAEs."""
    widths = sorted({sae.num_latents for sae in saes.values()})
    hookpoints = " ".join(map(str, saes))
    return (
        f"Model: {source.name}, blocks 0 to {max(saes).block} of {source.num_layers}, "
        f"{str(dtype).removeprefix('torch.')} on {device}; "
        f"SAEs of {' and '.join(f'{w:,}' for w in widths)} latents at layers {hookpoints}"
    )
