"""The built-in texts are what their readers expect: enough of them, in like kinds on all sides, none like another."""

import json
from collections import Counter
from itertools import combinations, product

import pytest
from text_quality import COMMON_WORDS, repeated_sentences, shared_runs, words_of

from stratalens.config.domain_file import read_domain
from stratalens.config.validation import make_config
from stratalens.corpus import Corpus, survey
from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, built_in_folder, text_file
from stratalens.corpus.describe import examine_text
from stratalens.corpus.likeness import MAX_AUROC
from stratalens.labels.concepts.domain_speech import domain_speech
from stratalens.labels.concepts.lexicon import load_lexicon

MIN_DOCUMENTS = {"financial": 400, "general": 400, "medical": 200, "legal": 200}
KINDS = {"dialogue", "forum", "letter", "news", "official", "report", "table", "textbook"}
SUB_FIELDS = {"accounting", "banking", "economics", "household", "insurance", "markets", "tax", "trade"}
NAMES = tuple(MIN_DOCUMENTS)


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text_file(name).read_text(encoding="utf-8").splitlines()]


def everything() -> dict[str, str]:
    return {row["id"]: row["text"] for name in NAMES for row in rows(name)}


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_of_them_and_of_the_right_length(name):
    own = rows(name)
    assert len(own) >= MIN_DOCUMENTS[name]
    assert [row["id"] for row in own if not 80 <= len(row["text"].split()) <= 220] == []
    assert len({row["id"] for row in own}) == len(own)
    assert all(set(row) == {"id", "topic", "kind", "text"} for row in own)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_there_about_as_often_and_on_every_topic(name):
    own = rows(name)
    kinds, topics = Counter(row["kind"] for row in own), Counter(row["topic"] for row in own)
    assert set(kinds) == KINDS
    assert max(kinds.values()) < 1.5 * min(kinds.values())
    assert min(topics.values()) >= 0.4 * len(own) / len(topics)
    for kind in KINDS:
        shares = Counter(row["topic"] for row in own if row["kind"] == kind)
        assert max(shares.values()) <= 0.3 * kinds[kind], kind


def test_finance_is_covered_field_by_field_and_general_text_by_as_many_subjects():
    assert {row["topic"] for row in rows("financial")} == SUB_FIELDS
    assert len({row["topic"] for row in rows("general")}) >= len(SUB_FIELDS)


def test_no_run_of_words_is_in_two_documents():
    assert shared_runs(everything()) == {}


def test_no_sentence_repeats_another():
    assert repeated_sentences(everything()) == {}


def test_a_repetition_is_found():
    names = {"Acre": "3", "Bude": "4", "Corby": "5"}
    sentence = "The board of the {} bank met on Tuesday and raised its dividend by {} percent."
    many = {name: sentence.format(name, number) for name, number in names.items()}
    own = set(words_of(sentence))
    others = ["".join(letters) for letters in product("bcdfghjklmnpqrstvwxz", repeat=2)][: COMMON_WORDS - len(own)]
    common = " ".join([*others, *own] * 9)
    assert list(repeated_sentences(many | {"rest": common}).values()) == [list(names)]
    assert "met on tuesday and raised its dividend" in shared_runs(many)


@pytest.mark.parametrize("names", list(combinations(NAMES, 2)), ids="-".join)
def test_figures_are_about_as_frequent_on_all_sides(names):
    digits = [sum(map(str.isdigit, row["text"])) / len(row["text"]) for name in names for row in rows(name)]
    halves = digits[: len(rows(names[0]))], digits[len(rows(names[0])) :]
    means = [sum(half) / len(half) for half in halves]
    assert 0.75 < means[0] / means[1] < 1.33


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_the_sides_compare(domain):
    config = make_config(domain=domain)
    corpus = Corpus.of_run(config)
    found = survey(corpus, too_short=lambda _: False, max_documents=None, seed=0)
    assert set(found.populations.strata) == KINDS
    assert [counts.documents for counts in found.counts] == [len(rows(domain)), len(rows(GENERAL))], "none is dropped"
    text = examine_text(config, corpus, found)
    assert text.warnings == ()
    assert text.likeness is not None
    assert text.likeness.auroc < MAX_AUROC
    speech = domain_speech(found.samples, load_lexicon(domain))
    assert speech is not None
    assert speech < 0.03


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_a_built_in_domain_is_described_as_those_of_users_are(domain):
    described, options = read_domain(built_in_folder(domain))
    assert described.description
    assert options["domain"] == domain
    assert options["domain_data"] == [str(text_file(domain))]
    assert options["kind_column"] == "kind"
