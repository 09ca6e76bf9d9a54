"""Passages as running words, numbers and marks: what phrases and concepts are matched on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import snowballstemmer
from jaxtyping import Bool, Int
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

UNIT = re.compile(r"(?P<word>[^\W_]*[^\W\d_][^\W_]*(?:[&'’][^\W_]+)*)|(?P<number>\d+(?:[.,]\d+)*)|(?P<mark>[^\w\s]|_)")
JOINT = re.compile(r"[\s\-‐‑]{1,3}")
"""What may stand between the words of one phrase."""
SENTENCE_END = frozenset(".!?;:")
LONGEST_SEGMENT = 24
"""Units after which a sentence is cut."""

MEANINGFUL = frozenset(
    [
        *("amount", "bill", "bottom", "call", "computer", "cry", "describe", "detail", "empty", "fill", "find", "fire"),
        *("front", "full", "give", "interest", "keep", "made", "mill", "mine", "move", "name", "part", "serious"),
        *("show", "side", "sincere", "system", "take", "thick", "thin", "top"),
    ]
)
FUNCTION_WORDS = ENGLISH_STOP_WORDS - MEANINGFUL
"""Words that say nothing of the subject: scikit-learn's list without the words on it that do."""

_stemmer = snowballstemmer.stemmer("english")


class Kind(IntEnum):
    """What a unit of text is."""

    WORD = 0
    NUMBER = 1
    MARK = 2


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Stem of one word, lower case (Snowball's English stemmer)."""
    return _stemmer.stemWord(word.lower().replace("’", "'"))


def phrase_stems(phrase: str) -> tuple[str, ...]:
    """Stems of the words of a phrase; hyphens part words as spaces do."""
    return tuple(stem(match.group()) for match in UNIT.finditer(phrase) if match.lastgroup != "mark")


@dataclass(frozen=True)
class Words:
    """The units of several passages, one after the other."""

    passages: int
    texts: tuple[str, ...]
    """Each unit as written."""
    stems: tuple[str, ...]
    kind: Int[np.ndarray, "unit"]
    passage: Int[np.ndarray, "unit"]
    start: Int[np.ndarray, "unit"]
    """First character in its passage."""
    joined: Bool[np.ndarray, "unit"]
    """True at a word that only space or a hyphen parts from the word before it."""
    segment: Int[np.ndarray, "unit"]
    """Sentence of each unit, numbered through; long ones are cut."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Words":
        """Split passages into units."""
        units, stems, kinds, owners, starts, joined, segments = [], [], [], [], [], [], []
        segment = -1
        for owner, text in enumerate(texts):
            word_end, length = -1, LONGEST_SEGMENT
            for match in UNIT.finditer(text):
                kind = Kind[str(match.lastgroup).upper()]
                is_word = kind != Kind.MARK
                length += 1
                if length > LONGEST_SEGMENT:
                    segment, length = segment + 1, 1
                units.append(match.group())
                stems.append(stem(match.group()) if is_word else match.group())
                kinds.append(int(kind))
                owners.append(owner)
                starts.append(match.start())
                joined.append(is_word and word_end >= 0 and JOINT.fullmatch(text[word_end : match.start()]) is not None)
                segments.append(segment)
                if is_word:
                    word_end = match.end()
                elif match.group() in SENTENCE_END:
                    length = LONGEST_SEGMENT
        return cls(
            passages=len(texts),
            texts=tuple(units),
            stems=tuple(stems),
            kind=np.array(kinds, np.int64),
            passage=np.array(owners, np.int64),
            start=np.array(starts, np.int64),
            joined=np.array(joined, bool),
            segment=np.array(segments, np.int64),
        )
