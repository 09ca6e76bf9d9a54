"""Whether the best layer is better than the others by more than chance."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt64

from stratalens.corpus import Half, Side
from stratalens.hookpoint import Hookpoint
from stratalens.ranking import contrast
from stratalens.ranking.estimates import RankingInput, document_rows, mean_norm


class LayerGap(NamedTuple):
    """Average of the best hookpoint less that of another one."""

    difference: float
    low: float
    """Lower end of the 95% interval, from the same documents at both hookpoints."""
    high: float


class LayerValues(NamedTuple):
    """One hookpoint's mean over its reported features, in the measure by which layers are compared."""

    average: float
    document: UInt64[np.ndarray, "document"]
    """Hashes of the documents of the half that estimates, those of the domain first."""
    value: Float[np.ndarray, "document"]
    passages: Int[np.ndarray, "document"]
    domain_documents: int


def layer_values(source: RankingInput, features: pd.DataFrame, half: Half, *, normalised: bool) -> LayerValues:
    """Average over the reported features, and what each document adds to it.

    Args:
        source: statistics and documents of the hookpoint.
        features: its reported features.
        half: whose documents estimate.
        normalised: whether layers are compared by the normalised specialization, else by the raw one.
    """
    documents, numbers = source.documents, features["feature_number"].to_numpy()
    sides = document_rows(documents, source.populations, half)
    rows = np.concatenate(sides)
    scale = source.decoder_norms[numbers] / mean_norm(source.stats) if normalised else np.ones(len(numbers))
    column = "normalised_specialization" if normalised else "specialization"
    average = float(features[column].to_numpy().mean()) if len(features) else 0.0
    value = documents.values[:, numbers].toarray()[rows] @ scale / max(1, len(numbers))
    return LayerValues(average, documents.document[rows], value, documents.passages[rows], len(sides[Side.DOMAIN]))


def layer_gaps(values: Mapping[Hookpoint, LayerValues]) -> dict[Hookpoint, LayerGap]:
    """How far each other hookpoint is behind the best one, with the interval of each document's difference.

    The documents are the same at both hookpoints, so what they share drops out (a paired comparison).
    """
    best = max(values, key=lambda place: values[place].average)
    return {place: _gap(values[best], own) for place, own in values.items() if place != best}


def _gap(best: LayerValues, other: LayerValues) -> LayerGap:
    difference = best.average - other.average
    if not np.array_equal(best.document, other.document):
        _, here, there = np.intersect1d(best.document, other.document, return_indices=True)
    else:
        here = there = np.arange(len(best.document))
    is_domain = here < best.domain_documents
    paired = (best.value[here] - other.value[there])[:, None]
    passages = best.passages[here]
    x, y = paired[is_domain], paired[~is_domain]
    interval = contrast.difference_interval(np.array([difference]), x, y, passages[is_domain], passages[~is_domain])
    return LayerGap(difference, float(interval.low[0]), float(interval.high[0]))
