"""Label features from the evidence, and score each label by its own terms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool

from stratalens.corpus import Half
from stratalens.hookpoint import Hookpoint
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
    annotated_evidence: AnnotatedEvidence, top: Mapping[Hookpoint, pd.DataFrame], progress: Progress
) -> dict[Hookpoint, LayerLabels]:
    """Label the features of all layers from the evidence and score the labels by their own terms.

    Args:
        annotated_evidence: evidence and annotated passages.
        top: hookpoint -> reported features with their `flags`.
        progress: informed after each layer.

    Returns:
        Hookpoint -> labels with their support and scores, in the evidence's order of features.
    """
    labels: dict[Hookpoint, LayerLabels] = {}
    with progress.track("Labelling", sum(len(table) for table in top.values())) as advance:
        for hookpoint, table in top.items():
            flags = dict(zip(table["feature_number"], table["flags"], strict=True))
            features = annotated_evidence.evidence.layers[hookpoint].features
            early = np.array([EARLY_FLAG in str(flags[feature]) for feature in features], dtype=bool)
            labels[hookpoint] = label_layer_by_evidence(annotated_evidence, hookpoint, early)
            advance(len(table), 0)
    return labels


def label_layer_by_evidence(
    annotated_evidence: AnnotatedEvidence, hookpoint: Hookpoint, early: Bool[np.ndarray, "feature"]
) -> LayerLabels:
    """Label the features of one layer from the discovery half, and score the labels on the other.

    Args:
        annotated_evidence: evidence and annotated passages.
        hookpoint: of the features.
        early: which features have most of their activation on the first tenth of passages.
    """
    annotated = annotated_evidence.annotated
    associations = associate(
        annotated, unit_activations(annotated_evidence.evidence.layers[hookpoint], annotated.units)
    )
    tasks = annotated_evidence.tasks(hookpoint, Half.DISCOVERY)
    labels = [
        choose_label(annotated, associations, column, task, early=bool(early[column]))
        for column, task in enumerate(tasks)
    ]
    support = [support_of(annotated, associations, column) for column in range(len(tasks))]
    return LayerLabels(labels, support, score_by_terms(annotated_evidence, hookpoint, labels))


def score_by_terms(
    annotated_evidence: AnnotatedEvidence, hookpoint: Hookpoint, labels: Sequence[Label]
) -> list[FeatureLabel]:
    """Score the labels of one layer by their own terms on the confirmation half.

    A label without a score says why in its `label_note`.
    """
    features = annotated_evidence.evidence.layers[hookpoint].features.tolist()
    controls = choose_controls([label.text for label in labels], hookpoint, features)
    scored = []
    for column, (label, task) in enumerate(
        zip(labels, annotated_evidence.tasks(hookpoint, Half.CONFIRMATION), strict=True)
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
