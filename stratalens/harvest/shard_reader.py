"""Read one shard for all layers: run the model, encode with the SAEs, and accumulate the statistics."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.harvest.shards import Shard, ShardPiece
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.layer_state import LayerState, StateAccumulator
from stratalens.harvest.state.passage_values import EncodedBatch, PassageValues, reduce_batch
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.memory import release_free_memory
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.models.tokens import TextPiece, TokenSpan
from stratalens.saes.probe import Probe

CHUNK_TOKENS = 16_384
"""Passages are collected up to this many tokens, then read in batches of similar length and merged into the state."""


def encode_batch(probe: Probe, batch: TokenBatch, vectors: Float[Tensor, "batch seq d_model"]) -> EncodedBatch:
    """Encode the kept positions of one batch with the SAE of the hookpoint that the vectors are from."""
    hidden, norms, keep = probe.read(batch, vectors)
    return EncodedBatch(
        keep=keep,
        norm_sum=norms.masked_fill(~keep, 0).sum(1),
        residual_sum=hidden.float().masked_fill(~keep[..., None], 0).sum(1),
        latents=probe.sae.encode(hidden[keep]),
    )


class Chunk(NamedTuple):
    """Passages that are batched together."""

    sequences: list[np.ndarray]
    """Token ids of each passage, `[seq]`."""
    population: np.ndarray
    """`[passage]`"""
    passages: SampledPassages
    pointers: PassagePointers
    rows: int
    """Corpus rows that end in this chunk."""

    def values(self, parts: list[dict[str, np.ndarray]]) -> PassageValues:
        """Join the columns of all batches, with passages in the order of the chunk."""
        order = np.argsort(np.concatenate([part["batch_row"] for part in parts]))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "batch_row"}
        for name in ("countable_positions", "kept_positions", "norm_sum", "residual_mean"):
            joined[name] = joined[name][order]
        lengths = np.array([len(sequence) for sequence in self.sequences])
        return PassageValues(population=self.population, tokens=lengths, **joined)


def chunks(shard: Shard, cutter: PassageCutter) -> Iterator[Chunk]:
    """Cut the pieces of a shard into passages and group them into chunks of about `CHUNK_TOKENS` tokens.

    Yields at least one chunk, which is empty where every text is too short for a passage.
    """
    passages: list[tuple[TokenSpan, ShardPiece]] = []
    tokens = rows_ended = 0
    for piece in shard.pieces:
        for span in cutter.piece_spans(TextPiece(piece.start, piece.text)):
            if tokens >= CHUNK_TOKENS:
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


@dataclass
class ShardReader:
    """Reads shards with a loaded model.

    A batch that does not fit into memory is halved, and so are all later ones of the same shard.
    """

    model: nn.Module
    probes: Mapping[Hookpoint, Probe]
    """Hookpoint -> its loaded SAE and norm limit."""
    cutter: PassageCutter
    token_classes: Int[Tensor, "vocabulary"]
    """Class of each token id, on the device where batches are read."""
    batch_tokens: int
    """Maximum tokens per batch, padding included."""
    on_batch: Callable[[int], None] = lambda _tokens: None
    """Called with the number of tokens of each finished batch."""
    on_rows: Callable[[int], None] = lambda _rows: None
    """Called with the number of corpus rows that each chunk completes."""

    def read(self, shard: Shard, hookpoints: tuple[Hookpoint, ...]) -> dict[Hookpoint, LayerState]:
        """Read one shard with one forward pass per batch; return hookpoint -> its state.

        Args:
            shard: what to read.
            layers: layers to encode, each with a probe.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        runner = BatchRunner(self.batch_tokens)
        states = {hookpoint: StateAccumulator() for hookpoint in hookpoints}
        for chunk in chunks(shard, self.cutter):
            for hookpoint, state in self._read_chunk(chunk, shard.populations, hookpoints, runner).items():
                states[hookpoint].add(state)
            self.on_rows(chunk.rows)
            release_free_memory()
        split = runner.batches_split
        return {hookpoint: total.result()._replace(batches_split=split) for hookpoint, total in states.items()}

    def _read_chunk(
        self, chunk: Chunk, populations: int, hookpoints: tuple[Hookpoint, ...], runner: BatchRunner
    ) -> dict[Hookpoint, LayerState]:
        parts: dict[Hookpoint, list[dict[str, np.ndarray]]] = {hookpoint: [] for hookpoint in hookpoints}
        for batch in pack_batches(chunk.sequences, runner.batch_tokens, self.cutter.special_ids):
            for columns in runner.run(batch, partial(self._read_batch, hookpoints)):
                for hookpoint, part in columns.items():
                    parts[hookpoint].append(part)
            self.on_batch(batch.tokens)
        states = {}
        for hookpoint in hookpoints:
            values = (
                chunk.values(parts[hookpoint]) if parts[hookpoint] else _no_values(self.probes[hookpoint].sae.d_model)
            )
            states[hookpoint] = LayerState(
                stats=FeatureStats.of(values, populations),
                examples=TopExamples.of(values, chunk.pointers),
                documents=DocumentSample.of(values, chunk.passages),
            )
        return states

    def _read_batch(
        self, hookpoints: tuple[Hookpoint, ...], batch: TokenBatch
    ) -> dict[Hookpoint, dict[str, np.ndarray]]:
        batch = batch.to(self.token_classes.device)
        encoded: dict[Hookpoint, EncodedBatch] = {}

        def consumer(hookpoint: Hookpoint, vectors: Tensor) -> None:
            encoded[hookpoint] = encode_batch(self.probes[hookpoint], batch, vectors)

        with hooked(self.model, {hookpoint: partial(consumer, hookpoint) for hookpoint in hookpoints}):
            forward(self.model, batch.input_ids)
        return {
            hookpoint: reduce_batch(
                encoded.pop(hookpoint), batch, self.probes[hookpoint].sae.num_latents, self.token_classes
            )
            for hookpoint in hookpoints
        }


def _no_values(d_model: int) -> PassageValues:
    """Values of zero passages, for a shard whose texts are all too short to read."""
    ints, floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return PassageValues(
        population=ints,
        tokens=ints,
        countable_positions=ints,
        kept_positions=ints,
        norm_sum=floats,
        residual_mean=np.zeros((0, d_model), np.float32),
        passage=ints,
        latent=ints,
        mean=floats,
        maximum=floats,
        positions_fired=ints,
        class_mass=np.zeros((0, len(TOKEN_CLASSES)), np.float32),
        early_mass=floats,
    )
