"""A small sample of the texts of a side, by which the two sides are compared."""

import heapq
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

MAX_SAMPLED_TEXTS = 400
"""At most this many texts of a side, those with the smallest hashes."""
MAX_END_CHARACTERS = 1500
"""Characters kept of the beginning and of the end of a text."""


class SampledText(NamedTuple):
    """What is kept of a text."""

    content: int
    """Hash of the whole text."""
    document: int
    """Hash of its document."""
    text: str
    """The whole text, or its beginning and its end, which a line separates."""
    characters: int
    """Length of the whole text."""


class TextSample:
    """The texts with the smallest hashes of those that are added, each once: order does not matter."""

    def __init__(self) -> None:
        self._largest_first: list[tuple[int, SampledText]] = []
        self._contents = set[int]()

    def add(self, content: int, document: int, text: str) -> None:
        """Add a text with its hash and that of its document."""
        full = len(self._largest_first) == MAX_SAMPLED_TEXTS
        if content in self._contents or (full and -content < self._largest_first[0][0]):
            return
        entry = -content, SampledText(content, document, _ends(text), len(text))
        self._contents.add(content)
        if full:
            dropped = heapq.heapreplace(self._largest_first, entry)
            self._contents.remove(dropped[1].content)
        else:
            heapq.heappush(self._largest_first, entry)

    def texts_of(self, contents: UInt64[np.ndarray, "text"]) -> tuple[SampledText, ...]:
        """The sampled texts among these, given by their hashes, in the order of hashes."""
        counted = set[int](np.intersect1d(contents, np.array(list(self._contents), np.uint64)).tolist())
        return tuple(text for _, text in sorted(self._largest_first, reverse=True) if text.content in counted)


def _ends(text: str) -> str:
    if len(text) <= 2 * MAX_END_CHARACTERS:
        return text
    return f"{text[:MAX_END_CHARACTERS]}\n{text[-MAX_END_CHARACTERS:]}"
