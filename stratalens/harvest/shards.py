"""Cutting the text into shards: units of work whose name follows from everything that they hold."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stratalens.corpus.survey import DocumentRow
from stratalens.models.tokens import pieces

LEAST_CHARACTERS = 2**16
MOST_CHARACTERS = 2**24
SHARDS_WANTED = 256
"""About so many shards are cut where the bounds allow it, so that a harvest of any size has a bounded number."""


class ShardPiece(NamedTuple):
    """A stretch of a document, with what the statistics need to know of the document."""

    content: int
    """64-bit hash of the row's text."""
    document: int
    population: int
    sampled: bool
    start: int
    """First character of the piece in the row's text."""
    text: str
    ends_row: bool
    """Whether it is the last piece of its row."""


class Shard(NamedTuple):
    """Pieces that are read together; no document has to fit into one shard."""

    number: int
    """Place among the shards of a corpus, from 0."""
    pieces: tuple[ShardPiece, ...]

    @property
    def rows(self) -> int:
        """Corpus rows that end in this shard."""
        return sum(piece.ends_row for piece in self.pieces)

    def digest(self) -> str:
        """SHA-256 over what the shard holds; its place among others does not matter."""
        total = hashlib.sha256()
        for piece in self.pieces:
            known = piece._replace(text=str(len(piece.text)))  # the hash of the row's text stands for the text
            total.update(repr(tuple(known)).encode())
        return total.hexdigest()


def shard_characters(corpus_characters: int) -> int:
    """Characters of a shard of a corpus: a power of two, so that a corpus that grows a little keeps its shards."""
    wanted = 1 << max(0, corpus_characters // SHARDS_WANTED - 1).bit_length()
    return min(MOST_CHARACTERS, max(LEAST_CHARACTERS, wanted))


def cut_shards(rows: Iterable[DocumentRow], characters: int) -> Iterator[Shard]:
    """Group rows, in their order, into shards of at least so many characters; the last one holds the rest."""
    held: list[ShardPiece] = []
    size = number = 0
    for row in rows:
        for piece in pieces(row.text):
            ends = piece.start + len(piece.text) == len(row.text)
            identity = (row.content, row.document, row.population, row.sampled)
            held.append(ShardPiece(*identity, piece.start, piece.text, ends))
            size += len(piece.text)
            if size >= characters:
                yield Shard(number, tuple(held))
                held, size, number = [], 0, number + 1
    if held:
        yield Shard(number, tuple(held))
