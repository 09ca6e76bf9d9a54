"""Pairs of sentences in which one word has two senses: one of the domain, and another in ordinary language."""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stratalens.corpus.builtin import BUILT_IN_DOMAINS, senses_file
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.plain_yaml import read_text

MAX_SENSES_BYTES = 4 * 2**20
MAX_PAIRS = 4096
"""Of all files together; the largest built-in domain has less than 200."""
MAX_SENTENCE_CHARACTERS = 1000
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories of control characters, halves of characters and line ends."""
_EXPECTED = 'lines such as {"word": "bank", "domain": "... at the bank.", "other": "... on the bank of the river."}'


class SensePair(NamedTuple):
    """A word in a sentence of the domain, and the same form of it in a sentence where it means something else."""

    word: str
    domain: str
    other: str


def load_sense_pairs(domain: str, user_files: Iterable[str] = ()) -> list[SensePair]:
    """Load the sentence pairs of a domain, in the order of the files.

    Args:
        domain: a built-in one has pairs of its own.
        user_files: paths of the user's files, which replace those of the domain.

    Returns:
        An empty list for a domain that is not built in and has no files.

    Raises:
        ConfigError: a file cannot be read, a line of it is no pair, a pair is there twice, or there are too many.
    """
    paths = [user_path(name) for name in user_files]
    if not paths:
        paths = [senses_file(domain)] if domain in BUILT_IN_DOMAINS else []
    line_of: dict[SensePair, str] = {}
    for path in paths:
        for where, pair in _pairs_of(path):
            if pair in line_of:
                raise ConfigError(f"{where}: the same pair as in {line_of[pair]}")
            if len(line_of) == MAX_PAIRS:
                raise ConfigError(f"{where}: more than {MAX_PAIRS:,} sentence pairs; leave some out")
            line_of[pair] = where
    return list(line_of)


def places_of(word: str, sentence: str) -> list[tuple[int, int]]:
    """First character of each place where a word stands in a sentence, and the one after its last.

    Only as a whole, in large or small letters.
    """
    whole = rf"(?<!\w){re.escape(word)}(?!\w)"
    return [found.span() for found in re.finditer(whole, sentence, re.IGNORECASE)]


def _pairs_of(path: Path) -> Iterator[tuple[str, SensePair]]:
    """Yield each pair of a file with its place: file and line."""
    lines = read_text(path, MAX_SENSES_BYTES).split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{path}: no sentence pair in this file; expected {_EXPECTED}")
    for number, line in numbered:
        where = f"{path}, line {number}"
        yield where, _pair(where, line)


def _pair(where: str, line: str) -> SensePair:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not JSON; expected {_EXPECTED}") from None
    if not isinstance(found, dict) or set(found) != set(SensePair._fields):
        raise ConfigError(f"{where}: not the fields {', '.join(SensePair._fields)}; expected {_EXPECTED}")
    pair = SensePair(**{name: _text(f"{where}: `{name}`", text) for name, text in found.items()})
    if pair.domain == pair.other:
        raise ConfigError(f"{where}: both sentences are the same; `other` shows the word in another sense")
    for name, sentence in (("domain", pair.domain), ("other", pair.other)):
        if not places_of(pair.word, sentence):
            word = pair.word[:40]
            raise ConfigError(
                f"{where}: `{name}` does not hold `{word}` as a whole word; `word` is the form that both sentences have"
            )
    return pair


def _text(what: str, value: object) -> str:
    """A value as one line of text.

    Raises:
        ConfigError: it is none, or too long.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{what} is {'empty' if isinstance(value, str) else 'no text'}; expected {_EXPECTED}")
    if len(value) > MAX_SENTENCE_CHARACTERS:
        raise ConfigError(f"{what} has {len(value):,} characters; at most {MAX_SENTENCE_CHARACTERS:,} are accepted")
    if any(unicodedata.category(character) in _NO_TEXT for character in value):
        raise ConfigError(f"{what} holds a line end, a control character or half a character; remove it")
    return value.strip()
