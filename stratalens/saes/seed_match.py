"""How well each latent of the shipped SAEs is found again by the same recipe with another seed."""

from functools import cache

import numpy as np
import pandas as pd
from jaxtyping import Float

from stratalens.models.embedded import SAE_DIRECTORY

SEED_MATCH_FILE = SAE_DIRECTORY / "seed_match.parquet"
"""Written by `scripts/match_seeds.py`: SHA-256 of a weight file, latent, cosine."""


def seed_match(digest: str) -> Float[np.ndarray, "latent"] | None:
    """Of each latent the largest cosine of its decoder row with one of the SAE of the other seed.

    Args:
        digest: SHA-256 of the weight file of an SAE.

    Returns:
        None for an SAE that is not shipped.
    """
    return _by_digest().get(digest)


@cache
def _by_digest() -> dict[str, Float[np.ndarray, "latent"]]:
    table = pd.read_parquet(SEED_MATCH_FILE).sort_values("latent")
    return {str(digest): own["cosine"].to_numpy(np.float64) for digest, own in table.groupby("sha256")}
