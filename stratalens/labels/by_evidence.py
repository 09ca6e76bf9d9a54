"""The labelling stage: every reported feature gets a label and its scores."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stratalens.corpus import Half
from stratalens.labels.concepts.annotation import unit_activations
from stratalens.labels.detection import TERMS, Label, detect_by_terms
from stratalens.labels.evidence_labels import associate, choose, support
from stratalens.labels.feature_label import (
    EVIDENCE,
    AnnotatedEvidence,
    FeatureLabel,
    LayerLabels,
    control_of,
    with_detection,
)
from stratalens.progress import Progress

EARLY_FLAG = "early_position"


def label_by_evidence(
    text: AnnotatedEvidence, top: Mapping[int, pd.DataFrame], progress: Progress
) -> tuple[dict[int, LayerLabels], dict[int, list[FeatureLabel]]]:
    """Label the features of all layers from the evidence and score the labels by their own terms.

    Args:
        text: the annotated evidence.
        top: layer -> reported features with their `flags`.
        progress: is told how it gets on.

    Returns:
        Layer -> labels with what speaks for them, and layer -> labels with scores, features in the evidence's order.
    """
    labels: dict[int, LayerLabels] = {}
    scored: dict[int, list[FeatureLabel]] = {}
    with progress.track("Labelling", sum(len(table) for table in top.values())) as advance:
        for layer, table in top.items():
            flags = dict(zip(table["feature_number"], table["flags"], strict=True))
            features = text.evidence.layers[layer].features
            early = np.array([EARLY_FLAG in str(flags[feature]) for feature in features], dtype=bool)
            labels[layer] = evidence_labels_of(text, layer, early)
            scored[layer] = score_by_terms(text, layer, labels[layer].labels)
            advance(len(table), 0)
    return labels, scored


def evidence_labels_of(text: AnnotatedEvidence, layer: int, early: Bool[np.ndarray, "feature"]) -> LayerLabels:
    """The labels that the discovery half supports.

    Args:
        text: the annotated evidence.
        layer: whose features.
        early: which of them lie mostly on the first tenth of passages.
    """
    annotated = text.annotated
    found = associate(annotated, unit_activations(text.evidence.layers[layer], annotated.units))
    tasks = text.tasks(layer, Half.DISCOVERY)
    return LayerLabels(
        labels=[choose(annotated, found, column, task, early=bool(early[column])) for column, task in enumerate(tasks)],
        support=[support(annotated, found, column) for column in range(len(tasks))],
    )


def score_by_terms(text: AnnotatedEvidence, layer: int, labels: Sequence[Label]) -> list[FeatureLabel]:
    """Score labels by their own terms on the confirmation half."""
    features = text.evidence.layers[layer].features.tolist()
    controls = control_of([label.text for label in labels], layer, features)
    scored = []
    for column, (label, task) in enumerate(zip(labels, text.tasks(layer, Half.CONFIRMATION), strict=True)):
        if not label.has_terms or task is None:
            note = "no terms to score by" if task is not None else "fires on too few confirmation passages to score"
            scored.append(FeatureLabel(label.text, EVIDENCE, label_note=note))
            continue
        own = detect_by_terms(text.annotated, label, task)
        other = labels[controls[column]] if column in controls else None
        floor = detect_by_terms(text.annotated, other, task).auroc if other and other.has_terms else None
        scored.append(with_detection(FeatureLabel(label.text, EVIDENCE, TERMS), own, floor))
    return scored
