"""Write SAEs in sparsify's format, named after the modules whose outputs they read."""

import json
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from sae_training.recipe import Recipe
from stratalens.errors import ConfigError
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import hookpoint_of, locate


def modules_of(model: nn.Module, hookpoints: Iterable[Hookpoint]) -> dict[Hookpoint, str]:
    """Hookpoint -> name of the module whose output is there.

    Raises:
        ConfigError: the vectors there are not the output of a module as it is.
        ModelError: the model has no such hookpoint.
    """
    names: dict[Hookpoint, str] = {}
    for hookpoint in hookpoints:
        tap = locate(model, hookpoint)
        if hookpoint_of(model, tap.module, "out") != hookpoint:
            raise ConfigError(
                f"{hookpoint}: the vectors at this site are not the output of a module, which sparsify's format needs; "
                "choose another with --sites"
            )
        names[hookpoint] = tap.module
    return names


def export(recipe: Recipe, module: str, weights: dict[str, Tensor]) -> Path:
    """Write the SAE of a module; return the path of its weights."""
    folder = recipe.output / module
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "sae.safetensors")
    d_in = len(weights["b_dec"])
    config = {
        "activation": "topk",
        "expansion_factor": max(1, recipe.num_latents // d_in),
        "normalize_decoder": True,
        "num_latents": recipe.num_latents,
        "k": recipe.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": d_in,
    }
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n")
    return folder / "sae.safetensors"
