"""Split passages into words, numbers and punctuation marks (units), on which phrases and concepts are matched."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
import snowballstemmer
from jaxtyping import Bool, Int
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

UNIT_PATTERN = re.compile(
    r"(?P<word>[^\W_]*[^\W\d_][^\W_]*(?:[&'’][^\W_]+)*)|(?P<number>\d+(?:[.,]\d+)*)|(?P<mark>[^\w\s]|_)"
)
PHRASE_SEPARATOR = re.compile(r"[\s\-‐‑]{1,3}")
"""White space and hyphens that may separate two words of one phrase."""
SENTENCE_END = frozenset(".!?;:")
MAX_SEGMENT_UNITS = 24
"""A longer sentence is cut into segments of this many units."""

MEANINGFUL_STOP_WORDS = frozenset(
    [
        *("amount", "bill", "bottom", "call", "computer", "cry", "describe", "detail", "empty", "fill", "find", "fire"),
        *("front", "full", "give", "interest", "keep", "made", "mill", "mine", "move", "name", "part", "serious"),
        *("show", "side", "sincere", "system", "take", "thick", "thin", "top"),
    ]
)
FUNCTION_WORDS = ENGLISH_STOP_WORDS - MEANINGFUL_STOP_WORDS
"""Words that say nothing about the subject: scikit-learn's list of stop words without the meaningful ones."""

_stemmer = snowballstemmer.stemmer("english")


class UnitKind(IntEnum):
    """Kind of a unit of text."""

    WORD = 0
    NUMBER = 1
    MARK = 2


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Stem of one word in lower case, by Snowball's English stemmer."""
    return _stemmer.stemWord(word.lower().replace("’", "'"))


def phrase_stems(phrase: str) -> tuple[str, ...]:
    """Stems of the words and numbers of a phrase; hyphens separate words as spaces do, punctuation is dropped."""
    return tuple(stem(match.group()) for match in UNIT_PATTERN.finditer(phrase) if match.lastgroup != "mark")


@dataclass(frozen=True)
class Words:
    """The units of several passages, one after the other."""

    passages: int
    """Number of passages, those without units included."""
    texts: tuple[str, ...]
    """Each unit as written."""
    stems: tuple[str, ...]
    """Stem of each word or number; a mark as written."""
    kind: Int[np.ndarray, "unit"]
    """`UnitKind` of each unit."""
    passage: Int[np.ndarray, "unit"]
    """Index of its passage."""
    start: Int[np.ndarray, "unit"]
    """Index of its first character in its passage."""
    joined: Bool[np.ndarray, "unit"]
    """True for a word or number that only white space or hyphens separate from the one before it."""
    segment: Int[np.ndarray, "unit"]
    """Number of its sentence, counted over all passages; long sentences are cut into several."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Words":
        """Split passages into units."""
        units, stems, kinds, passages, starts, joined, segments = [], [], [], [], [], [], []
        segment = -1
        for passage, text in enumerate(texts):
            word_end, length = -1, MAX_SEGMENT_UNITS
            for match in UNIT_PATTERN.finditer(text):
                kind = UnitKind[str(match.lastgroup).upper()]
                is_word = kind != UnitKind.MARK
                length += 1
                if length > MAX_SEGMENT_UNITS:
                    segment, length = segment + 1, 1
                units.append(match.group())
                stems.append(stem(match.group()) if is_word else match.group())
                kinds.append(int(kind))
                passages.append(passage)
                starts.append(match.start())
                joined.append(
                    is_word and word_end >= 0 and PHRASE_SEPARATOR.fullmatch(text[word_end : match.start()]) is not None
                )
                segments.append(segment)
                if is_word:
                    word_end = match.end()
                elif match.group() in SENTENCE_END:
                    length = MAX_SEGMENT_UNITS
        return cls(
            passages=len(texts),
            texts=tuple(units),
            stems=tuple(stems),
            kind=np.array(kinds, np.int64),
            passage=np.array(passages, np.int64),
            start=np.array(starts, np.int64),
            joined=np.array(joined, bool),
            segment=np.array(segments, np.int64),
        )
