"""How well a label predicts in which passages its feature fires, on passages that the label was not made from."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stratalens.evidence.similarity import PassageSet
from stratalens.labels.concepts.annotation import AnnotatedPassages
from stratalens.ranking.separation import separation

TERMS = "terms"
"""Name of the judge in results when a label's own terms rate the passages."""
TERMS_THRESHOLD = 0.0
"""A passage with a higher rating, that is with any of the terms, is predicted to fire."""
MAX_POSITIVES = 24
"""Positives (passages in which the feature fires) in a detection task; there are at most as many negatives."""
MIN_POSITIVES = 4
"""With fewer positives, or fewer negatives, there is no score."""
STRONG_SHARE = 1 / 2
"""Positives are taken from this upper share of the passages with any activation."""


class DetectionTask(NamedTuple):
    """Passages of one half for which a label has to predict whether the feature fires."""

    passage: Int[np.ndarray, "example"]
    """Numbers of the passages in the evidence."""
    fires: Bool[np.ndarray, "example"]
    near_miss: Bool[np.ndarray, "example"]
    """True for negatives that were chosen for their similarity to the positives."""


class Detection(NamedTuple):
    """Score of a label on a detection task."""

    auroc: float
    low: float
    """Lower bound of the 95% interval of the AUROC."""
    high: float
    balanced_accuracy: float
    positives: int
    negatives: int


def detection_task(
    passages: PassageSet, activation: Float[np.ndarray, "passage"], max_positives: int = MAX_POSITIVES
) -> DetectionTask | None:
    """Return the detection task of one feature; None if it has too few positives or negatives in these passages.

    Positives are sampled from the upper half of the passages in which the feature fires. In negatives it does not
    fire, or, where it fires in nearly all passages, fires least. Half of the negatives are on the side of most
    positives and most similar to them; the others are drawn at random. No document is in a task twice.

    Args:
        passages: the passages of one half.
        activation: mean activation of the feature over each passage of the evidence, both halves.
        max_positives: limit on the positives.
    """
    activations = activation[passages.numbers]
    firing = np.flatnonzero(activations > 0)
    if len(firing) == 0:
        return None
    strong = firing[activations[firing] >= np.quantile(activations[firing], 1 - STRONG_SHARE)]
    positives = _one_per_document(
        passages, strong[np.argsort(passages.order[strong])], max_positives, np.empty(0, np.uint64)
    )
    if len(positives) < MIN_POSITIVES:
        return None
    silent = _silent_passages(activations, 2 * len(positives))
    main_side = np.bincount(passages.side[positives], minlength=2).argmax()
    same_side = silent[passages.side[silent] == main_side]
    used = passages.document[positives]
    by_similarity = same_side[np.argsort(-passages.similarity(positives)[same_side], kind="stable")]
    near = _one_per_document(passages, by_similarity, len(positives) // 2, used)
    rest = np.setdiff1d(silent, near)
    used = np.concatenate([used, passages.document[near]])
    random = _one_per_document(passages, rest[np.argsort(passages.order[rest])], len(positives) - len(near), used)
    if len(near) + len(random) < MIN_POSITIVES:
        return None
    chosen = np.concatenate([positives, near, random])
    position = np.arange(len(chosen))
    return DetectionTask(
        passage=passages.numbers[chosen],
        fires=position < len(positives),
        near_miss=(position >= len(positives)) & (position < len(positives) + len(near)),
    )


def _one_per_document(passages: PassageSet, ordered: np.ndarray, count: int, used: np.ndarray) -> np.ndarray:
    """Return the first `count` of the ordered passages, one for each document that is not yet used."""
    available = ordered[~np.isin(passages.document[ordered], used)]
    _, first = np.unique(passages.document[available], return_index=True)
    return available[np.sort(first)[:count]]


def _silent_passages(activations: np.ndarray, min_count: int) -> np.ndarray:
    """Return the passages without activation or, if there are fewer than `min_count`, the lowest quarter."""
    silent = np.flatnonzero(activations <= 0)
    return silent if len(silent) >= min_count else np.flatnonzero(activations <= np.quantile(activations, 0.25))


def score_ratings(ratings: Float[np.ndarray, "example"], task: DetectionTask, threshold: float) -> Detection:
    """Score ratings by AUROC with its 95% interval (`ranking.separation`) and by balanced accuracy.

    Args:
        ratings: of the passages of the task; a higher rating predicts that the feature fires.
        task: which of the passages fire.
        threshold: a passage with a higher rating counts as predicted to fire.
    """
    positives, negatives = ratings[task.fires][:, None], ratings[~task.fires][:, None]
    found = separation([(positives, negatives)])
    accuracy = ((positives > threshold).mean() + (negatives <= threshold).mean()) / 2
    return Detection(
        float(found.auroc[0]),
        float(found.interval.low[0]),
        float(found.interval.high[0]),
        float(accuracy),
        len(positives),
        len(negatives),
    )


class Label(NamedTuple):
    """What a feature is about, with the terms that show that a passage is about it."""

    text: str
    candidates: tuple[int, ...]
    """Terms of the label, as numbers of candidates (concepts and phrases) of the annotated passages."""
    words: tuple[str, ...] = ()
    """Stems of further terms, which are not candidates."""

    @property
    def has_terms(self) -> bool:
        """Whether the label has any term to rate passages by."""
        return bool(self.candidates or self.words)


def rate_by_terms(
    annotated: AnnotatedPassages, label: Label, passages: Int[np.ndarray, "example"]
) -> Float[np.ndarray, "example"]:
    """Rate each passage by the number of the label's terms in it, divided by its units (words, numbers, marks)."""
    term_counts = np.asarray(annotated.counts[passages][:, list(label.candidates)].sum(axis=1)).ravel()
    if label.words:
        term_counts = term_counts + annotated.count_words(label.words)[passages]
    return term_counts / np.maximum(annotated.lengths[passages], 1)


def detect_by_terms(annotated: AnnotatedPassages, label: Label, task: DetectionTask) -> Detection:
    """Score a label on a detection task, rating the passages by the label's terms."""
    return score_ratings(rate_by_terms(annotated, label, task.passage), task, TERMS_THRESHOLD)
