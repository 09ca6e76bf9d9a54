"""From a harvest to ranked features: selected on the discovery half, estimated and tested on the confirmation half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stratalens.corpus import Half
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import contrast
from stratalens.ranking.estimates import RankingInput, estimates

MAX_Q_VALUE = 0.05
"""A confirmed feature has a smaller q-value."""


CANDIDATES_PER_PLACE = 10
"""So many times the reported features of a layer are its candidates."""
TOP_N_PROBABILITY = "top_n_probability"
"""Column that only candidates fill, see `validation.stability`."""


@dataclass(frozen=True)
class Ranking:
    """Ranked features of all layers."""

    top: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> reported features, best first, one row per feature."""
    latents: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> all latents, one row per latent, in the order of their numbers."""
    candidates: dict[Hookpoint, list[int]]
    """Hookpoint -> latents that might have been selected on other documents, best first: those selected, and more. None
    where the user named the features."""


def feature_numbers(top: Mapping[Hookpoint, pd.DataFrame]) -> dict[Hookpoint, list[int]]:
    """Hookpoint -> numbers of the reported features, in the order of the table."""
    return {hookpoint: [int(number) for number in table["feature_number"]] for hookpoint, table in top.items()}


def rank_features(
    hookpoints: Mapping[Hookpoint, RankingInput],
    *,
    top_n: int,
    rank_by: str,
    split: bool,
    listed: Mapping[Hookpoint, Sequence[int]] | None = None,
) -> Ranking:
    """Select the best `top_n` latents of each layer and estimate them on documents that were not used to select them.

    Args:
        hookpoints: hookpoint -> statistics and documents.
        top_n: features to report per layer.
        rank_by: one of `RANK_METRICS`.
        split: False where there are too few documents to reserve half of them; then the same documents are used to
            select and to estimate, and the column `confirmed` stays empty.
        listed: hookpoint -> latents to report instead of the best ones.
    """
    halves = (Half.DISCOVERY, Half.CONFIRMATION if split else Half.DISCOVERY)
    latents, picked, candidates = {}, {}, {}
    for hookpoint, source in hookpoints.items():
        discovery, confirmation = (estimates(source, half) for half in halves)
        table = confirmation
        table["discovery_specialization"] = discovery["specialization"]
        table["discovery_auroc"] = discovery["auroc"]
        table["transfer_rank"] = _ranks(discovery["transfer"].to_numpy())
        best = best_latents(discovery, rank_by, CANDIDATES_PER_PLACE * top_n)
        picked[hookpoint] = best[:top_n] if listed is None else list(listed[hookpoint])
        candidates[hookpoint] = best if listed is None else []
        table["selected"] = table.index.isin(picked[hookpoint])
        latents[hookpoint] = table
    _add_q_values(latents, {hookpoint: np.flatnonzero(table["live"]) for hookpoint, table in latents.items()})
    top = reported_features(latents, picked, rank_by=rank_by, split=split)
    return Ranking(top, latents, candidates)


def best_latents(discovery: pd.DataFrame, rank_by: str, top_n: int) -> list[int]:
    """Numbers of the live latents with the highest values; of equal ones the lower number comes first.

    Args:
        discovery: estimates of all latents from the documents that select.
        rank_by: one of `RANK_METRICS`.
        top_n: how many.
    """
    order = np.lexsort((discovery.index, -discovery[rank_by].to_numpy()))
    return order[discovery["live"].to_numpy()[order]][:top_n].tolist()


def _ranks(values: np.ndarray) -> pd.Series:
    """Place of each latent in falling order, from 1; of equal ones the smaller number is first; none for dead ones."""
    return pd.Series(values).rank(method="first", ascending=False).astype("Int64")


def reported_features(
    latents: Mapping[Hookpoint, pd.DataFrame], picked: Mapping[Hookpoint, Sequence[int]], *, rank_by: str, split: bool
) -> dict[Hookpoint, pd.DataFrame]:
    """Build the tables of reported features; q-values are over the reported features of all layers together.

    Args:
        latents: hookpoint -> table of all its latents.
        picked: hookpoint -> latents to report.
        rank_by: one of `RANK_METRICS`, by which rows are sorted.
        split: whether documents were reserved for confirmation.

    Returns:
        Hookpoint -> its reported features, best first.
    """
    top: dict[Hookpoint, pd.DataFrame] = {}
    for hookpoint, numbers in picked.items():
        table = latents[hookpoint]
        top[hookpoint] = table.loc[table["feature_number"].isin(numbers)].drop(columns=["selected", "live"])
    _add_q_values(top, {hookpoint: np.arange(len(table)) for hookpoint, table in top.items()})
    return {hookpoint: _ordered(table, rank_by, split) for hookpoint, table in top.items()}


def _ordered(table: pd.DataFrame, rank_by: str, split: bool) -> pd.DataFrame:
    agrees = (table["specialization"] > 0) & (table["discovery_specialization"] > 0)
    confirmed = agrees & (table["q_value"] < MAX_Q_VALUE) & (table["auroc_low"] > 0.5)
    table["confirmed"] = confirmed.astype("boolean") if split else pd.array([pd.NA] * len(table), dtype="boolean")
    table = table.sort_values([rank_by, "feature_number"], ascending=[False, True], ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table


def _add_q_values(tables: dict[Hookpoint, pd.DataFrame], rows: dict[Hookpoint, np.ndarray]) -> None:
    """Add q-values (Benjamini-Hochberg) over the given rows of all layers together; other rows get none.

    Rows of dead latents, which a user may list, have no p-value and get none either.
    """
    tested = {hookpoint: table["p_value"].notna().to_numpy() for hookpoint, table in tables.items()}
    rows = {hookpoint: numbers[tested[hookpoint][numbers]] for hookpoint, numbers in rows.items()}
    q = contrast.q_values(np.concatenate([table["p_value"].to_numpy()[rows[place]] for place, table in tables.items()]))
    start = 0
    for hookpoint, table in tables.items():
        column = np.full(len(table), np.nan)
        column[rows[hookpoint]] = q[start : start + len(rows[hookpoint])]
        table["q_value"] = column
        start += len(rows[hookpoint])
