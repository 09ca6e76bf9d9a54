"""Labels from evidence: planted features are named, random ones are not, and confirmation text has no influence."""

from dataclasses import replace

import numpy as np
import pytest
from planted import LAYER, LEXICON, Plant, around, at_random, on, on_words, passage, planted_evidence, written_passages
from scipy import sparse

from stratalens.corpus.populations import Half, Side
from stratalens.evidence.evidence import Evidence, LayerEvidence
from stratalens.evidence.passages import Passage
from stratalens.labels.by_evidence import label_layer_by_evidence
from stratalens.labels.concepts.annotation import unit_activations
from stratalens.labels.concepts.lexicon import Lexicon, load_lexicon
from stratalens.labels.evidence_labels import (
    EARLY,
    MAX_LABEL_WORDS,
    UNCLEAR,
    associate,
    choose_label,
)
from stratalens.labels.feature_label import AnnotatedEvidence, LayerLabels


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory) -> Lexicon:
    path = tmp_path_factory.mktemp("lexicon") / "written.yaml"
    path.write_text(LEXICON, encoding="utf-8")
    return load_lexicon("written", [str(path)])


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    return written_passages()


def labels_of(passages: list[Passage], plants: list[Plant], lexicon: Lexicon) -> LayerLabels:
    text = AnnotatedEvidence.of(planted_evidence(passages, plants), lexicon)
    return label_layer_by_evidence(text, LAYER, np.zeros(len(plants), bool))


PLANTED = {
    "Digits": on(str.isdigit),
    "Hyphens and dashes": on(lambda token: token == "-"),
    "Full stops": on(lambda token: token == "."),
    'The word "meeting"': on_words("meeting"),
    'The word "paris"': on_words("paris"),
}
TERMS = {
    "Home lending": on_words("mortgage", "borrower", "loan", "refinanced"),
    "Payments to shareholders": lambda tokens: [
        {"dividend": 1.0, "payout": 2.0, "holder": 2.0}.get(token, 0.0) for token in tokens
    ],
}
CONTEXTS = {
    "Home lending": around("mortgage", "borrower", "loan"),
    "Payments to shareholders": around("dividend", "payout"),
    "Oil trade": around("crude", "barrel"),
}


def test_a_form_or_a_word_is_named_as_it_is(passages, lexicon):
    found = labels_of(passages, list(PLANTED.values()), lexicon)
    assert [label.text for label in found.labels] == list(PLANTED)


def test_a_word_that_takes_most_activation_is_named_in_its_usual_spelling(passages, lexicon):
    plant = on_words("dividend")
    (label,) = labels_of(passages, [plant], lexicon).labels
    assert label.text == 'The word "dividend"'
    assert label.words == ("dividend",)


@pytest.mark.parametrize("plants", [TERMS, CONTEXTS], ids=["terms", "contexts"])
def test_terms_and_contexts_of_a_concept_name_it(passages, lexicon, plants):
    found = labels_of(passages, list(plants.values()), lexicon)
    assert [label.text.split(":")[0] for label in found.labels] == list(plants)


def test_what_supports_a_label_is_listed_best_first(passages, lexicon):
    found = labels_of(passages, list(CONTEXTS.values()), lexicon)
    for name, support in zip(CONTEXTS, found.support, strict=True):
        assert support.concepts[0][0] == name
        scores = [score for _, score in support.concepts]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) > 0.5
    assert {"crude", "barrel", "crude prices"} & {phrase for phrase, _ in found.support[2].phrases}


def test_chance_is_nearly_always_unclear(passages, lexicon):
    plants = [at_random(seed, share) for seed in range(60) for share in (0.02, 0.1)]
    texts = [label.text for label in labels_of(passages, plants, lexicon).labels]
    named = [text for text in texts if text != UNCLEAR]
    assert len(named) <= 0.05 * len(texts), named


def test_activation_that_does_not_follow_sentences_any_more_loses_its_label(passages, lexicon):
    """The planted contexts with the activations of each passage moved to another one: nothing is left to find."""
    rng = np.random.default_rng(0)

    def moved(plant: Plant) -> Plant:
        donors = [one.text for one in passages]

        def shuffled(tokens: list[str]) -> np.ndarray:
            other = plant([word.strip() for word in donors[rng.integers(len(donors))].replace(".", " .").split()])
            return np.resize(np.array(other), len(tokens))

        return shuffled

    plants = [moved(plant) for plant in CONTEXTS.values() for _ in range(5)]
    texts = [label.text for label in labels_of(passages, plants, lexicon).labels]
    assert sum(text.split(":")[0] in CONTEXTS for text in texts) <= 1, texts


def test_a_label_has_at_most_eight_words_and_says_no_word_twice(passages, lexicon):
    mixed = [
        (lambda a, b: lambda tokens: np.maximum(a(tokens), b(tokens)))(at_random(seed, 0.05), plant)
        for seed in range(4)
        for plant in [*PLANTED.values(), *TERMS.values(), *CONTEXTS.values()]
    ]
    texts = [label.text for label in labels_of(passages, mixed, lexicon).labels]
    assert max(len(text.split()) for text in texts) <= MAX_LABEL_WORDS
    assert len(set(texts)) > 6
    for text in texts:
        words = [word.strip(',:"').lower() for word in text.split()]
        assert len(set(words)) == len(words), text


def test_an_early_feature_is_said_to_be_early(passages, lexicon):
    text = AnnotatedEvidence.of(planted_evidence(passages, [on_words("meeting")]), lexicon)
    (label,) = label_layer_by_evidence(text, LAYER, np.array([True])).labels
    assert (label.text, label.has_terms) == (EARLY, False)


def test_a_silent_feature_is_unclear(passages, lexicon):
    (label,) = labels_of(passages, [on(lambda _token: False)], lexicon).labels
    assert label.text == UNCLEAR


def with_new_confirmation(evidence: Evidence, text_of, seed: int) -> Evidence:
    """The evidence with other text and other activations in the confirmation half."""
    passages, parts = [], []
    dense = evidence.layers[LAYER].activations.toarray()
    starts = evidence.starts
    for number, one in enumerate(evidence.passages):
        if one.half == Half.DISCOVERY:
            passages.append(one)
            parts.append(dense[starts[number] : starts[number + 1]])
        else:
            other = passage(text_of(number), one.side, one.half)
            passages.append(other)
            rng = np.random.default_rng(seed + number)
            values = rng.random((len(other.token_ids), dense.shape[1]))
            values[0] = 0
            parts.append(np.where(values < 0.9, 0, values).astype(np.float32))
    layer = LayerEvidence(evidence.layers[LAYER].features, sparse.csc_array(np.concatenate(parts)))
    return Evidence(passages, {LAYER: layer})


def confirmation_labels(passages, lexicon, text_of) -> tuple[LayerLabels, LayerLabels]:
    plants = [*PLANTED.values(), *TERMS.values(), *CONTEXTS.values(), on_words("dividend"), at_random(1)]
    evidence = planted_evidence(passages, plants)
    other = with_new_confirmation(evidence, text_of, 7)
    early = np.zeros(len(plants), bool)
    before, after = (
        label_layer_by_evidence(AnnotatedEvidence.of(one, lexicon), LAYER, early) for one in (evidence, other)
    )
    return before, after


def test_confirmation_activations_have_no_influence_on_labels(passages, lexicon):
    texts = [one.text for one in passages]
    before, after = confirmation_labels(passages, lexicon, lambda number: texts[number])
    assert [label.text for label in after.labels] == [label.text for label in before.labels]
    assert after.support == before.support


@pytest.mark.parametrize(
    "text",
    [
        "Dividends, dividends and payouts. PARIS meetings! The heron waited, oddly.",
        "Crude price falls. Barrels of crude. A mortgage borrower and the loans of borrowers, refinancing it all.",
    ],
)
def test_confirmation_text_has_no_influence_on_labels(passages, lexicon, text):
    before, after = confirmation_labels(passages, lexicon, lambda number: f"{text} Note {number}.")
    assert [label.text for label in after.labels] == [label.text for label in before.labels]
    assert after.support == before.support


def test_a_label_that_does_not_tell_discovery_passages_apart_is_not_given(passages, lexicon):
    plants = list(CONTEXTS.values())
    text = AnnotatedEvidence.of(planted_evidence(passages, plants), lexicon)
    found = associate(text.annotated, unit_activations(text.evidence.layers[LAYER], text.annotated.units))
    task = text.tasks(LAYER, Half.DISCOVERY)[0]
    assert task is not None
    assert choose_label(text.annotated, found, 0, task, early=False).text != UNCLEAR
    turned = task._replace(fires=~task.fires)
    assert choose_label(text.annotated, found, 0, turned, early=False).text == UNCLEAR


def test_with_words_only_no_phrase_of_two_words_is_known(passages, lexicon):
    evidence = planted_evidence(passages, list(CONTEXTS.values()))
    text = AnnotatedEvidence.of(evidence, lexicon, words_only=True)
    assert text.annotated.phrases.names
    assert all(" " not in name for name in text.annotated.phrases.names)
    found = label_layer_by_evidence(text, LAYER, np.zeros(3, bool))
    assert [label.text.split(":")[0] for label in found.labels] == list(CONTEXTS)


def test_labels_do_not_depend_on_the_other_features_of_the_layer(passages, lexicon):
    plants = list(CONTEXTS.values())
    together = [label.text for label in labels_of(passages, plants, lexicon).labels]
    alone = [labels_of(passages, [plant], lexicon).labels[0].text for plant in plants]
    assert alone == together


def test_passages_of_one_side_only_are_labelled_too(passages, lexicon):
    own = [replace(one) for one in passages if one.side == Side.DOMAIN]
    (label,) = labels_of(own, [CONTEXTS["Oil trade"]], lexicon).labels
    assert label.text.startswith("Oil trade")
