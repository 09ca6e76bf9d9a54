"""Gemma Scope (of Gemma 2): `layer_N/width_W/average_l0_K/params.npz`, in a repository that is named after its site."""

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.hookpoint import Hookpoint, Site
from stratalens.saes.activations import Threshold
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.steps import Rescale, Step
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header

WEIGHTS_FILE = "params.npz"
TAKES_ACTIVATION: bool = False
LAYER = re.compile(r"layer_(\d{1,5})")
L0 = re.compile(r"average_l0_(\d{1,7}(?:\.\d{1,4})?)")
EMBEDDING = "embedding"
SITES = re.compile(r"(?:.*[-_])?(res|mlp|att|transcoder)s?(?:-canonical)?")
"""The end of the name of a repository, such as `gemma-scope-2b-pt-res`."""
NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


class _Place(NamedTuple):
    """Where the SAEs of a repository read, and where what they reconstruct is."""

    source: Site
    target: Site


PLACES: dict[str, _Place] = {
    "res": _Place("resid", "resid"),
    "mlp": _Place("mlp", "mlp"),
    "att": _Place("attn_heads", "attn_heads"),
    "transcoder": _Place("mlp_norm_no_gain", "mlp"),
}
"""`-mlp` is what comes out of the norm after the MLP; `-att` what o_proj reads; transcoders read before the gain."""


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(tree.named(re.escape(WEIGHTS_FILE)))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found = [_checkpoint(tree, path.parent) for path in tree.named(re.escape(WEIGHTS_FILE))]
    known = [checkpoint for checkpoint in found if checkpoint is not None]
    if not known:
        raise CheckpointError(f"{tree.root}: no {WEIGHTS_FILE} in a folder whose path names a layer, such as layer_20")
    return known


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    arrays, threshold, header = _opened(checkpoint.path)
    scale = header.shape(arrays.encoder, axes=2)[0] ** 0.5 if checkpoint.module == EMBEDDING else 1.0
    header.require({threshold: (arrays.sizes(header).num_latents,)}, f"`{arrays.encoder}`")
    read = (partial(_encoder, arrays, threshold, scale), partial(arrays.decode, factor=scale))
    return sae_file(checkpoint, header, arrays, Kind("jumprelu", settings=f"gemma_scope {scale}"), *read)


def _checkpoint(tree: SaeTree, folder: Path) -> Checkpoint | None:
    """Where the SAE of a folder reads; None if its path names no layer."""
    parts = folder.resolve().parts
    name = tree.within(folder)
    l0 = next((float(match[1]) for part in reversed(parts) if (match := L0.fullmatch(part))), None)
    layer = next((int(match[1]) for part in reversed(parts) if (match := LAYER.fullmatch(part))), None)
    if layer is None and EMBEDDING in parts:  # what the embedding gives out, which Gemma multiplies by sqrt(d_model)
        place = Hookpoint(0, "resid", "in")
        return Checkpoint(folder, place, place, EMBEDDING, name, l0)
    if layer is None:
        return None
    site = next((match[1] for part in reversed(parts) if (match := SITES.fullmatch(part))), None)
    if site is None:
        raise CheckpointError(
            f"{folder}: its path does not say at which site the SAE reads; name a folder above it as the repository "
            "it is from, such as gemma-scope-2b-pt-res, -mlp, -att or -transcoders"
        )
    source, target = (Hookpoint(layer, own) for own in PLACES[site])
    return Checkpoint(folder, source, target, f"{site}/layer_{layer}", name, l0)


def _opened(folder: Path) -> tuple[SaeArrays, str, Header]:
    """The names of the arrays, which may be in small letters, that of the thresholds, and what the file holds."""
    path = folder / WEIGHTS_FILE
    header = read_header(path)
    there = {name.lower(): name for name in header.shapes}
    encoder, decoder, encoder_bias, decoder_bias, threshold = (there.get(name.lower(), name) for name in NAMES)
    factor = there.get("scaling_factor")
    if factor is not None and not bool((read_array(path, factor) == 1).all()):
        raise CheckpointError(f"{path}: `{factor}` is not all ones, which is not supported")
    turned = frozenset({encoder})
    arrays = SaeArrays(path, encoder, decoder, encoder_bias, decoder_bias, turned=turned)
    return arrays, threshold, header


def _encoder(arrays: SaeArrays, threshold: str, scale: float) -> Encoder:
    linear = arrays.linear()
    before: tuple[Step, ...] = (Rescale(1 / scale, 1.0),) if scale != 1 else ()
    activation = Threshold.of(read_array(arrays.path, threshold))
    return Encoder(linear.weight.shape[1], (*before, linear), activation)
