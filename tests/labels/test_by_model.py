"""Labels by a language model for a whole layer: its prompts, its scores, and the labels used when it fails."""

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest
from planted import LAYER, LEXICON, around, on_words, planted_evidence, written_passages
from scripted_model import Answer, Script, kind_of, label_in, rated

from stratalens.corpus.populations import Half
from stratalens.errors import LabelingError
from stratalens.evidence.examples import layer_examples
from stratalens.evidence.logit_lens import FeatureLens, TokenLogit
from stratalens.evidence.top_tokens import TopToken
from stratalens.files.hashing import hash64
from stratalens.labels.by_evidence import label_layer_by_evidence
from stratalens.labels.by_model import MAX_POSITIVES_FOR_MODEL, label_by_model
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.feature_label import AnnotatedEvidence, FeatureLabel, LayerLabels
from stratalens.labels.feature_report import FeatureReport, Reports
from stratalens.labels.judge import LanguageJudge
from stratalens.labels.llm.chat import ChatModel, NoReply
from stratalens.labels.prompts import Prompts
from stratalens.progress import NoProgress

WORDS = ("dividend", "mortgage", "crude", "barrel")


def knowing(question: str) -> str:
    """Answers correctly: the label is the marked word, and a passage fires where it holds the label's word."""
    kind = kind_of(question)
    if kind == "label":
        marked = re.findall(r"<<(\w+)>>", question)
        return json.dumps({"label": max(set(marked), key=marked.count)})
    word = label_in(question).lower()
    sought = f"<<{word}>>" if kind == "fuzzing" else word
    return rated(question, lambda text: 10 if sought in text.lower() else 0)


def guessing(question: str) -> str:
    """Answers by chance."""
    if kind_of(question) == "label":
        return json.dumps({"label": f"Guess {hash64(question) % 1000}"})
    return rated(question, lambda text: hash64("guess", label_in(question), text) % 11)


PASSAGES = written_passages(60)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> AnnotatedEvidence:
    path = tmp_path_factory.mktemp("lexicon") / "written.yaml"
    path.write_text(LEXICON, encoding="utf-8")
    lexicon = load_lexicon("written", [str(path)])
    return AnnotatedEvidence.of(planted_evidence(PASSAGES, [on_words(word) for word in WORDS]), lexicon)


@pytest.fixture(scope="module")
def by_evidence(text) -> LayerLabels:
    return label_layer_by_evidence(text, LAYER, np.zeros(len(WORDS), bool))


def reports_of(text: AnnotatedEvidence, labels: LayerLabels, words: Sequence[str], promoted: str = "") -> Reports:
    """The features of some labels, each with a word as its only top token."""
    examples = layer_examples(text.evidence, LAYER, text.passage_sets)
    lens = FeatureLens([TokenLogit(promoted, 1.0, 1.0)], []) if promoted else None
    reports = [
        FeatureReport(
            hookpoint=LAYER,
            feature=feature,
            statistics={},
            label=labels.scored[column],
            support=labels.support[column],
            top_tokens=[TopToken(words[column], 1.0, 0.0)],
            lens=lens,
            examples=examples[column],
        )
        for column, feature in enumerate(text.evidence.layers[LAYER].features.tolist())
    ]
    return {LAYER: reports}


def first_of(labels: LayerLabels) -> LayerLabels:
    return LayerLabels(labels.labels[:1], labels.support[:1], [FeatureLabel("x", "evidence")])


def labelled(
    text: AnnotatedEvidence, by_evidence: LayerLabels, model: Script, *, show_text: bool = True, **options
) -> list[FeatureLabel]:
    assert isinstance(model, ChatModel)
    judge, reports = LanguageJudge(model, Prompts()), reports_of(text, by_evidence, WORDS, "next")
    found = label_by_model(text, reports, judge, NoProgress(), show_text=show_text, **options)
    return [report.label for report in found[LAYER]]


def test_a_model_that_knows_the_answer_scores_1(text, by_evidence):
    rows = labelled(text, by_evidence, Script(knowing))
    assert [row.label for row in rows] == [word.capitalize() for word in WORDS]
    for row in rows:
        assert (row.label_source, row.label_judge, row.label_note) == ("script", "script", None)
        assert (row.detection_auroc, row.detection_balanced_accuracy, row.fuzzing_auroc) == (1, 1, 1)
        assert row.detection_examples <= 2 * MAX_POSITIVES_FOR_MODEL
        assert row.control_auroc is not None
        assert row.control_auroc < 0.8


def test_a_model_that_guesses_scores_about_a_half(text, by_evidence):
    rows = labelled(text, by_evidence, Script(guessing))
    for name in ("detection_auroc", "control_auroc", "fuzzing_auroc"):
        values = [getattr(row, name) for row in rows]
        assert np.mean(values) == pytest.approx(0.5, abs=0.15)


def test_prompts_come_in_order_labels_first_and_show_discovery_text_only(text, by_evidence):
    model = Script(knowing)
    labelled(text, by_evidence, model)
    kinds = [kind_of(question) for question in model.questions]
    assert kinds[: len(WORDS)] == ["label"] * len(WORDS)
    assert set(kinds[len(WORDS) :]) == {"detection", "fuzzing"}
    assert kinds.index("detection") < kinds.index("fuzzing")
    for messages in model.asked:
        assert [message["role"] for message in messages] == ["system", "user"]
    halves = {half: [one.text for one in PASSAGES if one.half == half] for half in Half}

    def held(question: str, half: Half) -> int:
        plain = question.replace("<<", "").replace(">>", "")
        return sum(json.dumps(text)[1:-1] in plain for text in halves[half])

    for kind, question in zip(kinds, model.questions, strict=True):
        own, other = (Half.DISCOVERY, Half.CONFIRMATION) if kind == "label" else (Half.CONFIRMATION, Half.DISCOVERY)
        assert held(question, own) > 0
        assert held(question, other) == 0


def test_no_passage_is_sent_without_show_text(text, by_evidence):
    model = Script(lambda question: '{"label": "Dividend news"}')
    rows = labelled(text, by_evidence, model, show_text=False)
    assert {kind_of(question) for question in model.questions} == {"label_tokens"}
    sent = json.dumps(model.asked)
    runs = set()
    for one in PASSAGES:
        words = one.text.split()
        runs |= {" ".join(words[at : at + 4]) for at in range(len(words) - 3)}
    assert [run for run in runs if run in sent] == []
    assert {row.label_judge for row in rows} == {"terms"}
    assert rows[0].detection_auroc == 1, "scored by its own word"
    assert rows[0].fuzzing_auroc is None


def raising(problem: Exception) -> Answer:
    def answer(_question: str) -> str:
        raise problem

    return answer


FAILURES: dict[str, tuple[Answer, str]] = {
    "no reply": (raising(NoReply("timed out\nafter 3 s")), "script: timed out after 3 s"),
    "no model": (raising(LabelingError("wrong key")), "script: wrong key"),
    "prose": (lambda _: "I think it is\nabout loans", "script: no label in the answer"),
    "refusal": (lambda _: "I'm sorry, I cannot help", "script: the answer is no label"),
    "too long": (lambda _: json.dumps({"label": "word " * 1000}), "script: the label is longer than 8 words"),
    "two": (lambda _: '{"label": "A"} {"label": "B"}', "script: several labels in the answer"),
    "ratings": (lambda _: '{"ratings": [1, 2]}', "script: no label in the answer"),
    "number": (lambda _: '{"label": 7}', "script: the label is no text"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_every_failure_falls_back_to_the_evidence_and_says_why(text, by_evidence, name):
    answer, reason = FAILURES[name]
    rows = labelled(text, by_evidence, Script(answer))
    for row, own in zip(rows, by_evidence.scored, strict=True):
        assert row.label_note == f"labelled by evidence: {reason}"
        assert row._replace(label_note=None) == own._replace(label_note=None)


def test_a_label_whose_passages_are_not_rated_is_scored_by_its_words(text, by_evidence):
    def unable(question: str) -> str:
        return knowing(question) if kind_of(question) == "label" else "no"

    rows = labelled(text, by_evidence, Script(unable))
    for row, word in zip(rows, WORDS, strict=True):
        assert (row.label, row.label_source, row.label_judge) == (word.capitalize(), "script", "terms")
        assert row.detection_auroc == 1
        assert row.fuzzing_auroc is None
        assert row.label_note is not None
        assert row.label_note.startswith("detection by terms: script: no ratings in the answer; no fuzzing score")


def test_unclear_is_a_label_without_a_score(text, by_evidence):
    rows = labelled(text, by_evidence, Script(lambda _question: '{"label": "unclear"}'))
    assert {(row.label, row.label_note) for row in rows} == {("Unclear", "not scored: nothing to score by")}


def test_only_the_features_asked_for_are_labelled(text, by_evidence):
    model = Script(knowing)
    rows = labelled(text, by_evidence, model, only={LAYER: [10]})
    assert [row.label_source for row in rows] == ["evidence", "script", "evidence", "evidence"]
    assert rows[0] == by_evidence.scored[0]
    assert [kind_of(question) for question in model.questions].count("label") == 1


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_than_the_concurrency_are_in_progress(text, by_evidence, concurrency):
    model = Script(knowing, concurrency, seconds=0.01)
    rows = labelled(text, by_evidence, model)
    assert model.most_at_once == concurrency
    assert rows == labelled(text, by_evidence, Script(knowing))


def test_a_feature_of_general_text_is_shown_with_general_passages(text, by_evidence):
    evidence = planted_evidence(PASSAGES, [on_words("heron")])
    model = Script(lambda _question: '{"label": "Birds"}')
    other = AnnotatedEvidence(evidence, text.annotated, text.passage_sets)
    reports = reports_of(other, first_of(by_evidence), ["heron"])
    label_by_model(other, reports, LanguageJudge(model, Prompts()), NoProgress(), show_text=True)
    assert "<<heron>>" in model.questions[0]


def test_the_prompt_shows_firing_passages_with_marks_and_near_misses_without(text, by_evidence):
    evidence = planted_evidence(PASSAGES, [around("dividend", "payout")])
    other = AnnotatedEvidence(evidence, text.annotated, text.passage_sets)
    examples = layer_examples(evidence, LAYER, other.passage_sets)[0]
    misses = [one.text for one in examples if one.choice.kind == "near_miss" and one.half == Half.DISCOVERY]
    model = Script(lambda _question: '{"label": "Payouts"}')
    reports = reports_of(other, first_of(by_evidence), ["rose"])
    label_by_model(other, reports, LanguageJudge(model, Prompts()), NoProgress(), show_text=True)
    question = model.questions[0]
    assert re.search(r'^1\. peak 10\.0: ".*<<.*>>.*"$', question, re.MULTILINE)
    listed = [json.loads(line[2:]) for line in question.splitlines() if line.startswith('- "')]
    assert listed == misses != []
