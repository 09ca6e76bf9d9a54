"""Plain files of named arrays, safetensors, npz or of torch, of which the user tells the activation.

Their layer and site are those that the name of the file or of a folder above it says: `layers.16`, `layer_16`,
`blocks.16.hook_mlp_out`; without a site it is the output of the block.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import nn

from stratalens.config.sae_activation import FORMS, SaeActivation
from stratalens.errors import CheckpointError
from stratalens.hookpoint import NAME_PATTERN, Hookpoint
from stratalens.models.hook_names import hookpoint_named
from stratalens.saes.activations import Activation, GroupMax, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers import CONTAINERS
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.settings import no_known_place
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header

TAKES_ACTIVATION: bool = True
ENCODERS = ("W_enc", "w_enc", "encoder.weight", "encoder_linear.weight", "W_E")
DECODERS = ("W_dec", "w_dec", "decoder.weight", "decoder_linear.weight", "W_D")
ENCODER_BIASES = ("b_enc", "encoder.bias", "encoder_linear.bias", "b_E")
DECODER_BIASES = ("b_dec", "decoder.bias", "decoder_linear.bias", "b_D", "bias")
THRESHOLD = "threshold"
LAYER = re.compile(rf"(?i)(?:.*[^a-z])?(?:layers?|blocks?)[._-]?0*(?:({NAME_PATTERN})|(\d{{1,5}})(?!\d).*)")
"""A layer, alone or with the name of a site as this program writes it, such as `layer_16_mlp`."""
MAX_LOOKED_INTO = 20
"""Files whose arrays are looked at to recognise the format."""


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    for path in _files(tree)[:MAX_LOOKED_INTO]:
        with suppress(CheckpointError, MemoryError):
            names = read_header(path).shapes
            if _first(ENCODERS, names) and _first(DECODERS, names):
                return True
    return False


def damage_in(tree: SaeTree) -> str:
    """Say why the first of some files that cannot be read, such as a truncated one, is not; empty if all can."""
    for path in _files(tree)[:MAX_LOOKED_INTO]:
        with suppress(MemoryError):
            try:
                read_header(path)
            except CheckpointError as error:
                return str(error)
    return ""


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found = list[Checkpoint]()
    for path in _files(tree):
        place = _place(model, tree, path)
        if place is not None:
            found.append(Checkpoint(path, place, place, path.stem, tree.within(path), told=told))
    if not found:
        raise no_known_place(tree.root, [path.name for path in _files(tree)], model)
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`.

    Raises:
        CheckpointError: see `Format`; or the user did not tell the activation.
    """
    path, told = checkpoint.path, checkpoint.told
    header = read_header(path)
    arrays = _arrays(path, header)
    width = arrays.sizes(header).num_latents
    if told is None:
        raise CheckpointError(f"{path}: does not say which activation it has; give --sae_activation {FORMS}")
    if told.k is not None and (told.k > width or (told.kind == "groupmax" and width % told.k)):
        raise CheckpointError(f"{path}: {told} does not go with its {width} latents")
    if told.kind == "jumprelu" and told.threshold is None:
        header.require({THRESHOLD: (width,)}, "--sae_activation jumprelu")
    read = partial(_encoder, arrays, told)
    return sae_file(checkpoint, header, arrays, Kind(told.kind, told.k, f"tensors {told}"), read, arrays.decode)


def _files(tree: SaeTree) -> list[Path]:
    return [path for path in tree.files if path.suffix in CONTAINERS and path.suffix != ".bin"]


def _place(model: nn.Module, tree: SaeTree, path: Path) -> Hookpoint | None:
    """Where an SAE reads: by the names of its file and of the folders above it, the deepest that says so."""
    folders = path.parent.relative_to(tree.root).parts
    for part in (path.stem, *reversed(folders), tree.root.resolve().name):
        if place := hookpoint_named(model, part):
            return place
        if match := LAYER.fullmatch(part):
            return Hookpoint.parse(match[1]) if match[1] else Hookpoint(int(match[2]))
    return None


def _first(known: Iterable[str], names: Iterable[str]) -> str | None:
    there = set(names)
    return next((name for name in known if name in there), None)


def _arrays(path: Path, header: Header) -> SaeArrays:
    """The arrays by their names, each matrix the way round that goes with the biases, else with fewer components."""
    encoder, decoder = _first(ENCODERS, header.shapes), _first(DECODERS, header.shapes)
    if encoder is None or decoder is None:
        known, kind = (ENCODERS, "encoder") if encoder is None else (DECODERS, "decoder")
        raise CheckpointError(f"{path}: no {kind}; expected a tensor named {', '.join(known)}")
    bias = _first(ENCODER_BIASES, header.shapes)
    rows, columns = header.shape(encoder, axes=2)
    width = max(rows, columns) if bias is None else header.shape(bias, axes=1)[0]
    if rows == columns:
        raise CheckpointError(f"{path}: `{encoder}` is square, so that its axes cannot be told apart; name its format")
    stored = {encoder: rows, decoder: header.shape(decoder, axes=2)[0]}
    turned = frozenset(name for name, size in stored.items() if size != width)
    return SaeArrays(path, encoder, decoder, bias, _first(DECODER_BIASES, header.shapes), turned=turned)


def _encoder(arrays: SaeArrays, told: SaeActivation) -> Encoder:
    linear = arrays.linear(centred=told.centred)
    return Encoder(linear.weight.shape[1], (linear,), _activation(arrays.path, told, len(linear.bias)))


def _activation(path: Path, told: SaeActivation, width: int) -> Activation:
    if told.kind == "topk":
        return TopK(told.k or 0)
    if told.kind == "groupmax":
        return GroupMax(told.k or 0)
    if told.kind == "relu":
        return Threshold.relu(width)
    return Threshold.of(read_array(path, THRESHOLD) if told.threshold is None else torch.full((width,), told.threshold))
