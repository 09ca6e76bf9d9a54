"""Cut a shard into chunks: passages that are batched together."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stratalens.harvest.keep_plan import Keep
from stratalens.harvest.shards import Shard, ShardPiece
from stratalens.harvest.state.document_sample import SampledPassages
from stratalens.harvest.state.passage_values import PassageValues
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.harvest.token_codes import CodedPassage
from stratalens.models import PassageCutter
from stratalens.models.tokens import TextPiece, TokenSpan

CHUNK_TOKENS = 16_384
"""Passages are collected up to this many tokens, then read in batches of similar length and merged into the state."""
GPU_CHUNK_TOKENS = 65_536
"""The same on cuda, where batches are larger: a chunk of one batch would have passages of all lengths."""


def chunk_tokens(device: str) -> int:
    """Tokens of a chunk on a type of device; no batch has more."""
    return GPU_CHUNK_TOKENS if device == "cuda" else CHUNK_TOKENS


class Chunk(NamedTuple):
    """Passages that are batched together."""

    sequences: list[np.ndarray]
    """Token ids of each passage, `[seq]`."""
    keep: np.ndarray
    """What is kept of the text of each passage, see `Keep`; `[passage]`."""
    coded: Callable[[int], CodedPassage]
    """Makes the passage of a number, as it is kept; once for all layers."""
    population: np.ndarray
    """`[passage]`"""
    passages: SampledPassages
    pointers: PassagePointers
    rows: int
    """Corpus rows that end in this chunk."""

    def chosen(self, examples: TopExamples) -> dict[int, CodedPassage]:
        """Number -> passage of those that are kept, given the strongest passages of the chunk."""
        strongest = set(zip(examples.content.tolist(), examples.start.tolist(), strict=True))
        places = zip(self.pointers.content.tolist(), self.pointers.start.tolist(), strict=True)
        return {
            number: self.coded(number)
            for number, (keep, place) in enumerate(zip(self.keep.tolist(), places, strict=True))
            if keep == Keep.EVERYTHING or (keep == Keep.STRONGEST and place in strongest)
        }

    def values(self, parts: list[dict[str, Tensor]]) -> PassageValues:
        """Join the columns of all batches and copy them to the host, with passages in the order of the chunk."""
        joined = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        order = np.argsort(joined.pop("batch_row"))
        for name in ("countable_positions", "kept_positions", "norm_sum", "residual_mean"):
            joined[name] = joined[name][order]
        lengths = np.array([len(sequence) for sequence in self.sequences])
        return PassageValues(population=self.population, tokens=lengths, **joined)


def chunks(shard: Shard, cutter: PassageCutter, device: str = "cpu") -> Iterator[Chunk]:
    """Cut the pieces of a shard into passages and group them into chunks of about `chunk_tokens` of the device.

    Yields at least one chunk, which is empty where every text is too short for a passage.
    """
    passages: list[tuple[TokenSpan, ShardPiece]] = []
    tokens = rows_ended = 0
    for piece in shard.pieces:
        for span in cutter.piece_spans(TextPiece(piece.start, piece.text)):
            if tokens >= chunk_tokens(device):
                yield _make_chunk(passages, cutter, rows_ended)
                passages, tokens, rows_ended = [], 0, 0
            passages.append((span, piece))
            tokens += len(span.token_ids)
        rows_ended += piece.ends_row
    yield _make_chunk(passages, cutter, rows_ended)


def _make_chunk(passages: list[tuple[TokenSpan, ShardPiece]], cutter: PassageCutter, rows_ended: int) -> Chunk:
    spans, pieces = [span for span, _ in passages], [piece for _, piece in passages]
    return Chunk(
        sequences=[cutter.sequence(span) for span in spans],
        keep=np.array([piece.keep for piece in pieces], np.int64),
        coded=cache(lambda number: _coded_passage(passages[number][0], passages[number][1], cutter)),
        population=np.array([piece.population for piece in pieces], np.int64),
        passages=SampledPassages(
            document=np.array([piece.document for piece in pieces], np.uint64),
            sampled=np.array([piece.sampled for piece in pieces], bool),
        ),
        pointers=PassagePointers(
            content=np.array([piece.content for piece in pieces], np.uint64),
            start=np.array([span.start for span in spans], np.int64),
            end=np.array([span.end for span in spans], np.int64),
        ),
        rows=rows_ended,
    )


def _coded_passage(span: TokenSpan, piece: ShardPiece, cutter: PassageCutter) -> CodedPassage:
    return CodedPassage(
        content=piece.content,
        start=span.start,
        end=span.end,
        document=piece.document,
        population=piece.population,
        text=piece.text[span.start - piece.start : span.end - piece.start],
        token_ids=cutter.sequence(span),
        offsets=cutter.token_offsets(span),
        whole=piece.keep == Keep.EVERYTHING,
    )
