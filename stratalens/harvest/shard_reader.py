"""One pass over a shard for all layers: the only place where model, SAEs and statistics meet."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.harvest.shards import Shard, ShardPiece
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.layer_state import LayerState, StateFolder
from stratalens.harvest.state.passage_values import Encoded, PassageValues, reduce
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.models import PassageCutter
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.memory import release_free_memory
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.models.tokens import TextPiece, TokenSpan
from stratalens.saes.hookpoint import LayerProbe

CHUNK_TOKENS = 16_384
"""Passages are collected up to this many tokens, then read in batches of like length and folded into the statistics."""


def encode(
    probe: LayerProbe,
    batch: TokenBatch,
    module_input: Float[Tensor, "batch seq d_model"],
    module_output: Float[Tensor, "batch seq d_model"],
) -> Encoded:
    """Encode the kept positions of one batch."""
    hidden, norms, keep = probe.read(batch, module_input, module_output)
    return Encoded(
        keep=keep,
        norm_sum=norms.masked_fill(~keep, 0).sum(1),
        residual_sum=hidden.float().masked_fill(~keep[..., None], 0).sum(1),
        latents=probe.sae.encode(hidden[keep]),
    )


class Chunk(NamedTuple):
    """Passages that are batched together."""

    sequences: list[np.ndarray]
    population: np.ndarray
    passages: SampledPassages
    pointers: PassagePointers
    rows: int
    """Corpus rows that end in this chunk."""

    def values(self, parts: list[dict[str, np.ndarray]]) -> PassageValues:
        """Columns of all batches together, passages in the order of the chunk."""
        place = np.argsort(np.concatenate([part["batch_row"] for part in parts]))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "batch_row"}
        for name in ("countable_positions", "kept_positions", "norm_sum", "residual_mean"):
            joined[name] = joined[name][place]
        lengths = np.array([len(sequence) for sequence in self.sequences])
        return PassageValues(population=self.population, tokens=lengths, **joined)


def chunks(shard: Shard, cutter: PassageCutter) -> Iterator[Chunk]:
    """Cut the pieces of a shard into passages and group these; at least one chunk, empty where no passage is left."""
    columns: list[tuple[TokenSpan, ShardPiece]] = []
    tokens = ended = 0
    for piece in shard.pieces:
        for span in cutter.piece_spans(TextPiece(piece.start, piece.text)):
            if tokens >= CHUNK_TOKENS:
                yield _chunk(columns, cutter, ended)
                columns, tokens, ended = [], 0, 0
            columns.append((span, piece))
            tokens += len(span.token_ids)
        ended += piece.ends_row
    yield _chunk(columns, cutter, ended)


def _chunk(columns: list[tuple[TokenSpan, ShardPiece]], cutter: PassageCutter, ended: int) -> Chunk:
    spans, pieces = [span for span, _ in columns], [piece for _, piece in columns]
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
        rows=ended,
    )


@dataclass
class ShardReader:
    """Reads shards with a model that is held in memory.

    A batch that does not fit into memory is halved, and so are all that follow it in the same shard.
    """

    model: nn.Module
    probes: Mapping[int, LayerProbe]
    cutter: PassageCutter
    token_classes: Int[Tensor, "vocabulary"]
    """Class of each token id, on the device that batches go to."""
    batch_tokens: int
    """Tokens a batch, padding included."""
    on_batch: Callable[[int], None] = lambda _tokens: None
    """Called with the tokens of each batch done."""
    on_rows: Callable[[int], None] = lambda _rows: None
    """Called with the corpus rows that each chunk completes."""

    def read(self, shard: Shard, layers: tuple[int, ...]) -> dict[int, LayerState]:
        """States of some layers after one shard, by one forward pass a batch.

        Raises:
            CapacityError: not even one passage fits into memory.
        """
        runner = BatchRunner(self.batch_tokens)
        states = {layer: StateFolder() for layer in layers}
        for chunk in chunks(shard, self.cutter):
            for layer, state in self._read_chunk(chunk, layers, runner).items():
                states[layer].add(state)
            self.on_rows(chunk.rows)
            release_free_memory()
        split = runner.batches_split
        return {layer: folding.result()._replace(batches_split=split) for layer, folding in states.items()}

    def _read_chunk(self, chunk: Chunk, layers: tuple[int, ...], runner: BatchRunner) -> dict[int, LayerState]:
        parts: dict[int, list[dict[str, np.ndarray]]] = {layer: [] for layer in layers}
        for batch in pack_batches(chunk.sequences, runner.batch_tokens, self.cutter.special_ids):
            for read in runner.run(batch, partial(self._read_batch, layers)):
                for layer, part in read.items():
                    parts[layer].append(part)
            self.on_batch(batch.tokens)
        states = {}
        for layer in layers:
            values = chunk.values(parts[layer]) if parts[layer] else _no_values(self.probes[layer].sae.d_model)
            states[layer] = LayerState(
                stats=FeatureStats.of(values),
                examples=TopExamples.of(values, chunk.pointers),
                documents=DocumentSample.of(values, chunk.passages),
            )
        return states

    def _read_batch(self, layers: tuple[int, ...], batch: TokenBatch) -> dict[int, dict[str, np.ndarray]]:
        batch = batch.to(self.token_classes.device)
        encoded: dict[int, Encoded] = {}

        def consumer(layer: int, module_input: Tensor, module_output: Tensor) -> None:
            encoded[layer] = encode(self.probes[layer], batch, module_input, module_output)

        hookpoints = {self.probes[layer].sae.hookpoint: partial(consumer, layer) for layer in layers}
        with hooked(self.model, hookpoints):
            forward(self.model, batch.input_ids)
        return {
            layer: reduce(encoded.pop(layer), batch, self.probes[layer].sae.num_latents, self.token_classes)
            for layer in layers
        }


def _no_values(d_model: int) -> PassageValues:
    """Values of no passage at all: what a shard leaves whose texts are all too short to read."""
    whole, real = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return PassageValues(
        population=whole,
        tokens=whole,
        countable_positions=whole,
        kept_positions=whole,
        norm_sum=real,
        residual_mean=np.zeros((0, d_model), np.float32),
        passage=whole,
        latent=whole,
        mean=real,
        maximum=real,
        positions_fired=whole,
        class_mass=np.zeros((0, len(TOKEN_CLASSES)), np.float32),
        early_mass=real,
    )
