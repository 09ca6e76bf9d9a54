"""AUROC of reported features within each kind of text, and of each source alone."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import TypeAdapter

from stratalens.corpus import Half, Populations, Side
from stratalens.corpus.sources import DocumentSources
from stratalens.corpus.strata import MIN_STRATUM_DOCUMENTS
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInput, document_rows
from stratalens.ranking.separation import separation

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""Rows of domain and of general documents, for each stratum."""
MAX_SOURCES_SHOWN = 24
"""Of more sources on a side those with the most documents are shown."""


class PartAuroc(NamedTuple):
    """How well a feature separates the sides on a part of the text."""

    side: str
    """Empty for a kind of text, else the side of the source."""
    name: str
    """Of the kind or of the source."""
    auroc: float
    low: float
    """Lower end of the 95% interval."""
    high: float
    domain_documents: int
    general_documents: int


_PARTS = TypeAdapter(list[PartAuroc])


def parts_of(text: str) -> list[PartAuroc]:
    """The entries of a cell of the columns `auroc_by_kind` and `auroc_by_source`.

    Raises:
        ValueError: it holds something else.
    """
    return _PARTS.validate_json(text)


class TextParts(NamedTuple):
    """How well a feature separates the sides on each part of the text."""

    kinds: list[PartAuroc]
    sources: list[PartAuroc]


def text_parts(table: pd.DataFrame) -> dict[int, TextParts]:
    """Feature -> its AUROCs, from the columns of `with_parts`; empty for a table without these columns."""
    if "auroc_by_kind" not in table:
        return {}
    columns = (table[name] for name in ("feature_number", "auroc_by_kind", "auroc_by_source"))
    return {
        int(number): TextParts(parts_of(kinds), parts_of(sources))
        for number, kinds, sources in zip(*columns, strict=True)
    }


def with_parts(
    top: Mapping[Hookpoint, pd.DataFrame], inputs: Mapping[Hookpoint, RankingInput], *, split: bool
) -> dict[Hookpoint, pd.DataFrame]:
    """The tables of reported features with the columns `auroc_by_kind` and `auroc_by_source`, in JSON.

    Args:
        top: hookpoint -> its reported features.
        inputs: hookpoint -> its statistics and documents.
        split: whether documents were reserved for confirmation; these are then used.
    """
    half = Half.CONFIRMATION if split else Half.DISCOVERY
    return {hookpoint: _with_parts(table, inputs[hookpoint], half) for hookpoint, table in top.items()}


def _with_parts(table: pd.DataFrame, source: RankingInput, half: Half) -> pd.DataFrame:
    features, documents, populations = table["feature_number"].tolist(), source.documents, source.populations
    parts = {
        "auroc_by_kind": auroc_by_kind(documents, populations, half, features),
        "auroc_by_source": auroc_by_source(documents, populations, source.sources, half, features),
    }
    columns = {name: [json.dumps(list(map(PartAuroc._asdict, own))) for own in found] for name, found in parts.items()}
    return table.assign(**{name: pd.Series(texts, dtype="str") for name, texts in columns.items()})


def auroc_by_kind(
    documents: DocumentMatrix, populations: Populations, half: Half, features: Sequence[int]
) -> list[list[PartAuroc]]:
    """AUROC of each feature within each kind; nothing where the documents have no kinds.

    Args:
        documents: one layer's values of the sampled documents.
        populations: those of the run.
        half: whose documents are used.
        features: numbers of latents.
    """
    if len(populations.strata) == 1:
        return [[] for _ in features]
    dense = documents.values[:, list(features)].toarray()
    parts = [
        _parts(dense, "", name, [document_rows(documents, populations, half, stratum)])
        for stratum, name in enumerate(populations.strata)
    ]
    return [list(own) for own in zip(*parts, strict=True)]


def auroc_by_source(
    documents: DocumentMatrix,
    populations: Populations,
    sources: DocumentSources,
    half: Half,
    features: Sequence[int],
) -> list[list[PartAuroc]]:
    """AUROC of each feature for each source against the other side's documents of the same kinds.

    Only for a side of several sources, and of these for those with at least five documents.

    Args:
        documents, populations, half, features: as in `auroc_by_kind`.
        sources: where the documents are from.
    """
    dense = documents.values[:, list(features)].toarray()
    source = sources.of(documents.document)
    strata = [document_rows(documents, populations, half, stratum) for stratum in range(len(populations.strata))]
    parts = []
    for side in Side:
        found = list[tuple[int, str, Pairs]]()
        for number, name in enumerate(sources.names[side]):
            pairs = [_of_source(pair, side, source, number) for pair in strata]
            pairs = [pair for pair in pairs if min(map(len, pair)) > 1]
            count = sum(len(pair[side]) for pair in pairs)
            if count >= MIN_STRATUM_DOCUMENTS:
                found.append((count, name, pairs))
        if len(sources.names[side]) > 1:
            found.sort(key=lambda own: (-own[0], own[1]))
            side_name = ("domain", "general")[side]
            parts += [_parts(dense, side_name, name, pairs) for _, name, pairs in found[:MAX_SOURCES_SHOWN]]
    return [list(own) for own in zip(*parts, strict=True)] if parts else [[] for _ in features]


def _of_source(
    pair: tuple[np.ndarray, np.ndarray], side: Side, source: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of one stratum, on one side only those of a source."""
    domain, general = pair
    if side == Side.DOMAIN:
        return domain[source[domain] == number], general
    return domain, general[source[general] == number]


def _parts(dense: Float[np.ndarray, "document feature"], side: str, name: str, pairs: Pairs) -> list[PartAuroc]:
    """The entries of all features for one part of the text."""
    found = separation([(dense[domain], dense[general]) for domain, general in pairs])
    counts = [sum(len(pair[own]) for pair in pairs) for own in Side]
    columns = zip(found.auroc.tolist(), *(end.tolist() for end in found.interval), strict=True)
    return [PartAuroc(side, name, *numbers, *counts) for numbers in columns]
