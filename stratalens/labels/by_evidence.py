"""The labelling stage: every reported feature gets a label and its scores."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from stratalens.labels.feature_label import (
    FeatureLabel,
    LabelledText,
    LayerLabels,
    evidence_labels_of,
    score_by_terms,
)
from stratalens.progress import Listener

EARLY_FLAG = "early_position"


def label_by_evidence(
    text: LabelledText, top: Mapping[int, pd.DataFrame], listener: Listener
) -> tuple[dict[int, LayerLabels], dict[int, list[FeatureLabel]]]:
    """Label the features of all layers from the evidence and score the labels by their own terms.

    Args:
        text: the annotated evidence.
        top: layer -> reported features with their `flags`.
        listener: hears of the progress.

    Returns:
        Layer -> labels with what speaks for them, and layer -> labels with scores, features in the evidence's order.
    """
    labels: dict[int, LayerLabels] = {}
    scored: dict[int, list[FeatureLabel]] = {}
    with listener.track("Labelling", sum(len(table) for table in top.values())) as advance:
        for layer, table in top.items():
            flags = dict(zip(table["feature_number"], table["flags"], strict=True))
            features = text.evidence.layers[layer].features
            early = np.array([EARLY_FLAG in str(flags[feature]) for feature in features], dtype=bool)
            labels[layer] = evidence_labels_of(text, layer, early)
            scored[layer] = score_by_terms(text, layer, labels[layer].labels)
            advance(len(table), 0)
    return labels, scored
