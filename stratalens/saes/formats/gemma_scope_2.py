"""Gemma Scope 2 (of Gemma 3): `SITE[_all]/layer_N_width_W_l0_SIZE[_affine]/params.safetensors`, config.json or not."""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.models.hook_names import hookpoint_of_side
from stratalens.saes.activations import Threshold
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.settings import no_known_place, read_table, validated_settings
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "params.safetensors"
TAKES_ACTIVATION: bool = False
SKIP = "affine_skip_connection"
"""`[d_model, d_out]`: x times this is added, as SAELens has it. Others have it the other way round."""
FOLDER = re.compile(r"layer_(\d{1,5})_width_.+")
SITE = re.compile(r"(resid_post|attn_out|mlp_out|transcoder)(?:_all)?")
CROSS_LAYER = ("clt", "crosscoder")
"""Folders of what reads or reconstructs several layers at once."""


class _Places(NamedTuple):
    """Modules in a block, with the side of each."""

    source: str
    target: str


PLACES = {
    "resid_post": _Places("output", "output"),
    "attn_out": _Places("self_attn.o_proj.input", "self_attn.o_proj.input"),
    "mlp_out": _Places("post_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
    "transcoder": _Places("pre_feedforward_layernorm.output", "post_feedforward_layernorm.output"),
}
"""Name of a folder -> what its SAEs read and reconstruct; a configuration says so itself."""


class GemmaScope2Config(BaseModel):
    """`config.json`; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    architecture: str = "jump_relu"
    hf_hook_point_in: str = ""
    hf_hook_point_out: str = ""
    l0: float | None = Field(default=None, gt=0, lt=1e9)
    affine_connection: bool | None = False
    type: str | None = None


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(tree.named(re.escape(WEIGHTS_FILE))) or any(_is_cross_layer(tree, path) for path in tree.files)


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found, names = list[Checkpoint](), list[str]()
    for path in tree.named(re.escape(WEIGHTS_FILE)):
        if _is_cross_layer(tree, path):
            continue
        config = _config(path.parent)
        source, target = _modules(path.parent, config)
        names.append(source)
        places = [hookpoint_of_side(model, source), hookpoint_of_side(model, target)]
        if None not in places:
            own, to = (place for place in places if place is not None)
            found.append(Checkpoint(path.parent, own, to, source, tree.within(path.parent), config.l0))
    if found:
        return found
    if not names:
        raise CheckpointError(f"{tree.root}: only cross-layer transcoders or crosscoders, which are not supported")
    raise no_known_place(tree.root, names, model)


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    arrays, header = _opened(checkpoint.path)
    header.require({"threshold": (arrays.sizes(header).num_latents,)}, "`w_enc`")
    return sae_file(checkpoint, header, arrays, Kind("jumprelu"), partial(_encoder, arrays), arrays.decode)


def _opened(folder: Path) -> tuple[SaeArrays, Header]:
    config = _config(folder)
    path = folder / WEIGHTS_FILE
    if config.architecture != "jump_relu":
        raise CheckpointError(f"{folder}: architecture `{config.architecture[:60]}` is unknown; expected jump_relu")
    header = read_header(path)
    if max(len(header.shapes.get(name, ())) for name in ("w_enc", "w_dec")) > 2:
        raise CheckpointError(f"{path}: a cross-layer transcoder or crosscoder, which is not supported")
    skip = SKIP if SKIP in header.shapes else None
    if config.affine_connection and skip is None:
        raise CheckpointError(f"{path}: no tensor `{SKIP}`, which {CONFIG_FILE} says it has")
    turned = frozenset({"w_enc", SKIP} if skip else {"w_enc"})
    return SaeArrays(path, "w_enc", "w_dec", skip=skip, turned=turned), header


def _config(folder: Path) -> GemmaScope2Config:
    """The configuration of a folder; that of its name where there is none."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return GemmaScope2Config()
    return validated_settings(path, GemmaScope2Config, read_table(path, "a checkpoint of Gemma Scope 2 may have it"))


def _modules(folder: Path, config: GemmaScope2Config) -> _Places:
    """What an SAE reads and reconstructs: modules with their sides, such as `model.layers.9.output`."""
    if config.hf_hook_point_in:
        return _Places(config.hf_hook_point_in, config.hf_hook_point_out or config.hf_hook_point_in)
    parts = folder.resolve().parts
    layer = next((int(match[1]) for part in reversed(parts) if (match := FOLDER.fullmatch(part))), None)
    site = next((match[1] for part in reversed(parts) if (match := SITE.fullmatch(part))), None)
    if layer is None or site is None:
        raise CheckpointError(
            f"{folder}: neither {CONFIG_FILE} nor its path says where the SAE reads; name the folders as the "
            "repository does, such as resid_post/layer_9_width_16k_l0_small"
        )
    return _Places(*(f"model.layers.{layer}.{module}" for module in PLACES[site]))


def _is_cross_layer(tree: SaeTree, path: Path) -> bool:
    return path.suffix == ".safetensors" and any(part in CROSS_LAYER for part in path.relative_to(tree.root).parts)


def _encoder(arrays: SaeArrays) -> Encoder:
    linear = arrays.linear()
    return Encoder(linear.weight.shape[1], (linear,), Threshold.of(read_array(arrays.path, "threshold")))
