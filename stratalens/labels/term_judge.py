"""A label's own terms as a judge: a passage is rated by how densely they stand in it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.labels.detection import Detection, DetectionTask, score

JUDGE = "terms"
THRESHOLD = 0.0
"""A passage with any of the terms is said to fire."""


class Label(NamedTuple):
    """What a feature is about, with the terms by which text is told to be about it."""

    text: str
    candidates: tuple[int, ...]
    """Its terms, as candidates of the annotated passages: concepts and phrases."""
    words: tuple[str, ...] = ()
    """Stems of its terms that are no candidates."""

    @property
    def has_terms(self) -> bool:
        """Whether there is anything to rate text by."""
        return bool(self.candidates or self.words)


def rate(text: AnnotatedPassages, label: Label, passages: Int[np.ndarray, "example"]) -> Float[np.ndarray, "example"]:
    """Terms of the label per unit of each passage."""
    found = np.asarray(text.counts[passages][:, list(label.candidates)].sum(axis=1)).ravel()
    if label.words:
        found = found + text.count_words(label.words)[passages]
    return found / np.maximum(text.lengths[passages], 1)


def detection(text: AnnotatedPassages, label: Label, task: DetectionTask) -> Detection:
    """Score of a label's terms on a detection task."""
    return score(rate(text, label, task.passage), task, THRESHOLD)
