"""Labels by a language model, which also judges them; where it fails, the label from the evidence is used."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from stratalens.corpus import Half, Side
from stratalens.corpus.words import FUNCTION_WORDS, UNIT_PATTERN, stem
from stratalens.evidence.examples import Example
from stratalens.files.hashing import hash64
from stratalens.hookpoint import Hookpoint
from stratalens.labels.answers import UnusableAnswer
from stratalens.labels.detection import (
    MIN_POSITIVES,
    TERMS,
    Detection,
    DetectionTask,
    Label,
    detect_by_terms,
    score_ratings,
)
from stratalens.labels.evidence_labels import UNCLEAR
from stratalens.labels.feature_label import (
    AnnotatedEvidence,
    FeatureLabel,
    choose_controls,
    with_detection,
)
from stratalens.labels.feature_report import FeatureReport, Reports
from stratalens.labels.judge import (
    FIRING_THRESHOLD,
    LabelEvidence,
    LanguageJudge,
    TokenText,
)
from stratalens.labels.llm.cache import map_concurrently
from stratalens.progress import Progress

MAX_POSITIVES_FOR_MODEL = 10
"""Positives, at most, in a detection task that a language model is asked to do."""


FeatureKey = tuple[Hookpoint, int]
"""Hookpoint, and column of the feature among those of the layer."""


class _ScoringJob(NamedTuple):
    """A label to score, with its detection task."""

    hookpoint: Hookpoint
    column: int
    label: str
    control: str | None
    """Label of another feature of the layer; None where no other label differs."""
    task: DetectionTask


def label_by_model(
    annotated_evidence: AnnotatedEvidence,
    reports: Reports,
    judge: LanguageJudge,
    progress: Progress,
    *,
    show_text: bool,
    only: Mapping[Hookpoint, Sequence[int]] | None = None,
) -> Reports:
    """Have a language model label every feature and score its labels.

    Args:
        annotated_evidence: evidence and annotated passages.
        reports: the features with their labels from the evidence, which are used where the model fails.
        judge: the language model.
        progress: informed after each answer.
        show_text: False to send no passage; labels are then scored by their own words.
        only: hookpoint -> features to ask about; None for all. The others keep their labels.
    """
    keys = [
        (hookpoint, column)
        for hookpoint, own in reports.items()
        for column, report in enumerate(own)
        if only is None or report.feature in only.get(hookpoint, ())
    ]
    answers: dict[FeatureKey, str | UnusableAnswer] = {}
    rows: dict[FeatureKey, FeatureLabel] = {}
    with progress.track("Labelling by model", 2 * len(keys)) as advance:
        ask_for_label = partial(_ask_for_label, judge, show_text)
        asked = [reports[hookpoint][column] for hookpoint, column in keys]
        for key, answer in zip(keys, map_concurrently(ask_for_label, asked, judge.concurrency), strict=True):
            answers[key] = answer
            advance(1, 0)
        jobs = _scoring_jobs(annotated_evidence, reports, answers)
        advance(len(keys) - len(jobs), 0)
        score_label = partial(_score_label, annotated_evidence, judge, show_text)
        for job, row in zip(jobs, map_concurrently(score_label, jobs, judge.concurrency), strict=True):
            rows[job.hookpoint, job.column] = row
            advance(1, 0)
    return {
        hookpoint: [
            replace(
                report, label=rows.get((hookpoint, at)) or _without_score(judge, answers.get((hookpoint, at)), report)
            )
            for at, report in enumerate(own)
        ]
        for hookpoint, own in reports.items()
    }


def _ask_for_label(judge: LanguageJudge, show_text: bool, report: FeatureReport) -> str | UnusableAnswer:
    examples = [example for example in report.examples if example.half == Half.DISCOVERY]
    firing = [example for example in examples if example.choice.kind != "near_miss"]
    on_domain = [example for example in firing if example.side == Side.DOMAIN]
    shown = sorted(on_domain or firing, key=lambda example: example.choice.kind != "top")
    evidence = LabelEvidence(
        examples=[_token_text(example) for example in shown],
        contrast=[_token_text(example) for example in examples if example.choice.kind == "near_miss"],
        top_tokens=[token.token for token in report.top_tokens],
        words=[name for name, _ in report.support.phrases],
        promoted=[] if report.lens is None else [token.token for token in report.lens.promoted],
        highest=max((example.choice.activation for example in examples), default=0.0),
    )
    try:
        return judge.label(evidence, show_text=show_text)
    except UnusableAnswer as problem:
        return problem


def _token_text(example: Example) -> TokenText:
    return TokenText(example.tokens, np.array(example.activations, dtype=np.float64))


def _scoring_jobs(
    annotated_evidence: AnnotatedEvidence, reports: Reports, answers: Mapping[FeatureKey, str | UnusableAnswer]
) -> list[_ScoringJob]:
    """Return the model's labels that can be scored, each with its task and the label of another feature."""
    jobs = []
    for hookpoint, own in reports.items():
        layer_answers = [answers.get((hookpoint, column)) for column in range(len(own))]
        label_texts = [
            answer if isinstance(answer, str) else report.label.label
            for answer, report in zip(layer_answers, own, strict=True)
        ]
        controls = choose_controls(label_texts, hookpoint, [report.feature for report in own])
        for column, task in enumerate(annotated_evidence.tasks(hookpoint, Half.CONFIRMATION, MAX_POSITIVES_FOR_MODEL)):
            if isinstance(layer_answers[column], str) and label_texts[column] != UNCLEAR and task is not None:
                control = label_texts[controls[column]] if column in controls else None
                jobs.append(_ScoringJob(hookpoint, column, label_texts[column], control, task))
    return jobs


def _without_score(judge: LanguageJudge, answer: str | UnusableAnswer | None, report: FeatureReport) -> FeatureLabel:
    """Return the label of a feature that has no scored label by the model; its `label_note` says why."""
    if answer is None:
        return report.label
    if isinstance(answer, UnusableAnswer):
        return report.label._replace(label_note=f"labelled by evidence: {judge.name}: {answer}")
    note = "not scored: nothing to score by" if answer == UNCLEAR else "fires on too few confirmation passages to score"
    return FeatureLabel(answer, judge.name, label_note=note)


def _score_label(
    annotated_evidence: AnnotatedEvidence, judge: LanguageJudge, show_text: bool, job: _ScoringJob
) -> FeatureLabel:
    """Score one label; what the model does not rate is scored by the label's words, or not at all."""
    row = FeatureLabel(job.label, judge.name)
    if not show_text:
        return _with_word_scores(annotated_evidence, row, job)
    passages = [_passage_text(annotated_evidence, job, number) for number in job.task.passage.tolist()]
    try:
        row = _with_detection_scores(judge, row, job, passages)
    except UnusableAnswer as problem:
        row = _with_word_scores(annotated_evidence, row, job)._replace(
            label_note=f"detection by terms: {judge.name}: {problem}"
        )
    try:
        return _with_fuzzing_score(judge, row, job, passages)
    except UnusableAnswer as problem:
        note = "; ".join(filter(None, (row.label_note, f"no fuzzing score: {problem}")))
        return row._replace(label_note=note)


def _passage_text(annotated_evidence: AnnotatedEvidence, job: _ScoringJob, number: int) -> TokenText:
    passage = annotated_evidence.evidence.passages[number]
    values = annotated_evidence.evidence.tokens_of(job.hookpoint, job.column, number)
    tokens = passage.tokens
    return TokenText(tokens.texts, values[tokens.positions].astype(np.float64))


def _with_detection_scores(
    judge: LanguageJudge, row: FeatureLabel, job: _ScoringJob, passages: Sequence[TokenText]
) -> FeatureLabel:
    """Add the detection scores of the label and of its control; the passages are in an order that reveals nothing."""
    order = sorted(range(len(passages)), key=lambda at: hash64("order", str(job.hookpoint), int(job.task.passage[at])))
    reordered = [passages[at] for at in order]

    def detect(label: str) -> Detection:
        ratings = np.full(len(passages), np.nan)
        ratings[order] = judge.detect(label, reordered)
        return _score_rated(ratings, job.task)

    detection = detect(job.label)
    try:
        control_auroc = detect(job.control).auroc if job.control else None
    except UnusableAnswer:
        control_auroc = None
    return with_detection(row._replace(label_judge=judge.name), detection, control_auroc)


def _score_rated(ratings: np.ndarray, task: DetectionTask) -> Detection:
    """Score the passages that were rated, which are those with a finite rating.

    Raises:
        UnusableAnswer: too few passages were rated.
    """
    rated = np.isfinite(ratings)
    kept = DetectionTask(task.passage[rated], task.fires[rated], task.near_miss[rated])
    if min(kept.fires.sum(), (~kept.fires).sum()) < MIN_POSITIVES:
        raise UnusableAnswer("too few passages were rated")
    return score_ratings(ratings[rated], kept, FIRING_THRESHOLD)


def _with_fuzzing_score(
    judge: LanguageJudge, row: FeatureLabel, job: _ScoringJob, passages: Sequence[TokenText]
) -> FeatureLabel:
    """Add the fuzzing score: how well the label separates the tokens on which the feature fires from random tokens.

    Each positive is rated twice, once with the right tokens marked and once with random ones; a hash decides which
    comes first.
    """
    firing = [passage for passage, fires in zip(passages, job.task.fires, strict=True) if fires]
    right_first = np.array([hash64("right", at, str(job.hookpoint)) & 1 for at in range(len(firing))], dtype=bool)
    marks_right = np.concatenate([right_first, ~right_first])
    ratings = judge.fuzz(job.label, [*firing, *firing], marks_right)
    task = DetectionTask(np.zeros(len(marks_right), np.int64), marks_right, np.zeros(len(marks_right), dtype=bool))
    result = _score_rated(ratings, task)
    return row._replace(
        fuzzing_auroc=result.auroc,
        fuzzing_low=result.low,
        fuzzing_high=result.high,
        fuzzing_examples=result.positives + result.negatives,
    )


def _with_word_scores(annotated_evidence: AnnotatedEvidence, row: FeatureLabel, job: _ScoringJob) -> FeatureLabel:
    """Add the detection scores of the label and of its control, both by their own words."""
    detection = detect_by_terms(annotated_evidence.annotated, _label_with_words(job.label), job.task)
    control_auroc = (
        detect_by_terms(annotated_evidence.annotated, _label_with_words(job.control), job.task).auroc
        if job.control
        else None
    )
    return with_detection(row._replace(label_judge=TERMS), detection, control_auroc)


def _label_with_words(label: str) -> Label:
    units = [match.group() for match in UNIT_PATTERN.finditer(label) if match.lastgroup != "mark"]
    words = tuple(dict.fromkeys(stem(word) for word in units if word.lower() not in FUNCTION_WORDS))
    return Label(label, (), words)
