"""Groups of documents that say nearly the same, found by MinHash signatures.

A document is a set of shingles: every five words in a row, in lower case, with each number as one mark. The Jaccard
similarity of two documents, shingles in both over shingles in either, is the expected share of equal entries of their
signatures (Broder 1997). Pairs to compare are those with an equal band of entries (locality-sensitive hashing).
"""

import re
import zlib
from array import array
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Int64, UInt32, UInt64

MIN_SIMILARITY = 0.8
"""Jaccard similarity from which two documents are near duplicates."""
SHINGLE_WORDS = 5
SIGNATURE_ENTRIES = 64
"""Entries of 4 bytes; the standard error of a similarity of 0.8 is 0.05."""
BAND_ENTRIES = 4
"""Two documents of similarity 0.8 share none of the 16 bands with probability 0.0002."""
MAX_LEADERS = 64
"""In a band that many unlike documents share, each is compared with this many of them at most."""
_PIECE = re.compile(r".{1,16000}(?=\s|\Z)|.{1,16000}", re.DOTALL)
"""A part of a text, cut at white space where there is any."""
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Letters of Thai, Lao, Japanese and Chinese, which have no spaces between words: each is a word."""
_WORD = re.compile(rf"\d+(?:[.,:/-]\d+)*|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+")
_MIX = 0x9E3779B97F4A7C15
_generator = np.random.Generator(np.random.PCG64(20260101))
_FACTORS = _generator.integers(0, 2**64, SIGNATURE_ENTRIES, dtype=np.uint64) | np.uint64(1)
_OFFSETS = _generator.integers(0, 2**64, SIGNATURE_ENTRIES, dtype=np.uint64)


def signature(text: str) -> UInt32[np.ndarray, "entry"]:
    """MinHash signature of a text; that of several texts together is the smallest of each entry.

    A text without words is one shingle of its own.
    """
    smallest = np.full(SIGNATURE_ENTRIES, 2**32 - 1, np.uint32)
    for shingles in _shingles(text):
        hashes = (shingles[:, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
        smallest = np.minimum(smallest, hashes.min(axis=0).astype(np.uint32))
    return smallest


def _shingles(text: str) -> Iterator[UInt64[np.ndarray, "shingle"]]:
    """Hashes of the shingles of a text, a few thousand at a time; a shorter text is one shingle."""
    words, is_short = array("Q"), True
    for piece in _PIECE.finditer(text):
        words.extend(map(_hash_of_word, _WORD.findall(piece.group().lower())))
        if len(words) >= SHINGLE_WORDS:
            yield _joined(words)
            del words[: 1 - SHINGLE_WORDS]
            is_short = False
    if is_short and text:
        yield _joined(words or array("Q", [_hash_of_word(text)]))


@lru_cache(maxsize=2**17)
def _hash_of_word(word: str) -> int:
    """64-bit hash of a word, the same in every process and for all numbers."""
    data = b"0" if word[0].isdigit() else word.encode("utf-8", "surrogatepass")
    return (zlib.crc32(data) << 32 | zlib.adler32(data)) * _MIX % 2**64


def _joined(words: array) -> UInt64[np.ndarray, "shingle"]:
    hashes = np.frombuffer(words, np.uint64).copy()
    count = max(1, len(hashes) - SHINGLE_WORDS + 1)
    shingles = np.zeros(count, np.uint64)
    for place in range(min(SHINGLE_WORDS, len(hashes))):
        shingles = (shingles ^ hashes[place : place + count]) * np.uint64(_MIX)
        shingles ^= shingles >> np.uint64(29)
    return shingles


class SignatureList:
    """Signatures of documents whose rows come one by one, in one array; adjacent rows of a document share a place."""

    def __init__(self) -> None:
        self._documents = array("Q")
        self._entries = array("I")

    def add(self, document: int, text: str) -> None:
        """Add a row of a document."""
        own = signature(text)
        if self._documents and self._documents[-1] == document:
            own = np.minimum(own, np.frombuffer(self._entries, np.uint32)[-SIGNATURE_ENTRIES:])
            del self._entries[-SIGNATURE_ENTRIES:]
        else:
            self._documents.append(document)
        self._entries.frombytes(own.tobytes())

    def merged(self) -> "Signatures":
        """The signatures of all documents."""
        documents = np.frombuffer(self._documents, np.uint64)
        entries = np.frombuffer(self._entries, np.uint32).reshape(-1, SIGNATURE_ENTRIES)
        order = np.argsort(documents, kind="stable")
        starts = np.flatnonzero(np.diff(documents[order], prepend=~documents[order[:1]]))
        if len(starts) == len(documents):
            return Signatures(documents[order], entries[order])
        return Signatures(documents[order][starts], np.minimum.reduceat(entries[order], starts, axis=0))


class Signatures(NamedTuple):
    """Signatures of documents."""

    documents: UInt64[np.ndarray, "document"]
    """In rising order."""
    entries: UInt32[np.ndarray, "document entry"]

    def of(self, documents: UInt64[np.ndarray, "chosen"]) -> UInt32[np.ndarray, "chosen entry"]:
        """Entries of some of the documents."""
        return self.entries[np.searchsorted(self.documents, documents)]


def groups(
    signatures: UInt32[np.ndarray, "document entry"], order: UInt64[np.ndarray, "document"]
) -> Int64[np.ndarray, "document"]:
    """Number of the group of each document: documents are in one group if a chain of near duplicates links them.

    Args:
        signatures: of each document.
        order: a number of each document that does not depend on where it stands, such as the hash of its content.

    The result does not depend on the order of the documents, save for the numbers of the groups.
    """
    pairs = [pair for band in range(0, SIGNATURE_ENTRIES, BAND_ENTRIES) for pair in _pairs(signatures, order, band)]
    count = len(signatures)
    if not pairs:
        return np.arange(count)
    first, second = np.concatenate([np.stack(pair) for pair in pairs], axis=1)
    links = scipy.sparse.coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return scipy.sparse.csgraph.connected_components(links, directed=False)[1].astype(np.int64)


def _pairs(signatures: np.ndarray, order: np.ndarray, band: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of near duplicates among documents with equal entries in a band."""
    keys = np.zeros(len(signatures), np.uint64)
    for entry in range(band, band + BAND_ENTRIES):
        keys = (keys ^ signatures[:, entry].astype(np.uint64)) * np.uint64(_MIX)
        keys ^= keys >> np.uint64(29)
    by_key = np.lexsort((order, keys))
    starts = np.flatnonzero(np.diff(keys[by_key], prepend=~keys[by_key[:1]]))
    sizes = np.diff(starts, append=len(by_key))
    for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
        members = by_key[start : start + size]
        for _ in range(MAX_LEADERS):
            if len(members) < 2:
                break
            leader, others = members[0], members[1:]
            alike = (signatures[others] == signatures[leader]).mean(axis=1) >= MIN_SIMILARITY
            yield np.full(np.count_nonzero(alike), leader), others[alike]
            members = others[~alike]
