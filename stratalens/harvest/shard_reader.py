"""One pass over a shard for all layers: the only place where model, SAEs and statistics meet."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.harvest.shards import Shard, ShardPiece
from stratalens.harvest.state.document_sample import DocumentSample, SampledPassages
from stratalens.harvest.state.layer_state import Folding, LayerState
from stratalens.harvest.state.statistics import FeatureStats, PassageValues
from stratalens.harvest.state.top_examples import PassagePointers, TopExamples
from stratalens.models.batches import Room
from stratalens.models.loading import forward, hooked
from stratalens.models.memory import release_free_memory
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.models.tokens import (
    PassageCutter,
    TextPiece,
    TokenBatch,
    TokenSpan,
    pack,
)
from stratalens.saes.sae import Sae, SparseLatents

CHUNK_TOKENS = 16_384
"""Passages are collected up to this many tokens, then read in batches of like length and folded into the statistics."""
EARLY_SHARE = 0.1


@dataclass(frozen=True)
class LayerProbe:
    """What is read at one layer."""

    layer: int
    sae: Sae
    norm_limit: float
    """Positions whose hookpoint norm exceeds this are sinks and never count."""

    def read(
        self,
        batch: TokenBatch,
        module_input: Float[Tensor, "batch seq d_model"],
        module_output: Float[Tensor, "batch seq d_model"],
    ) -> "Reading":
        """What the SAE reads at its module, and which positions of it count."""
        hidden = module_input if self.sae.reads_input else module_output
        hidden = hidden.to(batch.countable.device)  # elsewhere only when the model is spread over several GPUs
        norms = torch.linalg.vector_norm(hidden, dim=-1, dtype=torch.float32)
        return Reading(hidden, norms, batch.countable & (norms <= self.norm_limit))


class Reading(NamedTuple):
    """A hookpoint's vectors in one batch."""

    hidden: Float[Tensor, "batch seq d_model"]
    norms: Float[Tensor, "batch seq"]
    keep: Bool[Tensor, "batch seq"]
    """Positions that count."""


class Encoded(NamedTuple):
    """What one batch leaves of one layer, still on the device."""

    keep: Bool[Tensor, "batch seq"]
    norm_sum: Float[Tensor, "batch"]
    residual_sum: Float[Tensor, "batch d_model"]
    latents: SparseLatents
    """Of the kept positions, row by row."""


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


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Let sums on cuda add in a fixed order, so that the same batch gives the same bytes."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(torch.cuda.is_available() or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def reduce(
    encoded: Encoded, batch: TokenBatch, num_latents: int, token_classes: Int[Tensor, "vocabulary"]
) -> dict[str, np.ndarray]:
    """Columns of `PassageValues` from one batch; work and memory go by what fired, not by the width of the SAE."""
    row, position = encoded.keep.nonzero(as_tuple=True)
    values, slots = encoded.latents.values, encoded.latents.values > 0
    token = slots.nonzero()[:, 0]
    activation = values[slots]
    keys, entry = torch.unique(row[token] * num_latents + encoded.latents.indices[slots], return_inverse=True)
    lengths = torch.from_numpy(batch.lengths).to(row.device)
    early = (position < EARLY_SHARE * lengths[row])[token]
    kind = token_classes[batch.input_ids[row, position]][token]
    size, classes, device = len(keys), len(TOKEN_CLASSES), row.device
    with _fixed_order():
        total = torch.zeros(size, device=device).scatter_add_(0, entry, activation)
        mass = torch.zeros(size * classes, device=device).scatter_add_(0, entry * classes + kind, activation)
        early_mass = torch.zeros(size, device=device).scatter_add_(0, entry[early], activation[early])
    maximum = torch.zeros(size, device=device).scatter_reduce_(0, entry, activation, "amax")
    kept = encoded.keep.sum(1)
    passage = keys // num_latents
    columns = {
        "countable_positions": batch.countable.sum(1),
        "kept_positions": kept,
        "norm_sum": encoded.norm_sum,
        "residual_mean": encoded.residual_sum / kept.clamp(min=1)[:, None],
        "passage": passage,
        "latent": keys % num_latents,
        "mean": total / kept[passage],
        "maximum": maximum,
        "positions_fired": torch.bincount(entry, minlength=size),
        "class_mass": mass.view(size, classes),
        "early_mass": early_mass,
    }
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    return arrays | {"batch_row": batch.rows, "passage": batch.rows[arrays["passage"]]}


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
        room = Room(self.batch_tokens)
        states = {layer: Folding() for layer in layers}
        for chunk in chunks(shard, self.cutter):
            for layer, state in self._read_chunk(chunk, layers, room).items():
                states[layer].add(state)
            self.on_rows(chunk.rows)
            release_free_memory()
        split = room.batches_split
        return {layer: folding.result()._replace(batches_split=split) for layer, folding in states.items()}

    def _read_chunk(self, chunk: Chunk, layers: tuple[int, ...], room: Room) -> dict[int, LayerState]:
        parts: dict[int, list[dict[str, np.ndarray]]] = {layer: [] for layer in layers}
        for batch in pack(chunk.sequences, room.batch_tokens, self.cutter.special_ids):
            for read in room.read(batch, partial(self._attempt, layers)):
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

    def _attempt(self, layers: tuple[int, ...], batch: TokenBatch) -> dict[int, dict[str, np.ndarray]]:
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
