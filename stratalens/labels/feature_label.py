"""The label of a feature with its scores, and the annotated evidence that labels are made from and scored on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stratalens.corpus import Half
from stratalens.evidence import Evidence
from stratalens.evidence.similarity import PassageSet, passage_sets
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.labels.concepts.annotation import MAX_PHRASE_WORDS, AnnotatedPassages
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.detection import (
    MAX_POSITIVES,
    Detection,
    DetectionTask,
    Label,
    detection_task,
)
from stratalens.labels.evidence_labels import EARLY, UNCLEAR, Support

EVIDENCE = "evidence"
"""`label_source` of labels that no language model made."""


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
    """AUROC of the same passages rated by the label of another feature of the layer."""
    fuzzing_auroc: float | None = None
    fuzzing_low: float | None = None
    fuzzing_high: float | None = None
    fuzzing_examples: int = 0
    label_note: str | None = None
    """Why there is no score, or why a language model's answer was not used."""


@dataclass(frozen=True)
class AnnotatedEvidence:
    """Evidence of all layers, and its passages as labelling needs them."""

    evidence: Evidence
    annotated: AnnotatedPassages
    """The passages of the evidence, with the concepts and phrases in them."""
    passage_sets: dict[Half, PassageSet]

    @classmethod
    def of(cls, evidence: Evidence, lexicon: Lexicon, *, words_only: bool = False) -> "AnnotatedEvidence":
        """Annotate the passages of the evidence; with `words_only`, corpus phrases in labels are single words."""
        return cls(
            evidence,
            AnnotatedPassages.of(evidence.passages, lexicon, 1 if words_only else MAX_PHRASE_WORDS),
            passage_sets(evidence.passages),
        )

    def tasks(self, hookpoint: Hookpoint, half: Half, max_positives: int = MAX_POSITIVES) -> list[DetectionTask | None]:
        """Return the detection task of each feature of a layer on one half; None if it fires on too few passages."""
        return [
            detection_task(self.passage_sets[half], column, max_positives)
            for column in self.evidence.means(hookpoint).T
        ]


class LayerLabels(NamedTuple):
    """Labels of one layer from the discovery half, what supports them, and how they score; one entry per feature."""

    labels: list[Label]
    support: list[Support]
    scored: list["FeatureLabel"]
    """The labels with their scores on the confirmation half."""


def with_detection(label: FeatureLabel, detection: Detection, control_auroc: float | None) -> FeatureLabel:
    """Add the detection score, and the AUROC of the control label, to a label."""
    return label._replace(
        detection_auroc=detection.auroc,
        detection_low=detection.low,
        detection_high=detection.high,
        detection_balanced_accuracy=detection.balanced_accuracy,
        detection_examples=detection.positives + detection.negatives,
        control_auroc=control_auroc,
    )


def choose_controls(labels: Sequence[str], hookpoint: Hookpoint, features: Sequence[int]) -> dict[int, int]:
    """Choose for each feature another one of the layer with a different label, by hash.

    Args:
        labels: of the features.
        hookpoint: of the features.
        features: latents, in the order of the labels.

    Returns:
        Column of each feature -> column of its control; a feature without one is left out.
    """
    controls = {}
    for column, label in enumerate(labels):
        others = [at for at, other in enumerate(labels) if other not in (label, UNCLEAR, EARLY)]
        if others:
            controls[column] = min(
                others, key=lambda at: hash64("control", str(hookpoint), int(features[column]), int(features[at]))
            )
    return controls
