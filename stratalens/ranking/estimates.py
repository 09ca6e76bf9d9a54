"""Estimates, intervals and tests for every latent of a layer."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int

from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.sources import DocumentSources
from stratalens.harvest import FeatureStats
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.harvest.store import HarvestFile
from stratalens.hookpoint import Hookpoint
from stratalens.models.threads import in_threads
from stratalens.ranking import contrast
from stratalens.ranking.flags import flags
from stratalens.ranking.separation import area_between, firing_interval, separation

STREAMED_COLUMNS = (
    *("domain_activation", "general_activation", "specialization"),
    *("domain_firing_rate", "general_firing_rate", "firing_rate_difference"),
    *("domain_density", "general_density", "domain_max_activation", "general_max_activation"),
)
"""Columns that need no values of single documents, in the order of the table."""
LATENTS_AT_ONCE = 256
"""Latents whose document values are held as dense columns at a time."""
MAX_KEPT_BYTES = 2**28
"""Inputs of layers stay in memory up to so many bytes together."""


class RankingInput(NamedTuple):
    """Everything about one layer that the ranking needs."""

    stats: FeatureStats
    documents: DocumentMatrix
    decoder_norms: np.ndarray
    """Norm of each decoder row, `[latent]`."""
    populations: Populations
    sources: DocumentSources
    """Where the documents are from."""

    @property
    def size(self) -> int:
        """Bytes of statistics and documents."""
        columns = [getattr(part, own.name) for part in (self.stats, self.documents) for own in fields(part)]
        dense = [own for own in columns if isinstance(own, np.ndarray)]
        tables = (self.stats.histogram, self.documents.values)
        parts = [part for own in tables for part in (own.data, own.indices, own.indptr)]
        return sum(own.nbytes for own in (*dense, *parts))


def estimates(source: RankingInput, half: Half) -> pd.DataFrame:
    """Estimates, intervals and p-values for every latent of a layer from the documents of one half.

    Only latents that fired are computed, so cost does not grow with the width of the SAE; a dead latent gets
    activations of 0 and no tests.

    Args:
        source: statistics, documents and decoder norms of the layer.
        half: a `Half`, whose documents are used.

    Returns:
        One row per latent, in the order of their numbers.
    """
    stats = source.stats
    documents = replace(source.documents, values=source.documents.values[:, stats.latents])
    domain, general = (source.populations.where(side=side, half=half) for side in Side)
    streamed = _from_stats(stats, domain, general)
    norms = source.decoder_norms[stats.latents]
    scale = norms / mean_norm(stats)
    columns = streamed | {"normalised_specialization": streamed["specialization"] * scale}
    columns |= _from_documents(documents, source.populations, half, columns["specialization"])
    columns["normalised_low"] = columns["specialization_low"] * scale
    columns["normalised_high"] = columns["specialization_high"] * scale
    columns["domain_share"] = _domain_share(stats, documents, domain, general)
    columns["domain_score"] = columns["auroc"] * columns["domain_share"]
    columns["log_ratio"] = np.log(columns["domain_share"] / (1 - columns["domain_share"]))
    columns["flags"] = np.array(flags(stats, source.populations), dtype=object)
    all_latents = np.arange(len(source.decoder_norms))
    table = pd.DataFrame(columns, index=pd.Index(stats.latents, name="latent")).reindex(all_latents)
    table.insert(0, "feature_number", all_latents)
    dead_values = dict.fromkeys([*streamed, "normalised_specialization"], 0.0) | {"flags": "dead"}
    return table.fillna(dead_values).assign(live=np.isin(all_latents, stats.latents), decoder_norm=source.decoder_norms)


def mean_norm(stats: FeatureStats) -> float:
    """Mean hookpoint norm over all kept positions of the layer."""
    return float(stats.norm_sum.sum() / max(1, stats.positions.sum()))


def _from_stats(stats: FeatureStats, domain: np.ndarray, general: np.ndarray) -> dict[str, np.ndarray]:
    """Means, firing rates and densities, which need no values of single documents.

    `domain` and `general` are the numbers of the populations of each side, which are pooled.
    """
    columns: dict[str, np.ndarray] = {}
    for side, own in (("domain", domain), ("general", general)):
        passages, positions = (max(1, int(total[own].sum())) for total in (stats.passages, stats.positions))
        columns[f"{side}_activation"] = stats.mean_sum[own].sum(0) / passages
        columns[f"{side}_firing_rate"] = stats.passages_fired[own].sum(0) / passages
        columns[f"{side}_density"] = stats.positions_fired[own].sum(0) / positions
        columns[f"{side}_max_activation"] = stats.activation_max[own].max(0)
    columns["specialization"] = columns["domain_activation"] - columns["general_activation"]
    columns["firing_rate_difference"] = columns["domain_firing_rate"] - columns["general_firing_rate"]
    return {name: columns[name] for name in STREAMED_COLUMNS}


def _from_documents(
    documents: DocumentMatrix, populations: Populations, half: Half, specialization: np.ndarray
) -> dict[str, np.ndarray]:
    """Tests and intervals, for some latents at a time so that dense values stay small."""
    pooled = document_rows(documents, populations, half)
    strata = [document_rows(documents, populations, half, stratum) for stratum in range(len(populations.strata))]
    passages = [documents.passages[rows] for rows in pooled]

    def part(first: int) -> dict[str, np.ndarray]:
        dense = documents.values[:, first : first + LATENTS_AT_ONCE].toarray()
        x, y = (dense[rows] for rows in pooled)
        interval = contrast.difference_interval(specialization[first : first + LATENTS_AT_ONCE], x, y, *passages)
        found = separation([(dense[domain], dense[general]) for domain, general in strata])
        fires = dense > 0
        firing = firing_interval([(fires[domain], fires[general]) for domain, general in strata])
        return {
            "specialization_low": interval.low,
            "specialization_high": interval.high,
            "auroc": found.auroc,
            "auroc_low": found.interval.low,
            "auroc_high": found.interval.high,
            "pooled_auroc": found.auroc if len(strata) == 1 else area_between(x, y),
            "transfer": (found.interval.low + firing.low) / 2,
            "p_value": found.p_value,
            "hedges_g": contrast.hedges_g(x, y),
        }

    parts = in_threads(part, range(0, max(1, len(specialization)), LATENTS_AT_ONCE))  # one, where none fired
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def document_rows(
    documents: DocumentMatrix, populations: Populations, half: Half, stratum: int | None = None
) -> tuple[Int[np.ndarray, "domain"], Int[np.ndarray, "general"]]:
    """Rows of the domain and of the general documents of a half and of a stratum; None takes all strata."""
    wanted = [populations.where(side=side, half=half, stratum=stratum) for side in Side]
    domain, general = (np.flatnonzero(np.isin(documents.population, own)) for own in wanted)
    return domain, general


def _domain_share(
    stats: FeatureStats, documents: DocumentMatrix, domain: np.ndarray, general: np.ndarray
) -> np.ndarray:
    """Domain activation over the sum of both sides; each side is smoothed by one document with the mean when active."""
    both = np.concatenate([domain, general])
    active = stats.mean_sum[both].sum(0) / np.maximum(1, stats.passages_fired[both].sum(0))
    smoothed = []
    for own in (domain, general):
        count = max(1, int(np.isin(documents.population, own).sum()))
        mean = stats.mean_sum[own].sum(0) / max(1, int(stats.passages[own].sum()))
        smoothed.append((mean * count + active) / (count + 1))
    total = smoothed[0] + smoothed[1]
    return np.where(total > 0, smoothed[0] / np.where(total > 0, total, 1), 0.5)


class RankingInputs(Mapping[Hookpoint, RankingInput]):
    """Hookpoint -> input of the ranking, read from disk when it is wanted.

    Inputs that are small together stay in memory; of others one layer at a time is there.

    Args:
        files: hookpoint -> its harvest on disk.
        decoder_norms: hookpoint -> norm of each decoder row.
        populations: those of the run.
        sources: where the sampled documents are from.
    """

    def __init__(
        self,
        files: Mapping[Hookpoint, HarvestFile],
        decoder_norms: Mapping[Hookpoint, np.ndarray],
        populations: Populations,
        sources: DocumentSources,
    ):
        self.files, self._norms, self._populations, self.sources = files, decoder_norms, populations, sources
        self._kept = dict[Hookpoint, RankingInput]()

    def of_other_files(self, files: Mapping[Hookpoint, HarvestFile]) -> "RankingInputs":
        """The same with other harvests of the same text, by SAEs whose decoder rows have the same norms."""
        return RankingInputs(files, self._norms, self._populations, self.sources)

    def __getitem__(self, hookpoint: Hookpoint) -> RankingInput:
        if hookpoint in self._kept:
            return self._kept[hookpoint]
        norms = self._norms[hookpoint]
        state = self.files[hookpoint].state(len(norms))
        found = RankingInput(state.stats, state.documents.matrix(len(norms)), norms, self._populations, self.sources)
        if sum(own.size for own in self._kept.values()) + found.size <= MAX_KEPT_BYTES:
            self._kept[hookpoint] = found
        return found

    def __iter__(self) -> Iterator[Hookpoint]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)
