"""How well a label predicts which passages fire its feature, on text that it was not made from."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stratalens.evidence.similarity import PassageSet
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.ranking import contrast

TERMS = "terms"
"""The judge's name in results where a label's own terms rate the passages."""
TERMS_THRESHOLD = 0.0
"""A passage with any of the terms is predicted to fire."""
POSITIVES = 24
"""Passages, at most, on which a feature fires in its detection task; there are at most as many on which it does not."""
LEAST_POSITIVES = 4
"""With fewer there is no score."""
STRONG_SHARE = 1 / 2
"""A passage counts as firing when it is in this upper share of the passages with any activation."""


class DetectionTask(NamedTuple):
    """Passages of the confirmation half on which a label has to tell whether the feature fires."""

    passage: Int[np.ndarray, "example"]
    fires: Bool[np.ndarray, "example"]
    near_miss: Bool[np.ndarray, "example"]
    """True at negatives that were chosen for their likeness to the positives."""


class Detection(NamedTuple):
    """Score of a label on a detection task."""

    auroc: float
    low: float
    high: float
    balanced_accuracy: float
    positives: int
    negatives: int


def detection_task(
    among: PassageSet, activation: Float[np.ndarray, "passage"], most: int = POSITIVES
) -> DetectionTask | None:
    """The detection task of one feature; None when it fires on too few of these passages.

    Positives are a sample of the upper half of the passages that fire. Negatives do not fire, or where nearly
    all do, fire least. Half of them lie on the positives' side and are most like them, half are drawn at random.
    No document stands in a task twice.

    Args:
        among: the passages of one half.
        activation: mean activation of the feature over each passage of all, both halves.
        most: positives, at most.
    """
    value = activation[among.numbers]
    firing = np.flatnonzero(value > 0)
    if len(firing) == 0:
        return None
    strong = firing[value[firing] >= np.quantile(value[firing], 1 - STRONG_SHARE)]
    positives = _distinct(among, strong[np.argsort(among.order[strong])], most, np.empty(0, np.uint64))
    if len(positives) < LEAST_POSITIVES:
        return None
    silent = _silent(value, 2 * len(positives))
    main_side = np.bincount(among.side[positives], minlength=2).argmax()
    same = silent[among.side[silent] == main_side]
    taken = among.document[positives]
    alike = same[np.argsort(-among.similarity(positives)[same], kind="stable")]
    near = _distinct(among, alike, len(positives) // 2, taken)
    rest = np.setdiff1d(silent, near)
    taken = np.concatenate([taken, among.document[near]])
    random = _distinct(among, rest[np.argsort(among.order[rest])], len(positives) - len(near), taken)
    if len(near) + len(random) < LEAST_POSITIVES:
        return None
    chosen = np.concatenate([positives, near, random])
    place = np.arange(len(chosen))
    return DetectionTask(
        passage=among.numbers[chosen],
        fires=place < len(positives),
        near_miss=(place >= len(positives)) & (place < len(positives) + len(near)),
    )


def _distinct(among: PassageSet, ordered: np.ndarray, count: int, taken: np.ndarray) -> np.ndarray:
    """The first of an ordering, one a document."""
    open_to = ordered[~np.isin(among.document[ordered], taken)]
    _, first = np.unique(among.document[open_to], return_index=True)
    return open_to[np.sort(first)[:count]]


def _silent(value: np.ndarray, wanted: int) -> np.ndarray:
    """Passages without activation, and where there are too few, the lowest quarter."""
    silent = np.flatnonzero(value <= 0)
    return silent if len(silent) >= wanted else np.flatnonzero(value <= np.quantile(value, 0.25))


def score(ratings: Float[np.ndarray, "example"], task: DetectionTask, threshold: float) -> Detection:
    """AUROC with its interval and balanced accuracy of ratings, higher meaning that the feature should fire."""
    x, y = ratings[task.fires][:, None], ratings[~task.fires][:, None]
    area = contrast.auroc(x, y)
    accuracy = ((x > threshold).mean() + (y <= threshold).mean()) / 2
    return Detection(
        float(area.value[0]), float(area.interval.low[0]), float(area.interval.high[0]), float(accuracy), len(x), len(y)
    )


class Label(NamedTuple):
    """What a feature is about, with the terms by which text is recognised as being about it."""

    text: str
    candidates: tuple[int, ...]
    """Its terms, as candidates of the annotated passages: concepts and phrases."""
    words: tuple[str, ...] = ()
    """Stems of its terms that are no candidates."""

    @property
    def has_terms(self) -> bool:
        """Whether there is anything to rate text by."""
        return bool(self.candidates or self.words)


def rate_by_terms(
    text: AnnotatedPassages, label: Label, passages: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "example"]:
    """Terms of the label per unit of each passage."""
    found = np.asarray(text.counts[passages][:, list(label.candidates)].sum(axis=1)).ravel()
    if label.words:
        found = found + text.count_words(label.words)[passages]
    return found / np.maximum(text.lengths[passages], 1)


def detect_by_terms(text: AnnotatedPassages, label: Label, task: DetectionTask) -> Detection:
    """Score of a label's terms on a detection task."""
    return score(rate_by_terms(text, label, task.passage), task, TERMS_THRESHOLD)
