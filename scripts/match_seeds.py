"""Compare the shipped SAEs with those of another seed of the same recipe, latent by latent.

    python scripts/train_saes.py --corpora DIR --seed 1 --output OTHER
    python scripts/match_seeds.py --other OTHER [--write]

Of each latent the largest cosine of its decoder row with one of the other SAE's (the mean of these over latents is the
mean maximum cosine similarity of Sharkey et al. 2022). A latent that another seed does not find again is a way of
cutting up the activations rather than a part of the model (Paulo and Belrose 2025, "Sparse autoencoders trained on the
same data learn different features"). `--write` writes them to the package, as the column `seed_match` of a result.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro
from safetensors.torch import load_file

from stratalens.files.hashing import sha256_of
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.saes.seed_match import SEED_MATCH_FILE

FOUND_AGAIN = 0.7
"""A cosine above counts as the same direction in the printed table."""


@dataclass(frozen=True)
class Options:
    """What to compare."""

    other: Path
    """Folder of the SAEs of the other seed."""
    write: bool = False
    """Write the cosines to the package."""


def best_cosines(own: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    """The largest cosine of each row with a row of the other SAE."""
    own, other = (rows.float() / rows.float().norm(dim=1, keepdim=True) for rows in (own, other))
    return (own @ other.T).amax(dim=1).numpy()


def main(options: Options) -> None:
    """Print a table by layer, and write the cosines if asked to."""
    tables = []
    folders = sorted(SAE_DIRECTORY.glob("layers.*"), key=lambda path: int(path.name.split(".")[1]))
    print(f"{'hookpoint':<10} {'mean':>6} {'median':>6} {'found again':>11} {'among random directions':>24}")
    for folder in folders:
        path = folder / "sae.safetensors"
        own, other = load_file(path)["W_dec"], load_file(options.other / folder.name / "sae.safetensors")["W_dec"]
        cosines = best_cosines(own, other)
        noise = best_cosines(own, torch.randn(other.shape, generator=torch.Generator().manual_seed(0)))
        share, by_chance = (cosines > FOUND_AGAIN).mean(), noise.mean()
        print(f"{folder.name:<10} {cosines.mean():6.3f} {np.median(cosines):6.3f} {share:11.1%} {by_chance:24.3f}")
        tables.append(pd.DataFrame({"sha256": sha256_of(path), "latent": np.arange(len(own)), "cosine": cosines}))
    if options.write:
        pd.concat(tables, ignore_index=True).to_parquet(SEED_MATCH_FILE, index=False)
        print(f"Written: {SEED_MATCH_FILE}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
