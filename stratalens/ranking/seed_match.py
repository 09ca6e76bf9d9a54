"""The column that says whether another seed of the SAEs finds a latent again; only for SAEs where this is known."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.rank import Ranking
from stratalens.saes.seed_match import seed_match


def with_seed_match(ranking: Ranking, digests: Mapping[Hookpoint, str]) -> Ranking:
    """The ranking with the column `seed_match` at hookpoints whose SAE is shipped; others stay as they are.

    Args:
        ranking: of all hookpoints.
        digests: hookpoint -> SHA-256 of the weight file of its SAE.
    """
    return replace(
        ranking,
        top={place: _with_column(table, digests[place]) for place, table in ranking.top.items()},
        latents={place: _with_column(table, digests[place]) for place, table in ranking.latents.items()},
    )


def _with_column(table: pd.DataFrame, digest: str) -> pd.DataFrame:
    cosines = seed_match(digest)
    return table if cosines is None else table.assign(seed_match=cosines[table["feature_number"].to_numpy()])
