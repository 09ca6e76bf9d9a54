"""Sentence pairs: those that ship are what the token test takes them for, and a file of a user is read or refused."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest
from error_book import Documented
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import named_error
from text_quality import shared_runs

import stratalens
from stratalens.config.domain_file import read_domain
from stratalens.config.validation import make_config
from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, built_in_folder, senses_file, text_file
from stratalens.corpus.sense_pairs import (
    MAX_PAIRS,
    MAX_SENSES_BYTES,
    MAX_SENTENCE_CHARACTERS,
    SensePair,
    load_sense_pairs,
    places_of,
)
from stratalens.corpus.words import Words
from stratalens.errors import ConfigError
from stratalens.labels.concepts.lexicon import Lexicon, load_lexicon
from stratalens.report.recording import recorded_settings

CLIMATE = Path(stratalens.__file__).parent.parent / "docs/climate"
MIN_PAIRS = {"financial": 120, "medical": 60, "legal": 60, "climate": 20}
MIN_WORDS = {"financial": 60, "medical": 40, "legal": 40, "climate": 20}
MAX_PAIRS_OF_A_WORD = 3
SHORTEST, LONGEST, MAX_DIFFERENCE = 7, 20, 5
RUN_WORDS = 6
SENTENCE = {"word": "bank", "domain": "He owes the bank a lot.", "other": "He sat on the bank of a lake."}


def files(name: str) -> list[str]:
    return [str(CLIMATE / f"{part}.{ending}") for part, ending in (("senses", "jsonl"), ("lexicon", "yaml"))] * (
        name == "climate"
    )


def pairs(name: str) -> list[SensePair]:
    return load_sense_pairs(name, files(name)[:1])


def sentences() -> dict[str, str]:
    return {
        f"{name} {number} {side}": getattr(pair, side)
        for name in MIN_PAIRS
        for number, pair in enumerate(pairs(name), 1)
        for side in ("domain", "other")
    }


def terms_beside(lexicon: Lexicon, sentence: str, word: str) -> list[str]:
    """The terms of the domain's lexicon in a sentence that are not the word alone."""
    words = Words.of([sentence])
    found = lexicon.find(words)
    terms = [
        " ".join(words.texts[first : last + 1])
        for concept, first, last in zip(found.concept, found.first, found.last, strict=True)
        if lexicon.is_specific(int(concept))
    ]
    return [term for term in terms if term.lower() != word.lower()]


@pytest.mark.parametrize("name", MIN_PAIRS)
def test_there_are_enough_pairs_of_many_words(name):
    times = Counter(pair.word.lower() for pair in pairs(name))
    assert times.total() >= MIN_PAIRS[name]
    assert len(times) >= MIN_WORDS[name]
    assert [word for word, own in times.items() if own > MAX_PAIRS_OF_A_WORD] == []


@pytest.mark.parametrize("name", MIN_PAIRS)
def test_both_sentences_are_of_like_length_and_hold_the_word_once_in_their_second_half(name):
    for pair in pairs(name):
        lengths = [len(sentence.split()) for sentence in (pair.domain, pair.other)]
        assert SHORTEST <= min(lengths) <= max(lengths) <= LONGEST, pair
        assert max(lengths) - min(lengths) <= MAX_DIFFERENCE, pair
        for sentence, length in zip((pair.domain, pair.other), lengths, strict=True):
            [(at, _)] = places_of(pair.word, sentence)
            assert len(sentence[:at].split()) >= length / 2, sentence
            assert re.fullmatch(r"[A-Z].*\.", sentence), sentence


@pytest.mark.parametrize("name", MIN_PAIRS)
def test_only_one_sentence_speaks_of_the_domain(name):
    lexicon = load_lexicon(name, files(name)[1:])
    for pair in pairs(name):
        assert terms_beside(lexicon, pair.domain, pair.word) != [], pair
        assert terms_beside(lexicon, pair.other, pair.word) == [], pair
        assert not re.search(r"[\d$€£¥%]", pair.other), pair


def test_no_sentence_repeats_another_or_a_built_in_text():
    own = sentences()
    assert len(set(own.values())) == len(own)
    assert shared_runs(own, RUN_WORDS) == {}
    texts = {
        row["id"]: row["text"]
        for name in (*BUILT_IN_DOMAINS, GENERAL)
        for row in map(json.loads, text_file(name).read_text(encoding="utf-8").splitlines())
    }
    assert [run for run, where in shared_runs(own | texts).items() if set(where) & set(own)] == []


@pytest.mark.parametrize("name", BUILT_IN_DOMAINS)
def test_the_folder_of_a_built_in_domain_names_its_pairs(name):
    _, options = read_domain(built_in_folder(name))
    assert options["senses"] == [str(senses_file(name).resolve())]


def written(path: Path, *rows: object) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_the_files_of_a_user_replace_the_built_in_one_and_a_domain_of_their_own_has_none(tmp_path):
    one = written(tmp_path / "one.jsonl", SENTENCE, "", "  ")
    two = written(tmp_path / "two.jsonl", {**SENTENCE, "domain": "  Bank of the year\u2009"})
    both = [SensePair(**SENTENCE), SensePair("bank", "Bank of the year", SENTENCE["other"])]
    assert load_sense_pairs("financial", [one, two]) == both
    assert load_sense_pairs("weather", [two, one]) == both[::-1]
    assert load_sense_pairs("weather") == []


def test_a_word_is_found_as_a_whole_wherever_it_stands():
    assert places_of("bank", "Banks bank at the Bank; a bank-note, embankment.") == [(6, 10), (18, 22), (26, 30)]
    assert places_of("a.b", "axb a.b") == [(4, 7)]
    assert places_of("coûts", "Les COÛTS.") == [(4, 9)]


ROWS: dict[str, tuple[object, str]] = {
    "a sentence pair that is no JSON": ("bank", "line 2: not JSON; expected lines such as"),
    "a sentence pair nested without end": ("[" * 100_000, "line 2: not JSON; expected lines such as"),
    "a sentence pair that is a list": ([1], "line 2: not the fields word, domain, other; expected lines such as"),
    "a sentence pair without its word": ({"domain": "a", "other": "b"}, "line 2: not the fields word, domain, other"),
    "a sentence pair with another field": ({**SENTENCE, "note": "x"}, "line 2: not the fields word, domain, other"),
    "a sentence pair with a number": ({**SENTENCE, "other": 7}, "line 2: `other` is no text; expected lines"),
    "a sentence pair with an empty word": ({**SENTENCE, "word": " "}, "line 2: `word` is empty; expected lines"),
    "a sentence pair of more than a sentence": (
        {**SENTENCE, "other": "bank " * 201},
        f"line 2: `other` has 1,005 characters; at most {MAX_SENTENCE_CHARACTERS:,} are accepted",
    ),
    "a sentence pair with half a character": (
        {**SENTENCE, "domain": "A bank \ud800."},
        "line 2: `domain` holds a line end, a control character or half a character; remove it",
    ),
    "a sentence pair of one sentence": (
        {**SENTENCE, "other": SENTENCE["domain"]},
        "line 2: both sentences are the same; `other` shows the word in another sense",
    ),
    "a sentence pair that lacks its word": (
        {**SENTENCE, "other": "The banks of a lake."},
        "line 2: `other` does not hold `bank` as a whole word; `word` is the form that both sentences have",
    ),
    "a sentence pair that is there twice": (SENTENCE, "line 2: the same pair as in "),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_line_that_is_no_pair_is_refused_with_its_number(tmp_path, documented: Documented, case):
    row, telling = ROWS[case]
    with pytest.raises(ConfigError) as error:
        load_sense_pairs("financial", [written(tmp_path / "senses.jsonl", SENTENCE, row)])
    assert telling in str(error.value)
    assert len(str(error.value)) < 500
    documented("Feature lists, lexicons and prompts", case, f"stratalens: {error.value}")


def test_a_file_that_cannot_hold_pairs_is_refused(tmp_path, documented: Documented):
    cases = {
        "sentence pairs that are not there": (lambda _: None, "cannot be read: No such file"),
        "sentence pairs in an empty file": (lambda path: path.write_text("\n\n"), "no sentence pair in this file"),
        "sentence pairs that are not UTF-8": (lambda path: path.write_bytes(b"caf\xe9"), "not UTF-8 text"),
        "sentence pairs in a named pipe": (os.mkfifo, "a regular file was expected, this is a named pipe"),
        "sentence pairs in a folder": (Path.mkdir, "Is a directory"),
        "sentence pairs in a large file": (lambda path: path.write_bytes(b" " * (MAX_SENSES_BYTES + 1)), "4 MiB"),
        "more sentence pairs than are read": (
            lambda path: written(path, *({**SENTENCE, "other": f"a bank {i}"} for i in range(MAX_PAIRS + 1))),
            f"line {MAX_PAIRS + 1}: more than {MAX_PAIRS:,} sentence pairs",
        ),
    }
    for number, (case, (make, telling)) in enumerate(cases.items()):
        path = tmp_path / f"{number}.jsonl"
        make(path)
        with pytest.raises(ConfigError) as error:
            load_sense_pairs("financial", [str(path)])
        assert telling in str(error.value), case
        documented("Feature lists, lexicons and prompts", case, f"stratalens: {error.value}")


def test_as_many_pairs_as_are_allowed_are_read_and_none_more(tmp_path):
    half = [{**SENTENCE, "other": f"{'-' * 900} the bank {i}"} for i in range(MAX_PAIRS // 2)]
    one = written(tmp_path / "one.jsonl", *half)
    two = written(tmp_path / "two.jsonl", *({**row, "domain": "A bank."} for row in half))
    assert len(load_sense_pairs("x", [one, two])) == MAX_PAIRS
    with pytest.raises(ConfigError, match=r"three\.jsonl, line 1: more than"):
        load_sense_pairs("x", [one, two, written(tmp_path / "three.jsonl", SENTENCE)])


TEXT = st.text(max_size=8)
ROW = st.dictionaries(st.sampled_from(["word", "domain", "other", "x"]), TEXT | st.integers(), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=60) | st.lists(ROW | TEXT, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows))))
def test_any_bytes_are_pairs_or_a_named_error(tmp_path, content):
    path = tmp_path / "senses.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    named_error(lambda: load_sense_pairs("x", [str(path)]))


def test_a_domain_names_its_pairs_by_an_entry_or_a_file_and_the_user_wins(tmp_path):
    folder = tmp_path / "sea"
    folder.mkdir()
    (folder / "texts.jsonl").write_text("{}")
    assert make_config(domain=str(folder)).senses == ()
    (folder / "senses.jsonl").write_text("{}")
    assert make_config(domain=str(folder)).senses == (str(folder / "senses.jsonl"),)
    (folder / "domain.yaml").write_text("senses: [a.jsonl, words/b.jsonl]")
    config = make_config(domain=str(folder))
    assert config.senses == (str(folder / "a.jsonl"), str(folder / "words/b.jsonl"))
    assert make_config(**config.model_dump()) == config
    assert make_config(domain=str(folder), senses="mine.jsonl").senses == ("mine.jsonl",)
    (folder / "domain.yaml").write_text("senses: ../other.jsonl")
    with pytest.raises(ConfigError, match="outside the folder of the domain"):
        make_config(domain=str(folder))


def test_the_option_takes_paths_and_is_recorded_without_credentials():
    config = make_config(senses=Path("a.jsonl"))
    assert config.senses == ("a.jsonl",)
    address = "https://me:secret@host/senses.jsonl"
    assert recorded_settings(make_config(senses=[address]))["senses"] == ["https://***@host/senses.jsonl"]
    for wrong in ("", "a\0b"):
        with pytest.raises(ConfigError):
            make_config(senses=wrong)
