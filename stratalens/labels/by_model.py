"""Labels by a language model, which also judges them; what it fails at falls back to the evidence, and says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from stratalens.corpus import Half, Side
from stratalens.corpus.words import FUNCTION_WORDS, UNIT, stem
from stratalens.evidence.examples import Example
from stratalens.files.hashing import hash64
from stratalens.labels.answers import UnusableAnswer
from stratalens.labels.detection import (
    LEAST_POSITIVES,
    TERMS,
    Detection,
    DetectionTask,
    Label,
    detect_by_terms,
    score,
)
from stratalens.labels.evidence_labels import UNCLEAR
from stratalens.labels.feature_label import (
    AnnotatedEvidence,
    FeatureLabel,
    LayerLabels,
    control_of,
    with_detection,
)
from stratalens.labels.judge import (
    THRESHOLD,
    LabelEvidence,
    LanguageJudge,
    TokenText,
)
from stratalens.labels.llm.cache import map_concurrently
from stratalens.progress import Progress

POSITIVES = 10
"""Passages, at most, on which a feature fires in a detection task that a language model is asked to do."""


@dataclass(frozen=True)
class LayerPromptInput:
    """What the labelling model may be told of one layer, one entry a feature."""

    examples: list[list[Example]]
    top_tokens: list[list[str]]
    promoted: list[list[str]]


FeaturePlace = tuple[int, int]
"""Layer, and the feature's place among those of the layer."""


class _Job(NamedTuple):
    """A label to score."""

    layer: int
    column: int
    label: str
    control: str | None
    """Label of another feature of the layer."""
    task: DetectionTask


def label_by_model(
    text: AnnotatedEvidence,
    told: Mapping[int, LayerPromptInput],
    labels: Mapping[int, LayerLabels],
    scored: Mapping[int, list[FeatureLabel]],
    judge: LanguageJudge,
    progress: Progress,
    *,
    show_text: bool,
    only: Mapping[int, Sequence[int]] | None = None,
) -> dict[int, list[FeatureLabel]]:
    """Have a language model label every feature and score its labels.

    Args:
        text: the annotated evidence.
        told: layer -> what the model may be told.
        labels: layer -> labels by the evidence.
        scored: layer -> the same with scores, taken where the model fails.
        judge: the language model.
        progress: is told how it gets on.
        show_text: False to send no passage; labels are then scored by their own words.
        only: layer -> features to ask about; None for all. The others keep their rows.
    """
    places = [
        (layer, column)
        for layer in scored
        for column, feature in enumerate(text.evidence.layers[layer].features.tolist())
        if only is None or feature in only.get(layer, ())
    ]
    answers: dict[FeaturePlace, str | UnusableAnswer] = {}
    rows: dict[FeaturePlace, FeatureLabel] = {}
    with progress.track("Labelling by model", 2 * len(places)) as advance:
        ask = partial(_ask, judge, told, labels, show_text)
        for place, answer in zip(places, map_concurrently(ask, places, judge.concurrency), strict=True):
            answers[place] = answer
            advance(1, 0)
        jobs = _jobs(text, scored, answers)
        advance(len(places) - len(jobs), 0)
        rate = partial(_score, text, judge, show_text)
        for job, row in zip(jobs, map_concurrently(rate, jobs, judge.concurrency), strict=True):
            rows[job.layer, job.column] = row
            advance(1, 0)
    return _complete(judge, scored, answers, rows)


def _complete(
    judge: LanguageJudge,
    scored: Mapping[int, list[FeatureLabel]],
    answers: Mapping[FeaturePlace, str | UnusableAnswer],
    rows: Mapping[FeaturePlace, FeatureLabel],
) -> dict[int, list[FeatureLabel]]:
    """Layer -> one row a feature: by the model with its score, without one, or by the evidence."""
    return {
        layer: [
            rows.get((layer, column)) or _unscored(judge, answers.get((layer, column)), own)
            for column, own in enumerate(some)
        ]
        for layer, some in scored.items()
    }


def _ask(
    judge: LanguageJudge,
    told: Mapping[int, LayerPromptInput],
    labels: Mapping[int, LayerLabels],
    show_text: bool,
    place: FeaturePlace,
) -> str | UnusableAnswer:
    layer, column = place
    own = told[layer]
    examples = [one for one in own.examples[column] if one.half == Half.DISCOVERY]
    fires = [one for one in examples if one.choice.kind != "near_miss"]
    on_domain = [one for one in fires if one.side == Side.DOMAIN]
    firing = sorted(on_domain or fires, key=lambda one: one.choice.kind != "top")
    evidence = LabelEvidence(
        examples=[_token_text(one) for one in firing],
        contrast=[_token_text(one) for one in examples if one.choice.kind == "near_miss"],
        top_tokens=own.top_tokens[column],
        words=[name for name, _ in labels[layer].support[column].phrases],
        promoted=own.promoted[column],
        highest=max((one.choice.activation for one in examples), default=0.0),
    )
    try:
        return judge.label(evidence, show_text=show_text)
    except UnusableAnswer as problem:
        return problem


def _token_text(one: Example) -> TokenText:
    return TokenText(one.tokens, np.array(one.activations, dtype=np.float64))


def _jobs(
    text: AnnotatedEvidence,
    scored: Mapping[int, list[FeatureLabel]],
    answers: Mapping[FeaturePlace, str | UnusableAnswer],
) -> list[_Job]:
    """The labels by the model that can be scored, each with the label of another feature beside it."""
    jobs = []
    for layer, some in scored.items():
        found = [answers.get((layer, column)) for column in range(len(some))]
        given = [answer if isinstance(answer, str) else own.label for answer, own in zip(found, some, strict=True)]
        controls = control_of(given, layer, text.evidence.layers[layer].features.tolist())
        for column, task in enumerate(text.tasks(layer, Half.CONFIRMATION, POSITIVES)):
            if isinstance(found[column], str) and given[column] != UNCLEAR and task is not None:
                control = given[controls[column]] if column in controls else None
                jobs.append(_Job(layer, column, given[column], control, task))
    return jobs


def _unscored(judge: LanguageJudge, answer: str | UnusableAnswer | None, own: FeatureLabel) -> FeatureLabel:
    """The row of a feature whose label was not scored: by the model without a score, or what the evidence says."""
    if answer is None:
        return own
    if isinstance(answer, UnusableAnswer):
        return own._replace(label_note=f"labelled by evidence: {judge.name}: {answer}")
    why = "not scored: nothing to score by" if answer == UNCLEAR else "fires on too few confirmation passages to score"
    return FeatureLabel(answer, judge.name, label_note=why)


def _score(text: AnnotatedEvidence, judge: LanguageJudge, show_text: bool, job: _Job) -> FeatureLabel:
    """One label with its scores."""
    row = FeatureLabel(job.label, judge.name)
    if not show_text:
        return _by_words(text, row, job)
    passages = [_passage_text(text, job, number) for number in job.task.passage.tolist()]
    try:
        row = _detected(judge, row, job, passages)
    except UnusableAnswer as problem:
        row = _by_words(text, row, job)._replace(label_note=f"detection by terms: {judge.name}: {problem}")
    try:
        return _fuzzed(judge, row, job, passages)
    except UnusableAnswer as problem:
        note = "; ".join(filter(None, (row.label_note, f"no fuzzing score: {problem}")))
        return row._replace(label_note=note)


def _passage_text(text: AnnotatedEvidence, job: _Job, number: int) -> TokenText:
    passage = text.evidence.passages[number]
    values = text.evidence.tokens_of(job.layer, job.column, number)
    tokens = passage.tokens()
    return TokenText(tokens.texts, values[tokens.positions].astype(np.float64))


def _detected(judge: LanguageJudge, row: FeatureLabel, job: _Job, passages: Sequence[TokenText]) -> FeatureLabel:
    """The label's score and that of another feature's label, the passages in one order that says nothing."""
    order = sorted(range(len(passages)), key=lambda at: hash64("order", job.layer, int(job.task.passage[at])))
    mixed = [passages[at] for at in order]

    def rated(label: str) -> Detection:
        ratings = np.full(len(passages), np.nan)
        ratings[order] = judge.detect(label, mixed)
        return _score_rated(ratings, job.task)

    own = rated(job.label)
    try:
        floor = rated(job.control).auroc if job.control else None
    except UnusableAnswer:
        floor = None
    return with_detection(row._replace(label_judge=judge.name), own, floor)


def _score_rated(ratings: np.ndarray, task: DetectionTask) -> Detection:
    """Score over the passages that were rated."""
    rated = np.isfinite(ratings)
    kept = DetectionTask(task.passage[rated], task.fires[rated], task.near_miss[rated])
    if min(kept.fires.sum(), (~kept.fires).sum()) < LEAST_POSITIVES:
        raise UnusableAnswer("too few passages were rated")
    return score(ratings[rated], kept, THRESHOLD)


def _fuzzed(judge: LanguageJudge, row: FeatureLabel, job: _Job, passages: Sequence[TokenText]) -> FeatureLabel:
    """How well the label tells right marks from random ones: each firing passage once with either, never in turn."""
    firing = [passage for passage, fires in zip(passages, job.task.fires, strict=True) if fires]
    right = np.array([hash64("right", at, job.layer) & 1 for at in range(len(firing))], dtype=bool)
    fires = np.concatenate([right, ~right])
    ratings = judge.fuzz(job.label, [*firing, *firing], fires)
    task = DetectionTask(np.zeros(len(fires), np.int64), fires, np.zeros(len(fires), dtype=bool))
    result = _score_rated(ratings, task)
    return row._replace(
        fuzzing_auroc=result.auroc,
        fuzzing_low=result.low,
        fuzzing_high=result.high,
        fuzzing_examples=result.positives + result.negatives,
    )


def _by_words(text: AnnotatedEvidence, row: FeatureLabel, job: _Job) -> FeatureLabel:
    """The label scored by its own words."""
    own = detect_by_terms(text.annotated, _words_of(job.label), job.task)
    floor = detect_by_terms(text.annotated, _words_of(job.control), job.task).auroc if job.control else None
    return with_detection(row._replace(label_judge=TERMS), own, floor)


def _words_of(label: str) -> Label:
    found = [match.group() for match in UNIT.finditer(label) if match.lastgroup != "mark"]
    words = tuple(dict.fromkeys(stem(word) for word in found if word.lower() not in FUNCTION_WORDS))
    return Label(label, (), words)
