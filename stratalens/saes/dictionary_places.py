"""Where SAEs of dictionary_learning read: by the names of their folders, and by the `config.json` of their trainer."""

import re
from pathlib import Path

from torch import nn

from stratalens.errors import CheckpointError
from stratalens.files.json_files import json_object
from stratalens.hookpoint import Hookpoint, Side, Site
from stratalens.models.families import hookpoint_of
from stratalens.models.hook_names import hookpoint_of_hook
from stratalens.saes.settings import MAX_SIZE

CONFIG_FILE = "config.json"
PLACE = re.compile(r"(?P<site>[a-z][a-z_]{0,40}?)_layer_?(?P<block>\d{1,6})")
"""Name of a folder, and of a trainer's `submodule_name`."""
SITES: dict[str, tuple[Site, Side]] = {
    "resid_post": ("resid", "out"),
    "resid_out": ("resid", "out"),
    "resid_pre": ("resid", "in"),
    "mlp_out": ("mlp", "out"),
    "attn_out": ("attn", "out"),
    "attention_out": ("attn", "out"),
}
"""Name of a site -> what it is, whatever module the vectors were read from."""
MODULES: dict[str, dict[str, tuple[Site, Side]]] = {
    "out": {"resid": ("resid", "out"), "mlp": ("mlp", "out"), "attn": ("attn", "out"), "attention": ("attn", "out")},
    "in": {
        "resid": ("resid", "in"),
        "mlp": ("mlp_norm", "out"),
        "attn": ("attn_norm", "out"),
        "attention": ("attn_norm", "out"),
    },
}
"""Whether a buffer has the outputs or the inputs of a module -> name of the module -> site."""
DEFAULT_MODULE = "resid"
"""What a trainer reads that names a layer alone: the library's own function takes the block."""


def configured(path: Path) -> dict[str, object]:
    """The settings of the trainer of an `ae.pt`; empty where there are none."""
    trainer = json_object(path.with_name(CONFIG_FILE)).get("trainer")
    return {str(name): value for name, value in trainer.items()} if isinstance(trainer, dict) else {}


def numbered(trainer: dict[str, object], name: str) -> float | None:
    """A setting that is a positive number; None where there is none."""
    value = trainer.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < MAX_SIZE else None


def place_of(model: nn.Module, path: Path) -> tuple[str, Hookpoint | None]:
    """The name of the place of an `ae.pt`, and its hookpoint; None where no part of the model has that name.

    Raises:
        CheckpointError: its folder and its trainer name different places.
    """
    trainer = configured(path)
    folder = next((part for part in reversed(path.parent.resolve().parts) if PLACE.fullmatch(part)), None)
    said = str(trainer.get("submodule_name") or "")
    layer = trainer.get("layer")
    if not said and isinstance(layer, int) and not isinstance(layer, bool):
        said = f"{PLACE.fullmatch(folder)['site'] if folder else DEFAULT_MODULE}_layer_{layer}"  # pyright: ignore[reportOptionalSubscript]
    name = folder or said or path.parent.resolve().name
    side = _side_of(path)
    place = _hookpoint(model, name, side)
    other = _hookpoint(model, said, side) if said else place
    if place is not None and other is not None and other != place:
        raise CheckpointError(f"{path}: its folder says {name}, but {CONFIG_FILE} says {said}; one of them is wrong")
    return name, place


def _side_of(path: Path) -> Side:
    """Whether the buffer of a trainer had the inputs or, by default, the outputs of a module."""
    buffer = json_object(path.with_name(CONFIG_FILE)).get("buffer")
    return "in" if isinstance(buffer, dict) and buffer.get("io") == "in" else "out"


def _hookpoint(model: nn.Module, name: str, side: Side) -> Hookpoint | None:
    match = PLACE.fullmatch(name)
    if match is None:
        return hookpoint_of_hook(model, name) or hookpoint_of(model, name, side)
    site = SITES.get(match["site"]) or MODULES[side].get(match["site"])
    return None if site is None else Hookpoint(int(match["block"]), *site)
