"""Detection tasks are fair, scores agree with scikit-learn, and the better label wins."""

import numpy as np
import pytest
from planted import LAYER, LEXICON, around, at_random, on_words, passage, planted_evidence, written_passages
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from stratalens.corpus.populations import Half, Side
from stratalens.corpus.words import phrase_stems
from stratalens.evidence.similarity import PassageSet
from stratalens.hookpoint import Hookpoint
from stratalens.labels.by_evidence import score_by_terms
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.detection import (
    MAX_POSITIVES,
    MIN_POSITIVES,
    DetectionTask,
    Label,
    detect_by_terms,
    detection_task,
    rate_by_terms,
    score_ratings,
)
from stratalens.labels.evidence_labels import UNCLEAR
from stratalens.labels.feature_label import AnnotatedEvidence, choose_controls

PASSAGES = written_passages(100)
PLANTS = [around("dividend", "payout"), at_random(0, 0.02), around("heron", "sparrow"), on_words("the"), on_words("no")]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> AnnotatedEvidence:
    path = tmp_path_factory.mktemp("lexicon") / "written.yaml"
    path.write_text(LEXICON, encoding="utf-8")
    return AnnotatedEvidence.of(planted_evidence(PASSAGES, PLANTS), load_lexicon("written", [str(path)]))


def task_of(
    text: AnnotatedEvidence, column: int, half: Half = Half.CONFIRMATION, most: int = MAX_POSITIVES
) -> DetectionTask:
    task = text.tasks(LAYER, half, most)[column]
    assert task is not None
    return task


@pytest.mark.parametrize("half", list(Half))
@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_task_holds_firing_and_silent_passages_of_one_half_and_no_document_twice(text, column, half):
    task = task_of(text, column, half)
    activation = text.evidence.means(LAYER)[:, column]
    assert (activation[task.passage[task.fires]] > 0).all()
    assert not activation[task.passage[~task.fires]].any()
    assert {PASSAGES[at].half for at in task.passage} == {half}
    documents = [PASSAGES[at].document for at in task.passage]
    assert len(set(documents)) == len(documents)
    assert MIN_POSITIVES <= task.fires.sum() <= MAX_POSITIVES
    assert task.fires.sum() == (~task.fires).sum()


def test_positives_are_of_the_stronger_half_of_what_fires(text):
    task = task_of(text, 0)
    values = text.evidence.means(LAYER)[:, 0]
    own = [values[at] for at, one in enumerate(PASSAGES) if one.half == Half.CONFIRMATION and values[at] > 0]
    assert values[task.passage[task.fires]].min() >= np.quantile(own, 0.5)


@pytest.mark.parametrize("column", [0, 2])
def test_half_of_the_negatives_are_near_misses_of_the_positives_side(text, column):
    task = task_of(text, column)
    assert task.near_miss.sum() == task.fires.sum() // 2
    assert not (task.near_miss & task.fires).any()
    positive_side = {PASSAGES[at].side for at in task.passage[task.fires]}
    assert {PASSAGES[at].side for at in task.passage[task.near_miss]} == positive_side
    own = text.passage_sets[Half.CONFIRMATION]
    position = {number: at for at, number in enumerate(own.numbers.tolist())}
    similarity = own.similarity(np.array([position[at] for at in task.passage[task.fires].tolist()]))
    near = [similarity[position[at]] for at in task.passage[task.near_miss].tolist()]
    drawn = [similarity[position[at]] for at in task.passage[~task.fires & ~task.near_miss].tolist()]
    assert np.mean(near) > np.mean(drawn)


def test_a_document_of_many_passages_is_in_a_task_once():
    passages = [
        passage(f"Dividend {n} of firm {n % 9}." if n % 2 else f"Nothing {n}.", Side.DOMAIN, Half.DISCOVERY, n % 18)
        for n in range(90)
    ]
    means = planted_evidence(passages, [on_words("dividend")]).means(LAYER)[:, 0]
    task = detection_task(PassageSet(passages, Half.DISCOVERY), means)
    assert task is not None
    assert task.fires.sum() == 9
    assert len({passages[at].document for at in task.passage}) == len(task.passage)


def test_a_feature_that_fires_nearly_everywhere_is_compared_with_where_it_fires_least():
    passages = [passage(f"Word {'rate ' * (n % 10 + 1)} {n}", Side.DOMAIN, Half.DISCOVERY) for n in range(80)]
    means = planted_evidence(passages, [on_words("rate")]).means(LAYER)[:, 0]
    task = detection_task(PassageSet(passages, Half.DISCOVERY), means)
    assert task is not None
    assert means[task.passage[~task.fires]].max() <= np.quantile(means, 0.25) < means[task.passage[task.fires]].min()


@pytest.mark.parametrize("firing", [0, MIN_POSITIVES - 1])
def test_too_few_passages_give_no_task(firing):
    passages = [
        passage(f"A dividend {n}" if n < firing else f"Nothing {n}", Side.DOMAIN, Half.DISCOVERY) for n in range(30)
    ]
    means = planted_evidence(passages, [on_words("dividend")]).means(LAYER)[:, 0]
    assert detection_task(PassageSet(passages, Half.DISCOVERY), means) is None
    assert detection_task(PassageSet(passages, Half.CONFIRMATION), means) is None, "a half without passages"


def test_the_task_is_the_same_whatever_the_order_of_passages():
    order = np.random.default_rng(0).permutation(len(PASSAGES))
    shuffled = [PASSAGES[at] for at in order]
    found = []
    for passages in (PASSAGES, shuffled):
        means = planted_evidence(passages, [PLANTS[0]]).means(LAYER)[:, 0]
        task = detection_task(PassageSet(passages, Half.DISCOVERY), means)
        assert task is not None
        found.append({passages[at].text for at, fires in zip(task.passage, task.fires, strict=True) if fires})
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(3))
def test_scores_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    fires = np.arange(40) < 18
    ratings = np.round(rng.random(40) * 4 + fires, 0)
    found = score_ratings(ratings, DetectionTask(np.arange(40), fires, np.zeros(40, bool)), 2.0)
    assert found.auroc == pytest.approx(roc_auc_score(fires, ratings))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(fires, ratings > 2))
    assert (found.positives, found.negatives) == (18, 22)
    assert 0 <= found.low < found.auroc < found.high <= 1


def test_ratings_count_the_terms_of_a_label(text):
    label = Label("", (), phrase_stems("dividend payout"))
    some = np.arange(0, len(PASSAGES), 7)
    expected = []
    for at in some:
        words = PASSAGES[at].text.lower().replace(".", " . ").replace(",", " , ").replace("-", " - ").split()
        expected.append(sum(word in ("dividend", "payout") for word in words) / len(words))
    assert np.allclose(rate_by_terms(text.annotated, label, some), expected)
    assert max(expected) > 0


def test_the_label_of_the_right_terms_beats_one_of_wrong_terms(text):
    names = [concept.name for concept in text.annotated.lexicon.concepts]
    right = Label("", (names.index("Payments to shareholders"),))
    wrong = Label("", (names.index("Oil trade"),))
    task = task_of(text, 0)
    assert detect_by_terms(text.annotated, right, task).auroc > 0.95
    assert detect_by_terms(text.annotated, wrong, task).auroc <= 0.5
    evidence = planted_evidence(PASSAGES, [at_random(seed, 0.02) for seed in range(20)])
    tasks = [detection_task(text.passage_sets[Half.CONFIRMATION], column) for column in evidence.means(LAYER).T]
    chance = [detect_by_terms(text.annotated, right, task).auroc for task in tasks if task is not None]
    assert np.mean(chance) == pytest.approx(0.5, abs=0.04)


def test_a_scored_label_has_the_score_of_another_features_label(text):
    labels = [
        Label("Payouts", (), ("dividend", "payout")),
        Label("Oil", (), ("crude",)),
        Label("Birds", (), ("heron",)),
    ]
    labels += [Label(UNCLEAR, ()), Label("Negation", (), ("no",))]
    scored = score_by_terms(text, LAYER, labels)
    controls = choose_controls([label.text for label in labels], LAYER, text.evidence.layers[LAYER].features.tolist())
    first = scored[0]
    assert (first.label, first.label_source, first.label_judge) == ("Payouts", "evidence", "terms")
    floor = detect_by_terms(text.annotated, labels[controls[0]], task_of(text, 0)).auroc
    assert first.control_auroc == floor
    assert first.detection_auroc is not None
    assert first.detection_auroc > floor
    assert first.detection_low is not None
    assert first.detection_low <= first.detection_auroc
    assert first.detection_examples == len(task_of(text, 0).passage)
    assert (scored[3].detection_auroc, scored[3].label_note) == (None, "no terms to score by")
    assert scored[4].label_note == "fires on too few confirmation passages to score"


def test_the_control_is_another_features_different_label():
    labels = ["A", "B", "A", UNCLEAR, "C"]
    controls = choose_controls(labels, LAYER, [10, 20, 30, 40, 50])
    assert set(controls) == set(range(5))
    for column, other in controls.items():
        assert labels[other] not in (labels[column], UNCLEAR)
    assert choose_controls(labels, LAYER, [10, 20, 30, 40, 50]) == controls
    assert set(choose_controls(["A", "A", UNCLEAR], LAYER, [1, 2, 3])) == {2}, "no other label: no control"
    varied = {choose_controls(["A", "B", "C", "D"], Hookpoint(layer), [1, 2, 3, 4])[0] for layer in range(20)}
    assert varied == {1, 2, 3}
