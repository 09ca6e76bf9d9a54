"""Cut the text into shards: units of work, each identified by a digest of its content."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from stratalens.corpus.survey import DocumentRow
from stratalens.harvest.keep_plan import KEEP_NOTHING, Keep, KeepPlan
from stratalens.hookpoint import Hookpoint
from stratalens.models.tokens import pieces

MIN_SHARD_CHARACTERS = 2**16
MAX_SHARD_CHARACTERS = 2**24
TARGET_SHARDS = 256
"""About this many shards are cut, within the two limits, so that a harvest has few shards whatever its size."""


class ShardPiece(NamedTuple):
    """A stretch of a document, with the facts about the document that the statistics need."""

    content: int
    """64-bit hash of the row's text."""
    document: int
    """64-bit hash that identifies the document."""
    population: int
    """Number of the document's population."""
    sampled: bool
    """Whether values of this single document are kept, see `DocumentSample`."""
    start: int
    """First character of the piece in the row's text."""
    text: str
    ends_row: bool
    """Whether it is the last piece of its row."""
    keep: Keep = Keep.NOTHING
    """Which of its passages are kept with their codes."""


class Shard(NamedTuple):
    """Pieces that are read together; a document may extend over several shards."""

    number: int
    """Index among the shards of the corpus, from 0."""
    pieces: tuple[ShardPiece, ...]
    populations: int
    """Number of populations of the run."""

    @property
    def rows(self) -> int:
        """Corpus rows that end in this shard."""
        return sum(piece.ends_row for piece in self.pieces)

    def digest(self) -> str:
        """SHA-256 over the pieces of the shard; its number does not matter, nor what is kept of it."""
        sha = hashlib.sha256()
        for piece in self.pieces:
            short = piece._replace(text=str(len(piece.text)))  # `content`, the hash of the row's text, covers the text
            sha.update(repr(tuple(short[:-1])).encode())
        return sha.hexdigest()

    @property
    def kept(self) -> list[int]:
        """What is kept of each piece; empty if it is nothing of any."""
        kept = [int(piece.keep) for piece in self.pieces]
        return kept if any(kept) else []


class ShardTask(NamedTuple):
    """A shard to read, and the layers to read it for."""

    shard: Shard
    layers: tuple[Hookpoint, ...]


def shard_characters(corpus_characters: int) -> int:
    """Characters per shard: a power of two, so that a corpus that grows a little is cut into the same shards."""
    wanted = 1 << max(0, corpus_characters // TARGET_SHARDS - 1).bit_length()
    return min(MAX_SHARD_CHARACTERS, max(MIN_SHARD_CHARACTERS, wanted))


def cut_shards(
    rows: Iterable[DocumentRow], characters: int, populations: int, plan: KeepPlan = KEEP_NOTHING
) -> Iterator[Shard]:
    """Group rows, in their order, into shards of at least `characters` characters; the last one takes the rest.

    Args:
        rows: those that count.
        characters: of a shard.
        populations: number of populations of the run.
        plan: which passages are kept with their codes.
    """
    pending: list[ShardPiece] = []
    size = number = 0
    for row in rows:
        for piece in pieces(row.text):
            ends_row = piece.start + len(piece.text) == len(row.text)
            identity = (row.content, row.document, row.population, row.sampled)
            pending.append(ShardPiece(*identity, piece.start, piece.text, ends_row, plan.keep(row)))
            size += len(piece.text)
            if size >= characters:
                yield Shard(number, tuple(pending), populations)
                pending, size, number = [], 0, number + 1
    if pending:
        yield Shard(number, tuple(pending), populations)
