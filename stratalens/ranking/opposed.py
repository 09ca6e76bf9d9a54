"""Opposed features: those that fire less on the domain, selected and tested on their own, with the sides exchanged."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput
from stratalens.ranking.rank import TOP_N_PROBABILITY, rank_features

OPPOSED_COLUMNS: Mapping[str, str] = {
    "opposed_rank": "rank",
    "opposed_p_value": "p_value",
    "opposed_q_value": "q_value",
    "opposed_confirmed": "confirmed",
}
"""Column of the table of all latents, which only opposed features fill -> what it is in their own table."""


def with_opposed(
    latents: Mapping[Hookpoint, pd.DataFrame],
    sources: Mapping[Hookpoint, RankingInput],
    *,
    top_n: int,
    rank_by: str,
    split: bool,
) -> dict[Hookpoint, pd.DataFrame]:
    """Select and test the features that fire less on the domain, as `rank_features` does those that fire more.

    Asked about are the live latents whose specialization is below 0 on the discovery half. q-values are over the
    opposed features of all layers, and over no others.

    Args:
        latents: hookpoint -> table of all its latents.
        sources: hookpoint -> statistics and documents, of which one at a time is held.
        top_n: features to select per layer; fewer where fewer latents fire less on the domain.
        rank_by: one of `RANK_METRICS`.
        split: whether documents were reserved for confirmation.

    Returns:
        The tables of all latents with the columns of `OPPOSED_COLUMNS`.
    """
    below = {
        hookpoint: np.flatnonzero(table["live"] & (table["discovery_specialization"] < 0))
        for hookpoint, table in latents.items()
    }
    top = rank_features(_Exchanged(sources, below), top_n=top_n, rank_by=rank_by, split=split).top
    return {hookpoint: _with_columns(table, top[hookpoint]) for hookpoint, table in latents.items()}


def opposed_features(latents: pd.DataFrame) -> pd.DataFrame:
    """The opposed features of a layer, best first, in the columns of reported features.

    Every measure has the sign of the table of all latents: of an opposed feature the specialization is below 0 and the
    AUROC below 0.5. Only its p-value is in the other direction, that general documents exceed domain ones.

    Args:
        latents: all latents of the layer, with the columns of `OPPOSED_COLUMNS`.
    """
    own = latents.loc[latents["opposed_rank"].notna()].sort_values("opposed_rank", ignore_index=True)
    columns = {of_features: own[name] for name, of_features in OPPOSED_COLUMNS.items()}
    of_others = [name for name in (*OPPOSED_COLUMNS, "selected", "live", TOP_N_PROBABILITY) if name in own]
    return own.drop(columns=of_others).assign(**columns)


def opposed_tables(latents: Mapping[Hookpoint, pd.DataFrame]) -> dict[Hookpoint, pd.DataFrame]:
    """Hookpoint -> its opposed features; none where all latents are in a table of an earlier version."""
    known = {hookpoint: table for hookpoint, table in latents.items() if set(OPPOSED_COLUMNS) <= set(table)}
    return {hookpoint: opposed_features(table) for hookpoint, table in known.items()}


def _with_columns(latents: pd.DataFrame, top: pd.DataFrame) -> pd.DataFrame:
    own = top.set_index("feature_number").reindex(latents["feature_number"]).set_axis(latents.index)
    columns = {name: own[of_features] for name, of_features in OPPOSED_COLUMNS.items()}
    return latents.assign(**columns | {"opposed_rank": own["rank"].astype("Int64")})


class _Exchanged(Mapping[Hookpoint, RankingInput]):
    """Hookpoint -> input of the ranking with the sides exchanged, of some latents alone; made at each access.

    Args:
        sources: hookpoint -> statistics and documents.
        latents: hookpoint -> latents that fired, in rising order.
    """

    def __init__(self, sources: Mapping[Hookpoint, RankingInput], latents: Mapping[Hookpoint, np.ndarray]):
        self._sources, self._latents = sources, latents

    def __getitem__(self, hookpoint: Hookpoint) -> RankingInput:
        source = self._sources[hookpoint]
        stats, populations = source.stats.only(self._latents[hookpoint]), replace(source.populations, exchanged=True)
        return source._replace(stats=stats, populations=populations)

    def __iter__(self) -> Iterator[Hookpoint]:
        return iter(self._latents)

    def __len__(self) -> int:
        return len(self._latents)
