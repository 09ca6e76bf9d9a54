"""From a harvest to ranked features: selected on the discovery half, estimated and tested on the confirmation half."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from stratalens.corpus.corpus import Half, Side, population
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.models.token_classes import TokenClass
from stratalens.ranking import contrast

LATENTS_AT_ONCE = 256
Q_LIMIT = 0.05
DENSE_SHARE = 0.5
DIGITS_SHARE = 0.5
PUNCTUATION_SHARE = 0.5
CAPITALISED_SHARE = 0.7
EARLY_MASS_SHARE = 0.5


class LayerInput(NamedTuple):
    """What ranking needs of one layer."""

    stats: FeatureStats
    documents: DocumentMatrix
    decoder_norms: np.ndarray
    """`[latent]`"""


@dataclass(frozen=True)
class Ranking:
    """Ranked features of all layers."""

    top: dict[int, pd.DataFrame]
    """Layer -> reported features, best first, one row a feature."""
    latents: dict[int, pd.DataFrame]
    """Layer -> all latents, one row a latent, in the order of their numbers."""


def rank(
    layers: Mapping[int, LayerInput],
    *,
    top_n: int,
    rank_by: str,
    split: bool,
    listed: Mapping[int, Sequence[int]] | None = None,
) -> Ranking:
    """Select the best `top_n` latents of each layer and estimate them on documents that had no part in the selection.

    Args:
        layers: layer -> statistics and documents.
        top_n: features to report a layer.
        rank_by: one of `RANK_METRICS`.
        split: False when too few documents were there to hold half of them back; then all serve both ends and
            `confirmed` stays empty.
        listed: layer -> latents to report in place of the best ones.
    """
    halves = (Half.DISCOVERY, Half.CONFIRMATION if split else Half.DISCOVERY)
    latents, picked = {}, {}
    for layer, source in layers.items():
        discovery, confirmation = (estimates(source, half) for half in halves)
        table = confirmation
        table["discovery_specialization"] = discovery["specialization"]
        table["discovery_auroc"] = discovery["auroc"]
        order = np.lexsort((table.index, -discovery[rank_by].to_numpy()))
        best = [int(latent) for latent in order if table["live"].iloc[latent]][:top_n]
        picked[layer] = best if listed is None else list(listed[layer])
        table["selected"] = table.index.isin(picked[layer])
        latents[layer] = table
    _add_q_values(latents, {layer: np.flatnonzero(table["live"]) for layer, table in latents.items()})
    return Ranking(report(latents, picked, rank_by=rank_by, split=split), latents)


def report(
    latents: Mapping[int, pd.DataFrame], picked: Mapping[int, Sequence[int]], *, rank_by: str, split: bool
) -> dict[int, pd.DataFrame]:
    """Layer -> the rows of its picked latents, ordered, with q-values over the picked ones of all layers."""
    top: dict[int, pd.DataFrame] = {}
    for layer, numbers in picked.items():
        table = latents[layer]
        top[layer] = table.loc[table["feature_number"].isin(numbers)].drop(columns=["selected", "live"])
    _add_q_values(top, {layer: np.arange(len(table)) for layer, table in top.items()})
    return {layer: _ordered(table, rank_by, split) for layer, table in top.items()}


def _ordered(table: pd.DataFrame, rank_by: str, split: bool) -> pd.DataFrame:
    agrees = (table["specialization"] > 0) & (table["discovery_specialization"] > 0)
    confirmed = agrees & (table["q_value"] < Q_LIMIT) & (table["auroc_low"] > 0.5)
    table["confirmed"] = confirmed.astype("boolean") if split else pd.array([pd.NA] * len(table), dtype="boolean")
    table = table.sort_values([rank_by, "feature_number"], ascending=[False, True], ignore_index=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table


def _add_q_values(tables: dict[int, pd.DataFrame], rows: dict[int, np.ndarray]) -> None:
    """Benjamini-Hochberg over the given rows of all layers together; other rows have no q-value."""
    q = contrast.q_values(np.concatenate([tables[layer]["p_value"].to_numpy()[rows[layer]] for layer in tables]))
    start = 0
    for layer, table in tables.items():
        column = np.full(len(table), np.nan)
        column[rows[layer]] = q[start : start + len(rows[layer])]
        table["q_value"] = column
        start += len(rows[layer])


def estimates(source: LayerInput, half: int) -> pd.DataFrame:
    """Estimates, intervals and p-values of every latent of a layer from the documents of one half.

    Only latents that fired are worked on, however wide the SAE: a dead one has activations of 0 and no estimates.
    """
    stats = source.stats
    documents = replace(source.documents, values=source.documents.values[:, stats.latents])
    domain, general = population(Side.DOMAIN, half), population(Side.GENERAL, half)
    streamed = _streamed(stats, domain, general)
    norms = source.decoder_norms[stats.latents]
    scale = norms / mean_norm(stats)
    columns = streamed | {"normalised_specialization": streamed["specialization"] * scale}
    columns |= _from_documents(documents, domain, general, columns["specialization"])
    columns["normalised_low"] = columns["specialization_low"] * scale
    columns["normalised_high"] = columns["specialization_high"] * scale
    columns["domain_share"] = _domain_share(stats, documents, domain, general)
    columns["domain_score"] = columns["auroc"] * columns["domain_share"]
    columns["log_ratio"] = np.log(columns["domain_share"] / (1 - columns["domain_share"]))
    columns["flags"] = np.array(flags(stats), dtype=object)
    everything = np.arange(len(source.decoder_norms))
    table = pd.DataFrame(columns, index=pd.Index(stats.latents, name="latent")).reindex(everything)
    table.insert(0, "feature_number", everything)
    silent = dict.fromkeys([*streamed, "normalised_specialization"], 0.0) | {"flags": "dead"}
    return table.fillna(silent).assign(live=np.isin(everything, stats.latents), decoder_norm=source.decoder_norms)


def mean_norm(stats: FeatureStats) -> float:
    """Mean hookpoint norm over all kept positions of the layer."""
    return float(stats.norm_sum.sum() / max(1, stats.positions.sum()))


def _streamed(stats: FeatureStats, domain: int, general: int) -> dict[str, np.ndarray]:
    passages, positions = np.maximum(1, stats.passages), np.maximum(1, stats.positions)
    activation = {p: stats.mean_sum[p] / passages[p] for p in (domain, general)}
    firing = {p: stats.passages_fired[p] / passages[p] for p in (domain, general)}
    return {
        "domain_activation": activation[domain],
        "general_activation": activation[general],
        "specialization": activation[domain] - activation[general],
        "domain_firing_rate": firing[domain],
        "general_firing_rate": firing[general],
        "firing_rate_difference": firing[domain] - firing[general],
        "domain_density": stats.positions_fired[domain] / positions[domain],
        "general_density": stats.positions_fired[general] / positions[general],
        "domain_max_activation": stats.activation_max[domain],
        "general_max_activation": stats.activation_max[general],
    }


def _from_documents(
    documents: DocumentMatrix, domain: int, general: int, specialization: np.ndarray
) -> dict[str, np.ndarray]:
    """Tests and intervals, some latents at a time so that dense values stay small."""
    rows = [np.flatnonzero(documents.population == p) for p in (domain, general)]
    passages = [documents.passages[r] for r in rows]
    parts = []
    for first in range(0, len(specialization), LATENTS_AT_ONCE):
        dense = documents.values[:, first : first + LATENTS_AT_ONCE].toarray()
        x, y = (dense[r] for r in rows)
        width = contrast.welch_interval(specialization[first : first + LATENTS_AT_ONCE], x, y, *passages)
        area = contrast.auroc(x, y)
        parts.append(
            {
                "specialization_low": width.low,
                "specialization_high": width.high,
                "auroc": area.value,
                "auroc_low": area.interval.low,
                "auroc_high": area.interval.high,
                "p_value": contrast.p_values(x, y),
                "hedges_g": contrast.hedges_g(x, y),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _domain_share(stats: FeatureStats, documents: DocumentMatrix, domain: int, general: int) -> np.ndarray:
    """Domain activation over the sum of both, each side smoothed by one pseudo document at the mean when active."""
    pair = [domain, general]
    active = stats.mean_sum[pair].sum(0) / np.maximum(1, stats.passages_fired[pair].sum(0))
    smoothed = []
    for p in pair:
        count = max(1, int((documents.population == p).sum()))
        mean = stats.mean_sum[p] / max(1, stats.passages[p])
        smoothed.append((mean * count + active) / (count + 1))
    total = smoothed[0] + smoothed[1]
    return np.where(total > 0, smoothed[0] / np.where(total > 0, total, 1), 0.5)


def flags(stats: FeatureStats) -> list[str]:
    """What else than the domain a latent may be about, from where its activation mass lies on domain text."""
    domain = [population(Side.DOMAIN, half) for half in Half]
    mass = stats.class_mass[domain].sum(0)
    total = np.maximum(mass.sum(1), 1e-30)
    share = mass / total[:, None]
    everywhere = stats.positions_fired.sum(0) / max(1, stats.positions.sum())
    conditions = {
        "digits": share[:, TokenClass.DIGITS] > DIGITS_SHARE,
        "currency_or_percent": share[:, TokenClass.CURRENCY_OR_PERCENT] > DIGITS_SHARE,
        "punctuation": share[:, TokenClass.PUNCTUATION] > PUNCTUATION_SHARE,
        "capitalised": share[:, TokenClass.CAPITALISED] > CAPITALISED_SHARE,
        "early_position": stats.early_mass[domain].sum(0) / total > EARLY_MASS_SHARE,
        "dense": everywhere > DENSE_SHARE,
    }
    return ["; ".join(name for name, hit in conditions.items() if hit[at]) for at in range(len(stats.latents))]
