"""Find the SAEs of the requested layers: the shipped ones, a local directory, or a Hugging Face Hub repository."""

import re
from collections.abc import Iterable
from pathlib import Path

from stratalens.config.layer_numbers import DEFAULT_LAYERS, parse_layers
from stratalens.config.options import RunConfig
from stratalens.errors import CheckpointError, ConfigError, ModelError
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.hub import hub_errors, local_or_hub
from stratalens.models.source import ModelSource
from stratalens.saes.formats import sparsify
from stratalens.saes.sae import SaeFile


def find_saes(config: RunConfig, model: ModelSource) -> dict[int, SaeFile]:
    """Find the SAE of every requested layer, in rising order of layers, without loading weights.

    Raises:
        ConfigError: the SAE folder has no SAE for a requested layer, or has several.
        CheckpointError: a checkpoint is missing or corrupt, or its width is not that of the model.
        ModelError: the model does not have a requested layer.
    """
    root = SAE_DIRECTORY if config.sae_model is None else _sae_root(config)
    directories = sparsify.hookpoints(root)
    by_layer = _group_by_layer(directories)
    wanted = parse_layers(config.layers)
    if wanted is None and config.sae_model is None:
        wanted = DEFAULT_LAYERS
    layers = sorted(by_layer) if wanted in (None, "all") else wanted
    assert not isinstance(layers, str)
    if not layers:
        raise CheckpointError(
            f"{root}: none of its hookpoints is in a numbered layer (found: {', '.join(directories)})"
        )
    saes = {}
    for layer in layers:
        if layer >= model.num_layers:
            raise ModelError(f"{model.name} has layers 0 to {model.num_layers - 1}; layer {layer} was asked for")
        if layer not in by_layer:
            raise ConfigError(f"{root}: no SAE for layer {layer}; it has layers {' '.join(map(str, sorted(by_layer)))}")
        hookpoint = _choose_hookpoint(layer, by_layer[layer])
        saes[layer] = sparsify.find_sae(directories[hookpoint], hookpoint)
        if saes[layer].d_model != model.d_model:
            raise CheckpointError(
                f"{directories[hookpoint]}: the SAE reads vectors of width {saes[layer].d_model}, "
                f"but {model.name} has width {model.d_model}; it was made for another model"
            )
    return saes


def _group_by_layer(hookpoints: Iterable[str]) -> dict[int, list[str]]:
    by_layer: dict[int, list[str]] = {}
    for hookpoint in hookpoints:
        if match := re.fullmatch(r"[A-Za-z_]+\.(\d+)(\..+)?", hookpoint):
            by_layer.setdefault(int(match[1]), []).append(hookpoint)
    return by_layer


def _choose_hookpoint(layer: int, candidates: list[str]) -> str:
    """The block's own output if there is an SAE for it, else the only other hookpoint of the layer."""
    blocks = [hookpoint for hookpoint in candidates if hookpoint.count(".") == 1]
    chosen = blocks or candidates
    if len(chosen) > 1:
        raise ConfigError(
            f"layer {layer} has several SAEs ({', '.join(chosen)}); give --sae_model a folder with only one of them"
        )
    return chosen[0]


def _sae_root(config: RunConfig) -> Path:
    """Directory of the SAEs; of a Hub repository, only the files of the requested layers are downloaded."""
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
