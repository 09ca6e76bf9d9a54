"""Concepts and the terms that stand for them: the ones shipped for each built-in domain, or the user's own."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Int

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, lexicon_file
from stratalens.corpus.words import (
    FUNCTION_WORDS,
    Kind,
    Words,
    phrase_stems,
)
from stratalens.errors import ConfigError
from stratalens.files.plain_yaml import read_yaml

LONGEST_TERM = 6
"""Words of a term, at most."""
COVERED_SHARE = 0.4
COMMON = "common"
"""Lexicon of ordinary language, used with every domain."""
SURFACE = "Surface"
"""Group of the concepts that go by form, not by meaning."""
GRAMMAR = "Grammar"
"""Group of the concepts that are parts of speech."""


@dataclass(frozen=True)
class Concept:
    """A notion with the words and phrases that speak of it."""

    name: str
    group: str
    terms: tuple[str, ...]
    """Empty for a concept of form, whose members `SURFACE_FORMS` tells."""
    specific: bool
    """Whether it belongs to a domain, not to form or ordinary language."""


def _quotes(text: str) -> bool:
    return text in "\"“”„«»'‘’`"


def _plural(text: str) -> bool:
    return len(text) > 3 and text.lower().endswith("s") and not text.lower().endswith(("ss", "us", "is"))


SURFACE_FORMS: dict[str, Callable[[str, int], bool]] = {
    "Digits": lambda text, kind: kind == Kind.NUMBER,
    "Currency signs": lambda text, kind: kind == Kind.MARK and unicodedata.category(text) == "Sc",
    "Percent signs": lambda text, kind: text in "%‰",
    "Hyphens and dashes": lambda text, kind: kind == Kind.MARK and unicodedata.category(text) == "Pd",
    "Commas": lambda text, kind: text == ",",
    "Full stops": lambda text, kind: text == ".",
    "Quotation marks": lambda text, kind: kind == Kind.MARK and _quotes(text),
    "Colons and semicolons": lambda text, kind: text in (":", ";"),
    "Brackets": lambda text, kind: kind == Kind.MARK and unicodedata.category(text) in ("Ps", "Pe"),
    "Question and exclamation marks": lambda text, kind: text in ("?", "!"),
    "Slashes and symbols": lambda text, kind: text in ("/", "\\", "|", "*", "#", "=", "+", "&", "@", "_", "^", "~"),
    "Capitalised words": lambda text, kind: kind == Kind.WORD and text[0].isupper(),
    "Words ending in -s": lambda text, kind: kind == Kind.WORD and _plural(text),
    "Content words of any topic": lambda text, kind: kind == Kind.WORD and text.lower() not in FUNCTION_WORDS,
}


FORMS_BY_WORDS = frozenset(["Capitalised words", "Words ending in -s"])
"""Forms whose label shows the words that have it; that of the others in the text around, or nothing."""
FORMS_ALONE = frozenset(SURFACE_FORMS) - FORMS_BY_WORDS - {"Digits", "Currency signs", "Percent signs"}


@dataclass(frozen=True)
class Matches:
    """Where terms of a lexicon stand in running words."""

    concept: Int[np.ndarray, "match"]
    term: Int[np.ndarray, "match"]
    """Number of the term within the lexicon; concepts that share a term have numbers of their own for it."""
    first: Int[np.ndarray, "match"]
    """First unit of the match."""
    last: Int[np.ndarray, "match"]


class Lexicon:
    """Concepts, and a finder of their terms."""

    def __init__(self, concepts: Sequence[Concept]):
        self.concepts = tuple(concepts)
        self._by_first: dict[str, list[tuple[tuple[str, ...], int, int]]] = defaultdict(list)
        self.terms = 0
        for number, concept in enumerate(self.concepts):
            for stems in dict.fromkeys(phrase_stems(term) for term in concept.terms):
                self._by_first[stems[0]].append((stems, number, self.terms))
                self.terms += 1

    def is_specific(self, concept: int) -> bool:
        """Whether a concept belongs to a domain, not to form or ordinary language."""
        return self.concepts[concept].specific

    def concepts_of(self, phrase: tuple[str, ...]) -> set[int]:
        """Concepts of which a phrase, given by its stems, is or holds a term."""
        return {
            number
            for place in range(len(phrase))
            for term, number, _ in self._by_first.get(phrase[place], ())
            if phrase[place : place + len(term)] == term
        }

    def find(self, words: Words) -> Matches:
        """All places where a term stands; terms may overlap."""
        found: list[tuple[int, int, int, int]] = []
        positions = np.flatnonzero(words.kind != Kind.MARK)
        stems = [words.stems[at] for at in positions]
        runs = _run_lengths(words.joined[positions])
        for place, first in enumerate(stems):
            for term, concept, term_number in self._by_first.get(first, ()):
                if len(term) <= runs[place] and tuple(stems[place : place + len(term)]) == term:
                    found.append((concept, term_number, positions[place], positions[place + len(term) - 1]))
        found += [
            (number, self.terms + number, at, at)
            for number, concept in enumerate(self.concepts)
            if not concept.terms
            for at in _members(concept.name, words)
        ]
        return Matches(*np.array(found, dtype=np.int64).reshape(-1, 4).T)


def _run_lengths(joined: np.ndarray) -> list[int]:
    """For each word, how many words from it on follow one another without a break."""
    lengths = np.ones(len(joined), np.int64)
    for place in range(len(joined) - 2, -1, -1):
        if joined[place + 1]:
            lengths[place] = min(LONGEST_TERM, lengths[place + 1] + 1)
    return lengths.tolist()


def _members(name: str, words: Words) -> list[int]:
    belongs = SURFACE_FORMS[name]
    return [at for at, (text, kind) in enumerate(zip(words.texts, words.kind, strict=True)) if belongs(text, kind)]


def load_lexicon(domain: str, given: Iterable[str] = ()) -> Lexicon:
    """The lexicon of a run: concepts of form, of ordinary language, and of the domain.

    Args:
        domain: its built-in lexicon is taken; with a domain that has none, those of all built-in domains.
        given: the user's own files, in place of the domain's built-in one.

    Raises:
        ConfigError: a file is missing or not a lexicon.
    """
    own = [Path(name).expanduser() for name in given]
    if own:
        return _with_common([concept for path in own for concept in read_lexicon(path)])
    return _built_in_lexicon((domain,) if domain in BUILT_IN_DOMAINS else BUILT_IN_DOMAINS)


@cache
def _built_in_lexicon(domains: tuple[str, ...]) -> Lexicon:
    return _with_common([concept for name in domains for concept in read_lexicon(lexicon_file(name))])


def _with_common(specific: list[Concept]) -> Lexicon:
    """Concepts of form, of a domain, and of ordinary language as far as the domain's do not say the same."""
    surface = [Concept(name, SURFACE, (), specific=False) for name in SURFACE_FORMS]
    covered = {phrase_stems(term) for concept in specific for term in concept.terms}
    common = [
        concept for concept in read_lexicon(lexicon_file(COMMON), specific=False) if not _mostly(concept, covered)
    ]
    return Lexicon([*surface, *specific, *common])


def _mostly(concept: Concept, covered: set[tuple[str, ...]]) -> bool:
    """Whether finer concepts of the domain say most of what an ordinary one does."""
    inside = sum(phrase_stems(term) in covered for term in concept.terms)
    return concept.group != GRAMMAR and inside > COVERED_SHARE * len(concept.terms)


def read_lexicon(path: Path, *, specific: bool = True) -> list[Concept]:
    """Concepts of one YAML file: a list of `concept`, `group` (optional) and `terms`.

    Raises:
        ConfigError: the file cannot be read, or is not such a list.
    """
    loaded = read_yaml(path)
    if not isinstance(loaded, list) or not loaded:
        raise ConfigError(f"{path}: expected a list of concepts, each with `concept` and `terms`")
    return [_concept(path, number, entry, specific) for number, entry in enumerate(loaded, 1)]


def _concept(path: Path, number: int, entry: object, specific: bool) -> Concept:
    if isinstance(entry, dict):
        name, group, terms = entry.get("concept"), entry.get("group", ""), entry.get("terms")
        if isinstance(name, str) and name.strip() and isinstance(group, str) and isinstance(terms, list) and terms:
            words = [str(term) for term in terms if isinstance(term, str | int) and not isinstance(term, bool)]
            if len(words) == len(terms) and all(0 < len(phrase_stems(word)) <= LONGEST_TERM for word in words):
                return Concept(name.strip(), group, tuple(words), specific)
    raise ConfigError(
        f"{path}: entry {number} is no concept; expected `concept: NAME` and `terms: [TERM, ...]`, "
        f"each term of 1 to {LONGEST_TERM} words (quote words such as yes, no and on)"
    )
