"""From evidence to labelled and scored features, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from stratalens.corpus.corpus import Half
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.similarity import PassageSet
from stratalens.files.hashing import hash64
from stratalens.labels import term_judge
from stratalens.labels.concepts.annotation import LONGEST_PHRASE, AnnotatedPassages, unit_activations
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.detection import (
    POSITIVES,
    Detection,
    DetectionTask,
    detection_task,
)
from stratalens.labels.evidence_labels import (
    EARLY,
    UNCLEAR,
    Support,
    associate,
    choose,
    support,
)
from stratalens.labels.term_judge import Label

EVIDENCE = "evidence"
"""Source of labels that no language model made."""


class FeatureLabel(NamedTuple):
    """The label of one feature with its scores; None where there is no score."""

    label: str
    label_source: str
    """`evidence`, or the language model that made it."""
    label_judge: str | None = None
    """What rated the passages: `terms` of the label itself, or a language model."""
    detection_auroc: float | None = None
    detection_low: float | None = None
    detection_high: float | None = None
    detection_balanced_accuracy: float | None = None
    detection_examples: int = 0
    control_auroc: float | None = None
    """The same passages rated with the label of another feature of the layer."""
    fuzzing_auroc: float | None = None
    fuzzing_low: float | None = None
    fuzzing_high: float | None = None
    fuzzing_examples: int = 0
    label_note: str | None = None
    """Why there is no score, or why a language model's answer was not taken."""


@dataclass(frozen=True)
class LabelledText:
    """What all layers are labelled on."""

    evidence: Evidence
    annotated: AnnotatedPassages
    sets: dict[Half, PassageSet]

    @classmethod
    def of(cls, evidence: Evidence, lexicon: Lexicon, *, words_only: bool = False) -> "LabelledText":
        """Annotate the passages of the evidence; with `words_only`, labels hold no phrase of the corpus."""
        sets = {half: PassageSet(evidence.passages, half) for half in Half}
        return cls(
            evidence, AnnotatedPassages.of(evidence.passages, lexicon, 1 if words_only else LONGEST_PHRASE), sets
        )

    def tasks(self, layer: int, half: Half, most: int = POSITIVES) -> list[DetectionTask | None]:
        """The detection task of each feature of a layer on one half, of at most so many positives."""
        return [detection_task(self.sets[half], column, most) for column in self.evidence.means(layer).T]


class LayerLabels(NamedTuple):
    """What the discovery half says of the features of one layer, one entry a feature."""

    labels: list[Label]
    support: list[Support]


def evidence_labels_of(text: LabelledText, layer: int, early: Bool[np.ndarray, "feature"]) -> LayerLabels:
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


def score_by_terms(text: LabelledText, layer: int, labels: Sequence[Label]) -> list[FeatureLabel]:
    """Score labels by their own terms on the confirmation half."""
    features = text.evidence.layers[layer].features.tolist()
    controls = control_of([label.text for label in labels], layer, features)
    scored = []
    for column, (label, task) in enumerate(zip(labels, text.tasks(layer, Half.CONFIRMATION), strict=True)):
        if not label.has_terms or task is None:
            note = "no terms to score by" if task is not None else "fires on too few confirmation passages to score"
            scored.append(FeatureLabel(label.text, EVIDENCE, label_note=note))
            continue
        own = term_judge.detection(text.annotated, label, task)
        other = labels[controls[column]] if column in controls else None
        floor = term_judge.detection(text.annotated, other, task).auroc if other and other.has_terms else None
        scored.append(with_detection(FeatureLabel(label.text, EVIDENCE, term_judge.JUDGE), own, floor))
    return scored


def with_detection(label: FeatureLabel, own: Detection, floor: float | None) -> FeatureLabel:
    """A label with its detection score and the floor beside it."""
    return label._replace(
        detection_auroc=own.auroc,
        detection_low=own.low,
        detection_high=own.high,
        detection_balanced_accuracy=own.balanced_accuracy,
        detection_examples=own.positives + own.negatives,
        control_auroc=floor,
    )


def control_of(labels: Sequence[str], layer: int, features: Sequence[int]) -> dict[int, int]:
    """For each feature another one of the layer whose label says something else, chosen by hash."""
    chosen = {}
    for column, label in enumerate(labels):
        others = [at for at, other in enumerate(labels) if other not in (label, UNCLEAR, EARLY)]
        if others:
            chosen[column] = min(
                others, key=lambda at: hash64("control", layer, int(features[column]), int(features[at]))
            )
    return chosen
