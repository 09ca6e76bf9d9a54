"""Concepts are found wherever their terms occur, and only there; the user's own files are checked."""

import gc
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, lexicon_file
from stratalens.corpus.words import Words, phrase_stems
from stratalens.errors import ConfigError
from stratalens.labels.concepts.lexicon import (
    FORMS_SHOWN_ALONE,
    FORMS_SHOWN_WITH_WORDS,
    GRAMMAR,
    MAX_COVERED_SHARE,
    MAX_TERM_WORDS,
    SURFACE,
    SURFACE_FORMS,
    Concept,
    Lexicon,
    load_lexicon,
    read_lexicon,
)


def concept(name: str, *terms: str) -> Concept:
    return Concept(name, "", terms, specific=True)


def found(lexicon: Lexicon, *texts: str) -> list[tuple[str, str]]:
    """Concept and matched words of every match, sorted."""
    words = Words.of(texts)
    matches = lexicon.find(words)
    return sorted(
        (lexicon.concepts[concept].name, " ".join(words.texts[first : last + 1]))
        for concept, first, last in zip(matches.concept, matches.first, matches.last, strict=True)
    )


LENDING = Lexicon([concept("Lending", "interest rate", "loan"), concept("Rates", "rate", "interest rate swap")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Loans were repaid", [("Lending", "Loans")]),
        ("an interest-rate rise", [("Lending", "interest - rate"), ("Rates", "rate")]),
        ("the INTEREST rates", [("Lending", "INTEREST rates"), ("Rates", "rates")]),
        ("of interest. Rate it", [("Rates", "Rate")]),
        ("of interest, rate", [("Rates", "rate")]),
        (
            "an interest rate swap",
            [("Lending", "interest rate"), ("Rates", "interest rate swap"), ("Rates", "rate")],
        ),
        ("loan loan", [("Lending", "loan"), ("Lending", "loan")]),
        ("a lone lawn", []),
    ],
)
def test_terms_are_found_by_stem_across_hyphens_but_not_across_other_marks(text, expected):
    assert found(LENDING, text) == expected


def test_no_term_spans_two_passages():
    assert found(LENDING, "of interest", "rate it") == [("Rates", "rate")]


def test_spellings_of_one_stem_are_one_term():
    assert found(Lexicon([concept("Lending", "loan", "loans", "Loan")]), "a loan") == [("Lending", "loan")]


def test_concepts_that_share_a_term_are_both_found():
    lexicon = Lexicon([concept("A", "bond"), concept("B", "bond", "chemical bond")])
    assert found(lexicon, "a bond") == [("A", "bond"), ("B", "bond")]
    assert len(set(lexicon.find(Words.of(["a chemical bond"])).term)) == 3


def test_concepts_of_a_phrase_are_those_whose_terms_it_holds():
    assert LENDING.concepts_of(phrase_stems("high interest rates")) == {0, 1}
    assert LENDING.concepts_of(phrase_stems("interest")) == set()


def test_nothing_is_found_in_nothing():
    matches = LENDING.find(Words.of([]))
    assert len(matches.concept) == len(matches.term) == len(matches.first) == len(matches.last) == 0


FORMS = {
    "Digits": ["1,000", "5"],
    "Currency signs": ["£"],
    "Percent signs": ["%"],
    "Hyphens and dashes": ["-", "—"],
    "Commas": [","],
    "Full stops": ["."],
    "Quotation marks": ["“", "”"],
    "Colons and semicolons": [";", ":"],
    "Brackets": ["(", ")"],
    "Question and exclamation marks": ["?", "!"],
    "Slashes and symbols": ["/"],
    "Capitalised words": ["Sales", "Why", "Oslo"],
    "Words ending in -s": ["Sales", "rates", "news"],
    "Content words of any topic": ["Sales", "rose", "rates", "mid", "year", "Oslo", "news"],
}


def test_each_form_is_found_where_it_occurs():
    text = "Sales rose 5% to £1,000; rates (mid-year) — “is this us”: Why/no? Oslo, news!."
    lexicon = Lexicon([Concept(name, SURFACE, (), specific=False) for name in SURFACE_FORMS])
    by_name: dict[str, list[str]] = {name: [] for name in SURFACE_FORMS}
    for name, unit in found(lexicon, text):
        by_name[name].append(unit)
    assert by_name == {name: sorted(units) for name, units in FORMS.items()}


def test_forms_and_terms_have_numbers_of_their_own():
    lexicon = Lexicon([Concept("Digits", SURFACE, (), specific=False), concept("Lending", "loan", "mortgage")])
    matches = lexicon.find(Words.of(["5 loans, 7 mortgages"]))
    assert len({(c, t) for c, t in zip(matches.concept, matches.term, strict=True)}) == 3
    assert len(np.unique(matches.term)) == 3


def test_every_form_is_shown_in_one_way():
    assert set(SURFACE_FORMS) > FORMS_SHOWN_ALONE
    assert set(SURFACE_FORMS) > FORMS_SHOWN_WITH_WORDS
    assert not FORMS_SHOWN_ALONE & FORMS_SHOWN_WITH_WORDS


@pytest.mark.parametrize("name", [*BUILT_IN_DOMAINS, GENERAL])
def test_shipped_files_name_each_concept_once_with_terms_of_one_to_six_words(name):
    concepts = read_lexicon(lexicon_file(name))
    repeated = [own for own, count in Counter(one.name for one in concepts).items() if count > 1]
    assert not repeated
    for one in concepts:
        assert one.terms, one.name
        assert all(1 <= len(phrase_stems(term)) <= MAX_TERM_WORDS for term in one.terms), one.name
        assert len(one.name.split()) <= 8, one.name


@pytest.mark.parametrize("domain", BUILT_IN_DOMAINS)
def test_each_domain_loads_with_forms_and_ordinary_language(domain):
    lexicon = load_lexicon(domain)
    own = read_lexicon(lexicon_file(domain))
    assert [one for number, one in enumerate(lexicon.concepts) if lexicon.is_specific(number)] == own
    others = [one for one in lexicon.concepts if not one.specific]
    assert {one.name for one in others if one.group == SURFACE} == set(SURFACE_FORMS)
    common = read_lexicon(lexicon_file(GENERAL), specific=False)
    assert len(common) / 2 < len([one for one in others if one in common])


def test_a_domain_without_a_lexicon_takes_all_built_in_ones():
    specific = [one for one in load_lexicon("sports").concepts if one.specific]
    assert specific == [one for name in BUILT_IN_DOMAINS for one in read_lexicon(lexicon_file(name))]


def write(folder: Path, text: str, name: str = "sports.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


SPORTS = (
    "- concept: Goals\n  group: Football\n  terms: [goal, penalty kick, 442]\n- concept: Sets\n  terms: [tie-break]\n"
)


@pytest.mark.parametrize("domain", ["sports", "financial"])
def test_a_users_file_replaces_the_built_in_ones(tmp_path, domain):
    lexicon = load_lexicon(domain, [write(tmp_path, SPORTS)])
    assert [one for one in lexicon.concepts if one.specific] == [
        Concept("Goals", "Football", ("goal", "penalty kick", "442"), specific=True),
        Concept("Sets", "", ("tie-break",), specific=True),
    ]
    assert ("Goals", "penalty kicks") in found(lexicon, "two penalty kicks")


@pytest.mark.parametrize("name", ["common.yaml", "Surface.yaml"])
def test_a_users_concepts_belong_to_the_domain_whatever_the_file_is_called(tmp_path, name):
    lexicon = load_lexicon("sports", [write(tmp_path, SPORTS, name)])
    numbers = {one.name: number for number, one in enumerate(lexicon.concepts)}
    assert lexicon.is_specific(numbers["Goals"])


def test_ordinary_concepts_that_the_domain_mostly_covers_are_left_out_but_grammar_stays(tmp_path):
    common = read_lexicon(lexicon_file(GENERAL))
    topic = next(one for one in common if one.group != GRAMMAR and len(one.terms) >= 5)
    grammar = next(one for one in common if one.group == GRAMMAR and len(one.terms) >= 2)
    need = int(MAX_COVERED_SHARE * len(topic.terms)) + 1

    def names(terms: tuple[str, ...]) -> set[str]:
        lines = "".join(f"    - {term!r}\n" for term in terms)
        return {one.name for one in load_lexicon("x", [write(tmp_path, f"- concept: Own\n  terms:\n{lines}")]).concepts}

    assert topic.name not in names(topic.terms[:need])
    assert topic.name in names(topic.terms[: need - 1])
    assert grammar.name in names(grammar.terms)


SHAPE = r"entry 1 is not a concept; expected `concept: NAME` and `terms: \[TERM, ...\]`, each term of 1 to 6 words"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a list of concepts, each with `concept` and `terms`"),
        ("[]", "expected a list of concepts"),
        ("concept: Goals", "expected a list of concepts"),
        ("- concept: [", "not valid YAML"),
        ("- !!python/object:os.system {}", "is a tag; only plain values are accepted"),
        ("\x00", "not valid YAML"),
        ("- Goals", SHAPE),
        ("- terms: [goal]", SHAPE),
        ("- concept: ' '\n  terms: [goal]", SHAPE),
        ("- concept: Goals", SHAPE),
        ("- concept: Goals\n  terms: goal", SHAPE),
        ("- concept: Goals\n  terms: []", SHAPE),
        ("- concept: Goals\n  terms: ['?']", SHAPE),
        ("- concept: Goals\n  terms: [one two three four five six seven]", SHAPE),
        ("- concept: Goals\n  terms: [[goal]]", SHAPE),
        ("- concept: Goals\n  group: [a]\n  terms: [goal]", SHAPE),
        ("- concept: Goals\n  terms: [goal, yes, on]", SHAPE),
        ("- concept: Goals\n  terms: [2024-13-45]", "not valid YAML"),
    ],
)
def test_a_file_that_is_not_a_lexicon_is_refused_with_what_is_expected(tmp_path, text, message):
    name = write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_lexicon("sports", [name])
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


def test_the_faulty_entry_is_named(tmp_path):
    with pytest.raises(ConfigError, match="entry 3 is not a concept"):
        load_lexicon("sports", [write(tmp_path, SPORTS + "- concept: Bad\n")])


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"- concept: Caf\xe9")
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory"), (latin, "not UTF-8 text")):
        with pytest.raises(ConfigError, match=f"cannot be read: .*{reason}"):
            load_lexicon("sports", [str(path)])


def test_an_interrupt_is_never_lost():
    """Compiled code that looks for an attribute drops whatever is raised meanwhile, Ctrl-C included."""

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    def find_for(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        for _ in range(20):  # far longer than that
            lexicon.find(words)

    words = Words.of(["The bank raised its rate by 0.5%, to $40 million; why?"] * 5_000)
    lexicon = load_lexicon("financial")
    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # test libraries hook into it, and Python drops what is raised in such a hook
    try:
        for attempt in range(20):
            with pytest.raises(KeyboardInterrupt):
                find_for(0.02 + 0.005 * attempt)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
