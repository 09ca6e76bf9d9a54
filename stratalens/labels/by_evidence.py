"""Label features from the evidence, and score each label by its own terms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stratalens.corpus import Half
from stratalens.labels.concepts.annotation import unit_activations
from stratalens.labels.detection import TERMS, Label, detect_by_terms
from stratalens.labels.evidence_labels import associate, choose_label, support_of
from stratalens.labels.feature_label import (
    EVIDENCE,
    AnnotatedEvidence,
    FeatureLabel,
    LayerLabels,
    choose_controls,
    with_detection,
)
from stratalens.progress import Progress

EARLY_FLAG = "early_position"


def label_by_evidence(
    annotated_evidence: AnnotatedEvidence, top: Mapping[int, pd.DataFrame], progress: Progress
) -> tuple[dict[int, LayerLabels], dict[int, list[FeatureLabel]]]:
    """Label the features of all layers from the evidence and score the labels by their own terms.

    Args:
        annotated_evidence: evidence and annotated passages.
        top: layer -> reported features with their `flags`.
        progress: informed after each layer.

    Returns:
        Layer -> labels with their support, and layer -> labels with scores, both in the evidence's order of features.
    """
    labels: dict[int, LayerLabels] = {}
    scored: dict[int, list[FeatureLabel]] = {}
    with progress.track("Labelling", sum(len(table) for table in top.values())) as advance:
        for layer, table in top.items():
            flags = dict(zip(table["feature_number"], table["flags"], strict=True))
            features = annotated_evidence.evidence.layers[layer].features
            early = np.array([EARLY_FLAG in str(flags[feature]) for feature in features], dtype=bool)
            labels[layer] = label_layer_by_evidence(annotated_evidence, layer, early)
            scored[layer] = score_by_terms(annotated_evidence, layer, labels[layer].labels)
            advance(len(table), 0)
    return labels, scored


def label_layer_by_evidence(
    annotated_evidence: AnnotatedEvidence, layer: int, early: Bool[np.ndarray, "feature"]
) -> LayerLabels:
    """Label the features of one layer from the discovery half.

    Args:
        annotated_evidence: evidence and annotated passages.
        layer: number of the layer.
        early: which features have most of their activation on the first tenth of passages.
    """
    annotated = annotated_evidence.annotated
    associations = associate(annotated, unit_activations(annotated_evidence.evidence.layers[layer], annotated.units))
    tasks = annotated_evidence.tasks(layer, Half.DISCOVERY)
    return LayerLabels(
        labels=[
            choose_label(annotated, associations, column, task, early=bool(early[column]))
            for column, task in enumerate(tasks)
        ],
        support=[support_of(annotated, associations, column) for column in range(len(tasks))],
    )


def score_by_terms(annotated_evidence: AnnotatedEvidence, layer: int, labels: Sequence[Label]) -> list[FeatureLabel]:
    """Score the labels of one layer by their own terms on the confirmation half.

    A label without a score says why in its `label_note`.
    """
    features = annotated_evidence.evidence.layers[layer].features.tolist()
    controls = choose_controls([label.text for label in labels], layer, features)
    scored = []
    for column, (label, task) in enumerate(
        zip(labels, annotated_evidence.tasks(layer, Half.CONFIRMATION), strict=True)
    ):
        if not label.has_terms or task is None:
            note = "no terms to score by" if task is not None else "fires on too few confirmation passages to score"
            scored.append(FeatureLabel(label.text, EVIDENCE, label_note=note))
            continue
        detection = detect_by_terms(annotated_evidence.annotated, label, task)
        control = labels[controls[column]] if column in controls else None
        control_auroc = (
            detect_by_terms(annotated_evidence.annotated, control, task).auroc
            if control and control.has_terms
            else None
        )
        scored.append(with_detection(FeatureLabel(label.text, EVIDENCE, TERMS), detection, control_auroc))
    return scored
