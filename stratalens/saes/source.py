"""Where SAEs come from: the shipped ones, a local directory, or the Hugging Face Hub."""

import re
from collections.abc import Iterable
from pathlib import Path

from stratalens.config.layer_numbers import BRIEF_LAYERS, parse_layers
from stratalens.config.options import RunConfig
from stratalens.errors import CheckpointError, ConfigError, ModelError
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.hub import hub_errors, local_or_hub
from stratalens.models.source import ModelSource
from stratalens.saes.formats import sparsify
from stratalens.saes.sae import SaeFile


def find_saes(config: RunConfig, model: ModelSource) -> dict[int, SaeFile]:
    """Find the SAE of every layer asked for, in rising order of layers.

    Raises:
        ConfigError: a layer is asked for that the SAE folder lacks.
        CheckpointError: a checkpoint is missing, corrupt, or of another width than the model.
        ModelError: a layer lies beyond the model.
    """
    root = SAE_DIRECTORY if config.sae_model is None else _sae_root(config)
    found = sparsify.hookpoints(root)
    by_layer = _by_layer(found)
    wanted = parse_layers(config.layers)
    if wanted is None and config.sae_model is None:
        wanted = BRIEF_LAYERS
    layers = sorted(by_layer) if wanted in (None, "all") else wanted
    assert not isinstance(layers, str)
    if not layers:
        raise CheckpointError(f"{root}: none of its hookpoints lies in a numbered layer (found: {', '.join(found)})")
    saes = {}
    for layer in layers:
        if layer >= model.num_layers:
            raise ModelError(f"{model.name} has layers 0 to {model.num_layers - 1}; layer {layer} was asked for")
        if layer not in by_layer:
            raise ConfigError(f"{root}: no SAE for layer {layer}; it has layers {' '.join(map(str, sorted(by_layer)))}")
        hookpoint = _one_hookpoint(layer, by_layer[layer])
        saes[layer] = sparsify.find_sae(found[hookpoint], hookpoint)
        if saes[layer].d_model != model.d_model:
            raise CheckpointError(
                f"{found[hookpoint]}: the SAE reads vectors of width {saes[layer].d_model}, "
                f"but {model.name} has width {model.d_model}; it was made for another model"
            )
    return saes


def _by_layer(hookpoints: Iterable[str]) -> dict[int, list[str]]:
    by_layer: dict[int, list[str]] = {}
    for hookpoint in hookpoints:
        if match := re.fullmatch(r"[A-Za-z_]+\.(\d+)(\..+)?", hookpoint):
            by_layer.setdefault(int(match[1]), []).append(hookpoint)
    return by_layer


def _one_hookpoint(layer: int, candidates: list[str]) -> str:
    """The block's own output where there is an SAE for it, else the only other hookpoint of the layer."""
    blocks = [hookpoint for hookpoint in candidates if hookpoint.count(".") == 1]
    chosen = blocks or candidates
    if len(chosen) > 1:
        raise ConfigError(
            f"layer {layer} has several SAEs ({', '.join(chosen)}); point --sae_model at a folder with one"
        )
    return chosen[0]


def _sae_root(config: RunConfig) -> Path:
    assert config.sae_model is not None
    source = local_or_hub(config.sae_model, CheckpointError)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    with hub_errors(source, CheckpointError):
        patterns = [f"**/{name}" for name in (sparsify.CONFIG_FILE, sparsify.WEIGHTS_FILE)]
        wanted = parse_layers(config.layers)
        if isinstance(wanted, tuple):
            patterns = [f"*.{layer}{rest}/*" for layer in wanted for rest in ("", ".*")]
        return Path(snapshot_download(source, allow_patterns=patterns))
