"""Lexicons: concepts with their terms, shipped for each built-in domain or written by the user."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, GENERAL, lexicon_file
from stratalens.corpus.words import (
    FUNCTION_WORDS,
    UnitKind,
    Words,
    phrase_stems,
)
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_yaml

MAX_LEXICON_BYTES = 4 * 2**20
"""About 200,000 terms; the largest built-in lexicon takes 88 KB."""
MAX_TERM_WORDS = 6
MAX_COVERED_SHARE = 0.4
"""A concept of ordinary language is left out if more than this share of its terms are terms of the domain."""
SURFACE = "Surface"
"""Group of the concepts that are forms, such as digits; their units are found by `SURFACE_FORMS`."""
GRAMMAR = "Grammar"
"""Group of the concepts that are parts of speech."""


@dataclass(frozen=True)
class Concept:
    """A concept with the words and phrases that express it."""

    name: str
    group: str
    terms: tuple[str, ...]
    """Empty for a form, whose units are found by `SURFACE_FORMS`."""
    specific: bool
    """Whether it belongs to a domain; False for forms and ordinary language."""


def _is_quotation_mark(text: str) -> bool:
    return text in "\"“”„«»'‘’`"


def _ends_in_plural_s(text: str) -> bool:
    return len(text) > 3 and text.lower().endswith("s") and not text.lower().endswith(("ss", "us", "is"))


SURFACE_FORMS: dict[str, Callable[[str, int], bool]] = {
    "Digits": lambda text, kind: kind == UnitKind.NUMBER,
    "Currency signs": lambda text, kind: kind == UnitKind.MARK and unicodedata.category(text) == "Sc",
    "Percent signs": lambda text, kind: text in "%‰",
    "Hyphens and dashes": lambda text, kind: kind == UnitKind.MARK and unicodedata.category(text) == "Pd",
    "Commas": lambda text, kind: text == ",",
    "Full stops": lambda text, kind: text == ".",
    "Quotation marks": lambda text, kind: kind == UnitKind.MARK and _is_quotation_mark(text),
    "Colons and semicolons": lambda text, kind: text in (":", ";"),
    "Brackets": lambda text, kind: kind == UnitKind.MARK and unicodedata.category(text) in ("Ps", "Pe"),
    "Question and exclamation marks": lambda text, kind: text in ("?", "!"),
    "Slashes and symbols": lambda text, kind: text in ("/", "\\", "|", "*", "#", "=", "+", "&", "@", "_", "^", "~"),
    "Capitalised words": lambda text, kind: kind == UnitKind.WORD and text[0].isupper(),
    "Words ending in -s": lambda text, kind: kind == UnitKind.WORD and _ends_in_plural_s(text),
    "Content words of any topic": lambda text, kind: kind == UnitKind.WORD and text.lower() not in FUNCTION_WORDS,
}
"""Name of a form -> whether a unit has it, by the unit's text and kind."""

FORMS_SHOWN_WITH_WORDS = frozenset(["Capitalised words", "Words ending in -s"])
"""Forms whose label also shows the words that have the form."""
FORMS_SHOWN_ALONE = frozenset(SURFACE_FORMS) - FORMS_SHOWN_WITH_WORDS - {"Digits", "Currency signs", "Percent signs"}
"""Forms whose label shows only the form. The label of the remaining forms also shows preferred phrases."""


@dataclass(frozen=True)
class Matches:
    """Where terms of a lexicon occur in passages."""

    concept: Int[np.ndarray, "match"]
    """Number of the concept within the lexicon."""
    term: Int[np.ndarray, "match"]
    """Number of the term within the lexicon; a term of several concepts has one number for each."""
    first: Int[np.ndarray, "match"]
    """First unit of the match."""
    last: Int[np.ndarray, "match"]
    """Last unit of the match."""


class Lexicon:
    """Concepts whose terms can be found in passages; the number of a concept is its index in `concepts`.

    Args:
        concepts: all of them.
        of_domain: whether the specific ones are those of the run's domain; else, for want of such, of other domains.
    """

    def __init__(self, concepts: Sequence[Concept], *, of_domain: bool = True):
        self.concepts = tuple(concepts)
        self.of_domain = of_domain
        self._terms_by_first_stem: dict[str, list[tuple[tuple[str, ...], int, int]]] = defaultdict(list)
        self.term_count = 0
        for number, concept in enumerate(self.concepts):
            for stems in dict.fromkeys(phrase_stems(term) for term in concept.terms):
                self._terms_by_first_stem[stems[0]].append((stems, number, self.term_count))
                self.term_count += 1

    def is_specific(self, concept: int) -> bool:
        """Whether a concept belongs to a domain; False for forms and ordinary language."""
        return self.concepts[concept].specific

    def concepts_of(self, phrase: tuple[str, ...]) -> set[int]:
        """Return the concepts with a term that a phrase, given by its stems, contains."""
        return {
            number
            for start in range(len(phrase))
            for term, number, _ in self._terms_by_first_stem.get(phrase[start], ())
            if phrase[start : start + len(term)] == term
        }

    def find(self, words: Words) -> Matches:
        """Find all occurrences of all terms; they may overlap."""
        matches: list[tuple[int, int, int, int]] = []
        positions = np.flatnonzero(words.kind != UnitKind.MARK)
        stems = [words.stems[unit] for unit in positions]
        runs = _run_lengths(words.joined[positions])
        for position, stem in enumerate(stems):
            for term, concept, term_number in self._terms_by_first_stem.get(stem, ()):
                if len(term) <= runs[position] and tuple(stems[position : position + len(term)]) == term:
                    matches.append((concept, term_number, positions[position], positions[position + len(term) - 1]))
        matches += [
            (number, self.term_count + number, unit, unit)
            for number, concept in enumerate(self.concepts)
            if not concept.terms
            for unit in _units_of_form(concept.name, words)
        ]
        return Matches(*np.array(matches, dtype=np.int64).reshape(-1, 4).T)


def _run_lengths(joined: np.ndarray) -> list[int]:
    """Return how many words, from each word on, follow one another without a mark; at most `MAX_TERM_WORDS`."""
    lengths = np.ones(len(joined), np.int64)
    for position in range(len(joined) - 2, -1, -1):
        if joined[position + 1]:
            lengths[position] = min(MAX_TERM_WORDS, lengths[position + 1] + 1)
    return lengths.tolist()


def _units_of_form(name: str, words: Words) -> list[int]:
    has_form = SURFACE_FORMS[name]
    kinds = words.kind.tolist()  # plain numbers: comparing numpy's with an enum is slow and can lose a Ctrl-C
    return [unit for unit, (text, kind) in enumerate(zip(words.texts, kinds, strict=True)) if has_form(text, kind)]


def load_lexicon(domain: str, user_files: Iterable[str] = ()) -> Lexicon:
    """Load the lexicon of a run: forms, concepts of the domain, and concepts of ordinary language.

    Args:
        domain: its built-in lexicon is used; for a domain without one, those of all built-in domains.
        user_files: paths of the user's lexicons, which replace the domain's built-in one.

    Raises:
        ConfigError: a file is missing or not a lexicon.
    """
    paths = [user_path(name) for name in user_files]
    if paths:
        return _with_common([concept for path in paths for concept in read_lexicon(path)])
    return _built_in_lexicon((domain,) if domain in BUILT_IN_DOMAINS else BUILT_IN_DOMAINS)


@cache
def _built_in_lexicon(domains: tuple[str, ...]) -> Lexicon:
    specific = [concept for name in domains for concept in read_lexicon(lexicon_file(name))]
    return _with_common(specific, of_domain=len(domains) == 1)


def _with_common(specific: list[Concept], *, of_domain: bool = True) -> Lexicon:
    """Build a lexicon of forms, a domain's concepts, and those of ordinary language that the domain does not cover."""
    surface = [Concept(name, SURFACE, (), specific=False) for name in SURFACE_FORMS]
    covered = {phrase_stems(term) for concept in specific for term in concept.terms}
    common = [
        concept
        for concept in read_lexicon(lexicon_file(GENERAL), specific=False)
        if not _mostly_covered(concept, covered)
    ]
    return Lexicon([*surface, *specific, *common], of_domain=of_domain)


def _mostly_covered(concept: Concept, covered: set[tuple[str, ...]]) -> bool:
    """Return whether a concept of ordinary language shares too many terms with the domain; never for grammar."""
    inside = sum(phrase_stems(term) in covered for term in concept.terms)
    return concept.group != GRAMMAR and inside > MAX_COVERED_SHARE * len(concept.terms)


def read_lexicon(path: Path, *, specific: bool = True) -> list[Concept]:
    """Read the concepts of one YAML file: a list of mappings with `concept`, `group` (optional) and `terms`.

    Raises:
        ConfigError: the file cannot be read, or is not such a list.
    """
    loaded = read_yaml(path, MAX_LEXICON_BYTES)
    if not isinstance(loaded, list) or not loaded:
        raise ConfigError(f"{path}: expected a list of concepts, each with `concept` and `terms`")
    return [_concept(path, number, entry, specific) for number, entry in enumerate(loaded, 1)]


def _concept(path: Path, number: int, entry: object, specific: bool) -> Concept:
    if isinstance(entry, dict):
        name, group, terms = entry.get("concept"), entry.get("group", ""), entry.get("terms")
        if isinstance(name, str) and name.strip() and isinstance(group, str) and isinstance(terms, list) and terms:
            words = [str(term) for term in terms if isinstance(term, str | int) and not isinstance(term, bool)]
            if len(words) == len(terms) and all(0 < len(phrase_stems(word)) <= MAX_TERM_WORDS for word in words):
                return Concept(name.strip(), group, tuple(words), specific)
    raise ConfigError(
        f"{path}: entry {number} is not a concept; expected `concept: NAME` and `terms: [TERM, ...]`, "
        f"each term of 1 to {MAX_TERM_WORDS} words (quote words such as yes, no and on)"
    )
