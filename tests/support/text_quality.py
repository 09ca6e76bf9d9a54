"""What the built-in texts are checked for: that none of them repeats another."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

RUN_WORDS = 7
"""So many words in a row are in one document only."""
SENTENCE_WORDS = 8
"""Shorter sentences may repeat."""
MAX_TIMES = 2
"""How often a sentence may occur once numbers and uncommon words are masked."""
COMMON_WORDS = 300
_WORD = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*|\d+(?:[.,:/-]\d+)*")
_SENTENCE_END = re.compile(r"(?<=[.!?;])[\"'”’)]*\s+|\n+")


def words_of(text: str) -> list[str]:
    """Words and numbers in lower case."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def shared_runs(documents: Mapping[str, str], run_words: int = RUN_WORDS) -> dict[str, tuple[str, str]]:
    """Runs of so many words that two documents share -> the two."""
    owner: dict[tuple[str, ...], str] = {}
    shared = {}
    for name, text in documents.items():
        words = words_of(text)
        for start in range(len(words) - run_words + 1):
            run = tuple(words[start : start + run_words])
            if owner.setdefault(run, name) != name:
                shared[" ".join(run)] = (owner[run], name)
    return shared


def repeated_sentences(documents: Mapping[str, str]) -> dict[str, list[str]]:
    """Masked sentences that occur more than `MAX_TIMES` -> names of the documents."""
    common = _common_words(documents.values())
    places: dict[str, list[str]] = defaultdict(list)
    for name, text in documents.items():
        for sentence in _SENTENCE_END.split(text):
            words = words_of(sentence)
            if len(words) >= SENTENCE_WORDS:
                places[_masked(words, common)].append(name)
    return {sentence: own for sentence, own in places.items() if len(own) > MAX_TIMES}


def _masked(words: Sequence[str], common: frozenset[str]) -> str:
    return " ".join("0" if word[0].isdigit() else word if word in common else "_" for word in words)


def _common_words(texts: Iterable[str]) -> frozenset[str]:
    counts = Counter(word for text in texts for word in words_of(text) if not word[0].isdigit())
    return frozenset(word for word, _ in counts.most_common(COMMON_WORDS))
