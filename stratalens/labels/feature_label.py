"""From evidence to labelled and scored features, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stratalens.corpus import Half
from stratalens.evidence import Evidence
from stratalens.evidence.similarity import PassageSet
from stratalens.files.hashing import hash64
from stratalens.labels.concepts.annotation import LONGEST_PHRASE, AnnotatedPassages
from stratalens.labels.concepts.lexicon import Lexicon
from stratalens.labels.detection import (
    POSITIVES,
    Detection,
    DetectionTask,
    Label,
    detection_task,
)
from stratalens.labels.evidence_labels import EARLY, UNCLEAR, Support

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
class AnnotatedEvidence:
    """What all layers are labelled on."""

    evidence: Evidence
    annotated: AnnotatedPassages
    sets: dict[Half, PassageSet]

    @classmethod
    def of(cls, evidence: Evidence, lexicon: Lexicon, *, words_only: bool = False) -> "AnnotatedEvidence":
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
