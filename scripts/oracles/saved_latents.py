"""What an oracle leaves beside each checkpoint: the latents and reconstructions of its own encoder and decoder."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

FILE = "expected.safetensors"
RECONSTRUCTED = 4
"""Tokens whose reconstructions are kept; they are the largest part of the file."""


def activations(path: Path, site: str, components: int | None = None) -> torch.Tensor:
    """Activations as float32, of all components or of the first ones."""
    return load_file(path)[site].float()[:, :components].clone()


def save_expected(
    folder: Path, library: str, encode: Callable, decode: Callable, x: torch.Tensor, name: str = FILE
) -> None:
    """Encode with the library's own functions, and save what they give with the versions that gave it."""
    with torch.no_grad():
        latents = encode(x)
        reconstructions = decode(latents, x)[:RECONSTRUCTED]
    fired = (latents != 0).sum(dim=1)
    print(f"{folder.name}/{name}: {tuple(latents.shape)} latents, {fired.float().mean():.1f} fire on a token")
    assert bool((latents.max(dim=1).values > 0).any()), "nothing fires: the latents show nothing"
    made_by = f"{library} {version(library)}, torch {torch.__version__}"  # one entry: several would have any order
    content = {"latents": latents.contiguous(), "reconstructions": reconstructions.contiguous()}
    save_file(content, folder / name, {"made by": made_by})
