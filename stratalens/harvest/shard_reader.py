"""Read one shard for all layers: run the model, encode with the SAEs, and accumulate the statistics."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.harvest.codes_file import CodesWriter
from stratalens.harvest.keep_plan import Keep
from stratalens.harvest.shards import Shard, ShardPiece
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.layer_state import LayerState, StateAccumulator
from stratalens.harvest.state.passage_values import EncodedBatch, PassageValues, reduce_batch
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.harvest.token_codes import BatchCodes, CodedPassage, batch_codes, codes_table
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
GPU_CHUNK_TOKENS = 65_536
"""The same on cuda, where batches are larger: a chunk of one batch would have passages of all lengths."""


def chunk_tokens(device: str) -> int:
    """Tokens of a chunk on a type of device; no batch has more."""
    return GPU_CHUNK_TOKENS if device == "cuda" else CHUNK_TOKENS


def encode_batch(probe: Probe, batch: TokenBatch, vectors: Float[Tensor, "batch seq d_model"]) -> EncodedBatch:
    """Encode the kept positions of one batch with the SAE of the hookpoint that the vectors are from.

    Raises:
        ModelError: a vector that would count is not finite; its position would be left out without a word.
    """
    hidden, norms, keep = probe.read(batch, vectors)
    if not bool(torch.isfinite(norms[batch.countable]).all()):
        raise ModelError(
            f"the activations at layer {probe.hookpoint} are not finite on some of the text; use --dtype float32 or "
            "bfloat16, and no --load_in 8bit"
        )
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
    keep: np.ndarray
    """What is kept of the text of each passage, see `Keep`; `[passage]`."""
    coded: Callable[[int], CodedPassage]
    """Makes the passage of a number, as it is kept."""
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

    def values(self, parts: list[dict[str, np.ndarray]]) -> PassageValues:
        """Join the columns of all batches, with passages in the order of the chunk."""
        order = np.argsort(np.concatenate([part["batch_row"] for part in parts]))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != "batch_row"}
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
        coded=lambda number: _coded_passage(passages[number][0], passages[number][1], cutter),
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

    def read(
        self, shard: Shard, hookpoints: tuple[Hookpoint, ...], codes: Mapping[Hookpoint, CodesWriter] | None = None
    ) -> dict[Hookpoint, LayerState]:
        """Read one shard with one forward pass per batch; return hookpoint -> its state.

        Args:
            shard: what to read.
            hookpoints: those to encode, each with a probe.
            codes: hookpoint -> what receives the codes of its passages that are kept; None keeps none.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        runner = BatchRunner(self.batch_tokens)
        states = {hookpoint: StateAccumulator() for hookpoint in hookpoints}
        for chunk in chunks(shard, self.cutter, self.token_classes.device.type):
            for hookpoint, (state, kept) in self._read_chunk(
                chunk, shard.populations, hookpoints, runner, keep=bool(codes)
            ).items():
                states[hookpoint].add(state)
                if codes and kept:
                    codes[hookpoint].add(codes_table(chunk.chosen(state.examples), kept))
            self.on_rows(chunk.rows)
            release_free_memory()
        split = runner.batches_split
        return {hookpoint: total.result()._replace(batches_split=split) for hookpoint, total in states.items()}

    def _read_chunk(
        self, chunk: Chunk, populations: int, hookpoints: tuple[Hookpoint, ...], runner: BatchRunner, *, keep: bool
    ) -> dict[Hookpoint, tuple[LayerState, list[BatchCodes]]]:
        """Read one chunk; return hookpoint -> its state, and its codes so far as they may be kept."""
        parts: dict[Hookpoint, list[dict[str, np.ndarray]]] = {hookpoint: [] for hookpoint in hookpoints}
        codes: dict[Hookpoint, list[BatchCodes]] = {hookpoint: [] for hookpoint in hookpoints}
        wanted = chunk.keep != Keep.NOTHING if keep else np.zeros(len(chunk.keep), bool)
        for batch in pack_batches(chunk.sequences, runner.batch_tokens, self.cutter.special_ids):
            for read in runner.run(batch, partial(self._read_batch, hookpoints, wanted)):
                for hookpoint, (columns, of_batch) in read.items():
                    parts[hookpoint].append(columns)
                    codes[hookpoint] += of_batch
            self.on_batch(batch.tokens)
        states = {}
        for hookpoint in hookpoints:
            values = (
                chunk.values(parts[hookpoint]) if parts[hookpoint] else _no_values(self.probes[hookpoint].sae.d_model)
            )
            state = LayerState(
                stats=FeatureStats.of(values, populations),
                examples=TopExamples.of(values, chunk.pointers),
                documents=DocumentSample.of(values, chunk.passages),
            )
            states[hookpoint] = state, codes[hookpoint]
        return states

    def _read_batch(
        self, hookpoints: tuple[Hookpoint, ...], wanted: Bool[np.ndarray, "passage"], batch: TokenBatch
    ) -> dict[Hookpoint, tuple[dict[str, np.ndarray], list[BatchCodes]]]:
        """Read one batch; return hookpoint -> columns of its values, and the codes of the wanted passages if any."""
        batch = batch.to(self.token_classes.device)
        encoded: dict[Hookpoint, EncodedBatch] = {}

        def consumer(hookpoint: Hookpoint, vectors: Tensor) -> None:
            encoded[hookpoint] = encode_batch(self.probes[hookpoint], batch, vectors)

        with hooked(self.model, {hookpoint: partial(consumer, hookpoint) for hookpoint in hookpoints}):
            forward(self.model, batch.input_ids)
        read = {}
        for hookpoint in hookpoints:
            own = encoded.pop(hookpoint)
            codes = [batch_codes(own, batch, wanted)] if wanted[batch.rows].any() else []
            num_latents = self.probes[hookpoint].sae.num_latents
            read[hookpoint] = reduce_batch(own, batch, num_latents, self.token_classes), codes
        return read


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
