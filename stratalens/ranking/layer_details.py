"""Details of a layer's reported features for the page: histograms, similar features of other layers, an interval."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt64

from stratalens.corpus import Half, Populations, Side
from stratalens.harvest import FeatureStats
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.harvest.state.statistics import HISTOGRAM_BINS
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import contrast
from stratalens.ranking.estimates import RankingInput, mean_norm

MAX_COMPARED_DOCUMENTS = 2048
"""Documents over which features are correlated, those of smallest hash."""
MIN_CORRELATION = 0.3
"""Features of two layers with a smaller correlation are not reported as similar."""


class SideHistogram(NamedTuple):
    """Number of passages of one side, by mean activation of one feature."""

    silent: int
    """Passages in which the feature does not fire."""
    fired: list[int]
    """Passages in which it fires, by logarithmic bin, see `statistics.histogram_bin`."""


class LayerDetails(NamedTuple):
    """Details of one layer, with its features in the order of the table of reported features."""

    histograms: list[tuple[SideHistogram, SideHistogram]]
    """For each feature the histograms of domain and of general passages, both halves together."""
    average_low: float
    """Lower end of the 95% interval of the mean normalised specialization of the reported features."""
    average_high: float
    """Upper end of that interval."""
    document: UInt64[np.ndarray, "document"]
    """Hashes of the compared documents."""
    values: Float[np.ndarray, "document feature"]
    """Values of the compared documents, centred on the mean of each side and scaled to columns of length 1."""


class SimilarFeature(NamedTuple):
    """The reported feature of another hookpoint that correlates most with a feature."""

    hookpoint: Hookpoint
    feature: int
    correlation: float
    """Pearson's correlation over documents, after centring each side on its mean."""


def layer_details(source: RankingInput, features: pd.DataFrame, *, split: bool) -> LayerDetails:
    """Compute the details of a layer that the page shows.

    Args:
        source: statistics and documents of the layer.
        features: its reported features, with number, decoder norm and normalised specialization.
        split: whether documents were reserved for confirmation.
    """
    numbers = features["feature_number"].to_numpy()
    documents, populations = source.documents, source.populations
    dense = documents.values[:, numbers].toarray()
    half = Half.CONFIRMATION if split else Half.DISCOVERY
    rows = [np.flatnonzero(np.isin(documents.population, populations.where(side=side, half=half))) for side in Side]
    interval = _average_interval(documents, dense, features, mean_norm(source.stats), rows)
    compared = slice(0, MAX_COMPARED_DOCUMENTS)
    return LayerDetails(
        histograms=_histograms(source.stats, numbers, populations),
        average_low=float(interval.low[0]),
        average_high=float(interval.high[0]),
        document=documents.document[compared],
        values=_standardise_within_sides(dense[compared], populations.sides[documents.population[compared]]),
    )


def _average_interval(
    documents: DocumentMatrix, dense: np.ndarray, features: pd.DataFrame, norm: float, sides: Sequence[np.ndarray]
) -> contrast.Interval:
    """Interval of the mean over features, from one value per document: its mean over features.

    `sides` are the rows of the documents of each side.
    """
    weight = features["decoder_norm"].to_numpy() / norm / max(1, len(features))
    x, y = ((dense[rows] @ weight)[:, None] for rows in sides)
    estimate = np.array([features["normalised_specialization"].mean() if len(features) else 0.0])
    return contrast.difference_interval(estimate, x, y, *(documents.passages[rows] for rows in sides))


def _histograms(
    stats: FeatureStats, numbers: np.ndarray, populations: Populations
) -> list[tuple[SideHistogram, SideHistogram]]:
    width = len(stats.latents)
    columns = np.searchsorted(stats.latents, numbers)
    live = np.append(stats.latents, -1)[columns] == numbers
    histograms = []
    for column, fires in zip(columns, live, strict=True):
        sides = []
        for side in Side:
            own = populations.where(side=side)
            rows = own * width + column
            fired = stats.histogram[rows].sum(0) if fires else np.zeros(HISTOGRAM_BINS, np.int64)
            silent = int(stats.passages[own].sum() - fired.sum())
            sides.append(SideHistogram(silent, np.asarray(fired).tolist()))
        histograms.append((sides[0], sides[1]))
    return histograms


def _standardise_within_sides(values: np.ndarray, document_side: np.ndarray) -> Float[np.ndarray, "document feature"]:
    centred = np.array(values, dtype=np.float32)
    for side in Side:
        rows = document_side == side
        if rows.any():
            centred[rows] -= centred[rows].mean(0)
    length = np.linalg.norm(centred, axis=0)
    return centred / np.where(length > 0, length, 1)


def similar_features(
    details: Mapping[Hookpoint, LayerDetails], features: Mapping[Hookpoint, Sequence[int]]
) -> dict[Hookpoint, list[list[SimilarFeature]]]:
    """Find for each reported feature the one of every other layer that correlates most with it.

    Features are correlated over documents, after subtracting the mean of each side: otherwise all features that
    separate the sides would look similar.

    Args:
        details: hookpoint -> its details.
        features: hookpoint -> reported features, in the same order.

    Returns:
        Hookpoint -> for each of its features the similar ones, at most one per other layer.
    """
    similar: dict[Hookpoint, list[list[SimilarFeature]]] = {
        hookpoint: [[] for _ in own] for hookpoint, own in features.items()
    }
    for hookpoint, own in details.items():
        for other, others in details.items():
            if other == hookpoint or not len(features[hookpoint]) or not len(features[other]):
                continue
            _, here, there = np.intersect1d(own.document, others.document, return_indices=True)
            correlation = own.values[here].T @ others.values[there]
            for row, best in enumerate(correlation.argmax(1)):
                if correlation[row, best] >= MIN_CORRELATION:
                    feature = SimilarFeature(other, features[other][best], float(correlation[row, best]))
                    similar[hookpoint][row].append(feature)
    return similar
