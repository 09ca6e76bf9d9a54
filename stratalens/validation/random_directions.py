"""What SAEs of random directions find of a domain, through the same selection and the same tests as a run."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import rank_features
from stratalens.ranking.estimates import RankingInput
from stratalens.validation.probes import FeatureProbe, feature_probes


class RandomDirections(NamedTuple):
    """The best latents of an SAE of random directions at one hookpoint."""

    features: int
    """Latents that were selected."""
    confirmed: int
    average_auroc: float
    """Mean AUROC of the selected latents on the confirmation half; 0.5 where none is selected."""
    average_specialization: float
    """Mean normalised specialization of the selected latents there; 0 where none is selected."""
    best_features: list[FeatureProbe]
    """Probes on the best of them, as those on the reported features."""


def random_direction_controls(
    config: RunConfig, sources: Mapping[Hookpoint, RankingInput]
) -> dict[Hookpoint, RandomDirections]:
    """Select and test latents of random directions as the run does with those of its SAEs.

    Args:
        config: how many are selected, and by what.
        sources: hookpoint -> statistics and documents of the SAE of random directions, on the text of the run.
    """
    ranking = rank_features(sources, top_n=config.top_n, rank_by=config.rank_by, split=True)
    found = {}
    for place, table in ranking.top.items():
        found[place] = RandomDirections(
            features=len(table),
            confirmed=int(table["confirmed"].to_numpy(bool).sum()),
            average_auroc=_mean(table, "auroc", of_none=0.5),
            average_specialization=_mean(table, "normalised_specialization", of_none=0.0),
            best_features=feature_probes(sources[place], table),
        )
    return found


def _mean(table: pd.DataFrame, column: str, of_none: float) -> float:
    return float(table[column].to_numpy(float).mean()) if len(table) else of_none
