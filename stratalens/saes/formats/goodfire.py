"""Goodfire, and others who save as they do: `...-SAE-lN.pth`, of a block output, with a linear encoder and decoder."""

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.hookpoint import Hookpoint
from stratalens.saes.activations import Threshold
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_header

FILE = re.compile(r".*sae.*-l(\d{1,5})\.pth?", re.IGNORECASE)
"""Such as `Llama-3.1-8B-Instruct-SAE-l19.pth`."""
TAKES_ACTIVATION: bool = False
PREFIXES = ("_linear", "")
"""After `encoder` and `decoder`: Goodfire's, and that of an SAE of DeepSeek-R1-Distill."""


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return any(FILE.fullmatch(path.name) for path in tree.files)


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found = list[Checkpoint]()
    for path in tree.files:
        if match := FILE.fullmatch(path.name):
            place = Hookpoint(int(match[1]))
            found.append(Checkpoint(path, place, place, path.stem, tree.within(path)))
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    header = read_header(checkpoint.path)
    arrays = _arrays(checkpoint.path, header.shapes)
    return sae_file(checkpoint, header, arrays, Kind("relu"), partial(_encoder, arrays), arrays.decode)


def _arrays(path: Path, names: Iterable[str]) -> SaeArrays:
    prefix = next((prefix for prefix in PREFIXES if f"encoder{prefix}.weight" in set(names)), PREFIXES[0])
    encoder, decoder = f"encoder{prefix}", f"decoder{prefix}"
    parts = (f"{encoder}.weight", f"{decoder}.weight", f"{encoder}.bias", f"{decoder}.bias")
    return SaeArrays(path, *parts, turned=frozenset({f"{decoder}.weight"}))


def _encoder(arrays: SaeArrays) -> Encoder:
    linear = arrays.linear()
    return Encoder(linear.weight.shape[1], (linear,), Threshold.relu(len(linear.bias)))
