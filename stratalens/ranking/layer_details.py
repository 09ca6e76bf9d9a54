"""What the harvest of a layer tells of its reported features beyond the tables: histograms, likeness, an interval."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt64

from stratalens.corpus import Half, Side
from stratalens.corpus.populations import population
from stratalens.harvest import FeatureStats
from stratalens.harvest.state.document_sample import DocumentMatrix
from stratalens.harvest.state.layer_state import LayerState
from stratalens.harvest.state.statistics import HISTOGRAM_BINS
from stratalens.ranking import contrast
from stratalens.ranking.estimates import mean_norm

COMPARED_DOCUMENTS = 2048
"""Documents over which features are compared, those of smallest hash."""
LEAST_CORRELATION = 0.3
"""A weaker likeness between layers is not told."""


class SideHistogram(NamedTuple):
    """Passages of one side by their mean activation of one feature."""

    silent: int
    """Passages in which the feature does not fire."""
    fired: list[int]
    """By logarithmic bin, see `statistics.histogram_bin`."""


class LayerDetails(NamedTuple):
    """One layer, its features in the order of the table of reported ones."""

    histograms: list[tuple[SideHistogram, SideHistogram]]
    """Of domain and general passages, both halves together."""
    average_low: float
    """95% interval of the mean normalised specialization of the reported features."""
    average_high: float
    document: UInt64[np.ndarray, "document"]
    values: Float[np.ndarray, "document feature"]
    """Standardised values of the compared documents, the mean of their side taken off."""


class SimilarFeature(NamedTuple):
    """The reported feature of another layer whose values go along best with those of a feature."""

    layer: int
    feature: int
    correlation: float
    """Pearson's, over documents, within sides."""


def layer_details(state: LayerState, features: pd.DataFrame, *, num_latents: int, split: bool) -> LayerDetails:
    """Read what the page shows of a layer.

    Args:
        state: the harvest of the layer.
        features: its reported features, with number, decoder norm and normalised specialization.
        num_latents: width of the SAE.
        split: whether documents were held back for confirmation.
    """
    numbers = features["feature_number"].to_numpy()
    documents = state.documents.matrix(num_latents)
    dense = documents.values[:, numbers].toarray()
    half = Half.CONFIRMATION if split else Half.DISCOVERY
    interval = _average_interval(documents, dense, features, mean_norm(state.stats), half)
    compared = slice(0, COMPARED_DOCUMENTS)
    return LayerDetails(
        histograms=_histograms(state.stats, numbers),
        average_low=float(interval.low[0]),
        average_high=float(interval.high[0]),
        document=documents.document[compared],
        values=_within_sides(dense[compared], documents.population[compared] // 2),
    )


def _average_interval(
    documents: DocumentMatrix, dense: np.ndarray, features: pd.DataFrame, norm: float, half: Half
) -> contrast.Interval:
    """Welch's interval of the mean over features: it varies by document as a whole."""
    weight = features["decoder_norm"].to_numpy() / norm / max(1, len(features))
    rows = [np.flatnonzero(documents.population == population(side, half)) for side in Side]
    x, y = ((dense[own] @ weight)[:, None] for own in rows)
    estimate = np.array([features["normalised_specialization"].mean() if len(features) else 0.0])
    return contrast.welch_interval(estimate, x, y, *(documents.passages[own] for own in rows))


def _histograms(stats: FeatureStats, numbers: np.ndarray) -> list[tuple[SideHistogram, SideHistogram]]:
    width = len(stats.latents)
    place = np.searchsorted(stats.latents, numbers)
    live = np.append(stats.latents, -1)[place] == numbers
    found = []
    for at, fires in zip(place, live, strict=True):
        sides = []
        for side in Side:
            own = [population(side, half) for half in Half]
            rows = [p * width + at for p in own]
            fired = stats.histogram[rows].sum(0) if fires else np.zeros(HISTOGRAM_BINS, np.int64)
            sides.append(SideHistogram(int(stats.passages[own].sum() - fired.sum()), np.asarray(fired).tolist()))
        found.append((sides[0], sides[1]))
    return found


def _within_sides(values: np.ndarray, side: np.ndarray) -> Float[np.ndarray, "document feature"]:
    centred = np.array(values, dtype=np.float32)
    for one in Side:
        own = side == one
        if own.any():
            centred[own] -= centred[own].mean(0)
    length = np.linalg.norm(centred, axis=0)
    return centred / np.where(length > 0, length, 1)


def similar_features(
    details: Mapping[int, LayerDetails], features: Mapping[int, Sequence[int]]
) -> dict[int, list[list[SimilarFeature]]]:
    """Layer -> for each of its features the most alike reported feature of every other layer.

    Correlation over documents, the mean of each side taken off first: otherwise all features that separate the sides
    would look alike.

    Args:
        details: layer -> what its harvest tells.
        features: layer -> reported features, in the same order.
    """
    found: dict[int, list[list[SimilarFeature]]] = {layer: [[] for _ in own] for layer, own in features.items()}
    for layer, own in details.items():
        for other, others in details.items():
            if other == layer or not len(features[layer]) or not len(features[other]):
                continue
            _, here, there = np.intersect1d(own.document, others.document, return_indices=True)
            alike = own.values[here].T @ others.values[there]
            for at, best in enumerate(alike.argmax(1)):
                if alike[at, best] >= LEAST_CORRELATION:
                    found[layer][at].append(SimilarFeature(other, features[other][best], float(alike[at, best])))
    return found
