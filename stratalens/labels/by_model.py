"""Labels by a language model, which also judges them; where it fails, the label from the evidence is used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    LayerLabels,
    choose_controls,
    with_detection,
)
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


@dataclass(frozen=True)
class LayerPromptInput:
    """Content of the prompts about the features of one layer, one entry per feature."""

    examples: list[list[Example]]
    top_tokens: list[list[str]]
    """Tokens with most of the feature's activation."""
    promoted: list[list[str]]
    """Tokens whose logits the feature raises most."""


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
    prompt_inputs: Mapping[Hookpoint, LayerPromptInput],
    labels: Mapping[Hookpoint, LayerLabels],
    scored: Mapping[Hookpoint, list[FeatureLabel]],
    judge: LanguageJudge,
    progress: Progress,
    *,
    show_text: bool,
    only: Mapping[Hookpoint, Sequence[int]] | None = None,
) -> dict[Hookpoint, list[FeatureLabel]]:
    """Have a language model label every feature and score its labels.

    Args:
        annotated_evidence: evidence and annotated passages.
        prompt_inputs: hookpoint -> content of the prompts.
        labels: hookpoint -> labels from the evidence.
        scored: hookpoint -> the same labels with scores, used where the model fails.
        judge: the language model.
        progress: informed after each answer.
        show_text: False to send no passage; labels are then scored by their own words.
        only: hookpoint -> features to ask about; None for all. The others keep their labels from `scored`.

    Returns:
        Hookpoint -> labels with scores, in the evidence's order of features.
    """
    keys = [
        (hookpoint, column)
        for hookpoint in scored
        for column, feature in enumerate(annotated_evidence.evidence.layers[hookpoint].features.tolist())
        if only is None or feature in only.get(hookpoint, ())
    ]
    answers: dict[FeatureKey, str | UnusableAnswer] = {}
    rows: dict[FeatureKey, FeatureLabel] = {}
    with progress.track("Labelling by model", 2 * len(keys)) as advance:
        ask_for_label = partial(_ask_for_label, judge, prompt_inputs, labels, show_text)
        for key, answer in zip(keys, map_concurrently(ask_for_label, keys, judge.concurrency), strict=True):
            answers[key] = answer
            advance(1, 0)
        jobs = _scoring_jobs(annotated_evidence, scored, answers)
        advance(len(keys) - len(jobs), 0)
        score_label = partial(_score_label, annotated_evidence, judge, show_text)
        for job, row in zip(jobs, map_concurrently(score_label, jobs, judge.concurrency), strict=True):
            rows[job.hookpoint, job.column] = row
            advance(1, 0)
    return _final_labels(judge, scored, answers, rows)


def _final_labels(
    judge: LanguageJudge,
    scored: Mapping[Hookpoint, list[FeatureLabel]],
    answers: Mapping[FeatureKey, str | UnusableAnswer],
    rows: Mapping[FeatureKey, FeatureLabel],
) -> dict[Hookpoint, list[FeatureLabel]]:
    """Return hookpoint -> one label per feature: the model's with or without a score, or that from the evidence."""
    return {
        hookpoint: [
            rows.get((hookpoint, column)) or _without_score(judge, answers.get((hookpoint, column)), from_evidence)
            for column, from_evidence in enumerate(layer_labels)
        ]
        for hookpoint, layer_labels in scored.items()
    }


def _ask_for_label(
    judge: LanguageJudge,
    prompt_inputs: Mapping[Hookpoint, LayerPromptInput],
    labels: Mapping[Hookpoint, LayerLabels],
    show_text: bool,
    key: FeatureKey,
) -> str | UnusableAnswer:
    hookpoint, column = key
    prompt_input = prompt_inputs[hookpoint]
    examples = [example for example in prompt_input.examples[column] if example.half == Half.DISCOVERY]
    firing = [example for example in examples if example.choice.kind != "near_miss"]
    on_domain = [example for example in firing if example.side == Side.DOMAIN]
    shown = sorted(on_domain or firing, key=lambda example: example.choice.kind != "top")
    evidence = LabelEvidence(
        examples=[_token_text(example) for example in shown],
        contrast=[_token_text(example) for example in examples if example.choice.kind == "near_miss"],
        top_tokens=prompt_input.top_tokens[column],
        words=[name for name, _ in labels[hookpoint].support[column].phrases],
        promoted=prompt_input.promoted[column],
        highest=max((example.choice.activation for example in examples), default=0.0),
    )
    try:
        return judge.label(evidence, show_text=show_text)
    except UnusableAnswer as problem:
        return problem


def _token_text(example: Example) -> TokenText:
    return TokenText(example.tokens, np.array(example.activations, dtype=np.float64))


def _scoring_jobs(
    annotated_evidence: AnnotatedEvidence,
    scored: Mapping[Hookpoint, list[FeatureLabel]],
    answers: Mapping[FeatureKey, str | UnusableAnswer],
) -> list[_ScoringJob]:
    """Return the model's labels that can be scored, each with its task and the label of another feature."""
    jobs = []
    for hookpoint, evidence_labels in scored.items():
        layer_answers = [answers.get((hookpoint, column)) for column in range(len(evidence_labels))]
        label_texts = [
            answer if isinstance(answer, str) else from_evidence.label
            for answer, from_evidence in zip(layer_answers, evidence_labels, strict=True)
        ]
        controls = choose_controls(
            label_texts, hookpoint, annotated_evidence.evidence.layers[hookpoint].features.tolist()
        )
        for column, task in enumerate(annotated_evidence.tasks(hookpoint, Half.CONFIRMATION, MAX_POSITIVES_FOR_MODEL)):
            if isinstance(layer_answers[column], str) and label_texts[column] != UNCLEAR and task is not None:
                control = label_texts[controls[column]] if column in controls else None
                jobs.append(_ScoringJob(hookpoint, column, label_texts[column], control, task))
    return jobs


def _without_score(
    judge: LanguageJudge, answer: str | UnusableAnswer | None, from_evidence: FeatureLabel
) -> FeatureLabel:
    """Return the label of a feature that has no scored label by the model; its `label_note` says why."""
    if answer is None:
        return from_evidence
    if isinstance(answer, UnusableAnswer):
        return from_evidence._replace(label_note=f"labelled by evidence: {judge.name}: {answer}")
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
    tokens = passage.tokens()
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
