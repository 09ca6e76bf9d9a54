"""Qwen-Scope: `layer{n}.sae.pt`, of block outputs, without a configuration.

The activation is TopK. Its k stands in the name of the repository alone (`SAE-Res-Qwen3-8B-Base-W64K-L0_50`).
"""

import re
from functools import partial
from pathlib import Path

from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.hookpoint import Hookpoint
from stratalens.saes.activations import TopK
from stratalens.saes.arrays import Kind, SaeArrays, encoder_of, sae_file
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_header

TAKES_ACTIVATION: bool = True
FILE = re.compile(r"layer(\d{1,6})\.sae\.pt")
K = re.compile(r"(?:^|[-_])L0_([1-9]\d{0,8})(?![0-9])")
"""In the name of a repository."""


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(tree.named(FILE.pattern))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found = list[Checkpoint]()
    for path in tree.named(FILE.pattern):
        match = FILE.fullmatch(path.name)
        assert match is not None
        place = Hookpoint(int(match[1]))
        found.append(Checkpoint(path, place, place, path.name.removesuffix(".sae.pt"), tree.within(path), told=told))
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    path = checkpoint.path
    header = read_header(path)
    arrays = SaeArrays(path, turned=frozenset({"W_dec"}))
    sizes = arrays.sizes(header)
    k = _k_of(path, checkpoint.told)
    if k > sizes.num_latents:
        raise CheckpointError(f"{path}: k = {k} exceeds the {sizes.num_latents} latents")
    return sae_file(
        checkpoint, header, arrays, Kind("topk", k, f"topk {k}"), partial(_encoder, arrays, k), arrays.decode
    )


def _encoder(arrays: SaeArrays, k: int) -> Encoder:
    return encoder_of((), arrays.linear(), TopK(k))


def _k_of(path: Path, told: SaeActivation | None) -> int:
    """The k in the name of the nearest folder that has one, or what the user says."""
    names = [part for given in (path.absolute(), path.resolve()) for part in reversed(given.parts[:-1])]
    named = next((int(match[1]) for name in names if (match := K.search(name))), None)
    if told is not None and (told.kind != "topk" or told.centred or (named is not None and told.k != named)):
        says = f"the name of its folder says topk:{named}" if named else "SAEs of Qwen-Scope are topk:K"
        raise CheckpointError(f"{path}: {says}, but --sae_activation says {told}")
    k = named if told is None else told.k
    if k is None:
        raise CheckpointError(
            f"{path}: neither the file nor the name of its folder (such as SAE-Res-Qwen3-8B-Base-W64K-L0_50) says how "
            "many latents fire; give --sae_activation topk:K"
        )
    return k
