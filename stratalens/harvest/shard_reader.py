"""Read shards for all layers: run the model, encode with the SAEs, and accumulate the statistics."""

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.harvest.chunks import Chunk, chunks
from stratalens.harvest.codes_file import CodesWriter
from stratalens.harvest.keep_plan import Keep
from stratalens.harvest.shards import ShardTask
from stratalens.harvest.state.document_sample import DocumentSample
from stratalens.harvest.state.layer_state import LayerState, StateAccumulator
from stratalens.harvest.state.passage_values import EncodedBatch, PassageValues, reduce_batch
from stratalens.harvest.state.statistics import FeatureStats
from stratalens.harvest.state.top_examples import TopExamples
from stratalens.harvest.token_codes import BatchCodes, batch_codes, codes_table
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter
from stratalens.models.batches import BatchRunner, TokenBatch, pack_batches
from stratalens.models.hooks import forward, hooked
from stratalens.models.memory import release_free_memory
from stratalens.models.streams import Start, Streams
from stratalens.models.threads import in_threads
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.probe import Probe

BatchColumns = dict[Hookpoint, tuple[dict[str, Tensor], list[BatchCodes]]]
"""Hookpoint -> columns of the values of a batch, and the codes of its wanted passages if any, still on the device."""
Wait = Callable[[], list[BatchColumns]]
"""Waits for a batch; returns what was read of it, or of the parts into which it was halved."""


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


class ReadShard(NamedTuple):
    """What was read of a shard."""

    task: ShardTask
    states: dict[Hookpoint, LayerState]
    codes: dict[Hookpoint, bytes]
    """Hookpoint -> the file of its codes; empty where nothing is kept of the shard."""


@dataclass
class _Reading:
    """A shard that is being read."""

    task: ShardTask
    runner: BatchRunner
    states: dict[Hookpoint, StateAccumulator] = field(init=False)
    sinks: dict[Hookpoint, io.BytesIO] = field(init=False)
    writers: dict[Hookpoint, CodesWriter] = field(init=False)

    def __post_init__(self):
        self.states = {hookpoint: StateAccumulator() for hookpoint in self.task.layers}
        self.sinks = {hookpoint: io.BytesIO() for hookpoint in self.task.layers} if self.task.shard.kept else {}
        self.writers = {hookpoint: CodesWriter(sink) for hookpoint, sink in self.sinks.items()}

    def wanted(self, chunk: Chunk) -> Bool[np.ndarray, "passage"]:
        """Which passages of a chunk may be kept with their codes."""
        return chunk.keep != Keep.NOTHING if self.writers else np.zeros(len(chunk.keep), bool)

    def add(self, hookpoint: Hookpoint, chunk: Chunk, values: PassageValues, codes: list[BatchCodes]) -> None:
        """Add what was read of a chunk."""
        state = LayerState(
            stats=FeatureStats.of(values, self.task.shard.populations),
            examples=TopExamples.of(values, chunk.pointers),
            documents=DocumentSample.of(values, chunk.passages),
        )
        self.states[hookpoint].add(state)
        if codes:
            self.writers[hookpoint].add(codes_table(chunk.chosen(state.examples), codes))

    def finish(self) -> ReadShard:
        """What was read of all of its chunks."""
        for writer in self.writers.values():
            writer.close()
        split = self.runner.batches_split
        states = {place: total.result()._replace(batches_split=split) for place, total in self.states.items()}
        return ReadShard(self.task, states, {place: sink.getvalue() for place, sink in self.sinks.items()})


class _Started(NamedTuple):
    """A chunk whose batches are being read; the end of a shard without one."""

    reading: _Reading
    chunk: Chunk | None = None
    batches: tuple[tuple[TokenBatch, Wait], ...] = ()


@dataclass
class ShardReader:
    """Reads shards with a loaded model.

    A batch that does not fit into memory is halved, and so are all later ones of the same shard.
    """

    streams: Streams
    """Run the model on batches."""
    probes: Mapping[Hookpoint, Probe]
    """Hookpoint -> its loaded SAE and norm limit."""
    cutter: PassageCutter
    token_classes: Int[Tensor, "vocabulary"]
    """Class of each token id, on the device where batches are read."""
    batch_tokens: int
    """Maximum tokens, padding included, of all batches that are read at the same time."""
    layers_at_once: int = 1
    """Layers whose statistics are made at the same time."""
    on_batch: Callable[[int], None] = lambda _tokens: None
    """Called with the number of tokens of each finished batch."""
    on_rows: Callable[[int], None] = lambda _rows: None
    """Called with the number of corpus rows that each chunk completes."""

    def read(self, tasks: Iterable[ShardTask]) -> Iterator[ReadShard]:
        """Read shards with one forward pass per batch, in the order of the tasks.

        Where the streams run ahead, the batches of the next chunk are begun before a chunk is finished.

        Args:
            tasks: what to read, and for which layers; each has a probe.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        started: deque[_Started] = deque()
        with self.streams.open() as start:
            for task in tasks:
                reading = _Reading(task, BatchRunner(self.batch_tokens // self.streams.number))
                for chunk in chunks(task.shard, self.cutter, self.token_classes.device.type):
                    started.append(self._start(reading, chunk, start))
                    yield from self._finish(started, leave=self.streams.ahead)
                started.append(_Started(reading))
                yield from self._finish(started, leave=self.streams.ahead)
            yield from self._finish(started, leave=False)

    def _finish(self, started: deque[_Started], *, leave: bool) -> Iterator[ReadShard]:
        """Finish chunks in their order, except the last one if it is to be left; yield the shards that end."""
        while started:
            if leave and not any(one.chunk for one in islice(started, 1, None)) and started[0].chunk:
                return
            reading, chunk, batches = started.popleft()
            if chunk is None:
                yield reading.finish()
            else:
                self._merge(reading, chunk, batches)

    def _merge(self, reading: _Reading, chunk: Chunk, batches: Iterable[tuple[TokenBatch, Wait]]) -> None:
        """Wait for the batches of a chunk, and add it to its shard."""
        read: list[BatchColumns] = []
        for batch, wait in batches:
            read += wait()
            self.on_batch(batch.tokens)

        def add(hookpoint: Hookpoint) -> None:
            columns = [of_batch[hookpoint][0] for of_batch in read]
            codes = [own for of_batch in read for own in of_batch[hookpoint][1]]
            d_model = self.probes[hookpoint].sae.d_model
            reading.add(hookpoint, chunk, chunk.values(columns) if columns else _no_values(d_model), codes)

        in_threads(add, reading.task.layers, self.layers_at_once)
        self.on_rows(chunk.rows)
        release_free_memory()

    def _start(self, reading: _Reading, chunk: Chunk, start: Start) -> _Started:
        """Begin to read the batches of a chunk."""
        wanted = reading.wanted(chunk)
        batches = pack_batches(chunk.sequences, reading.runner.batch_tokens, self.cutter.special_ids)

        def work(batch: TokenBatch, model: nn.Module) -> list[BatchColumns]:
            return list(reading.runner.run(batch, partial(self._read_batch, model, reading.task.layers, wanted)))

        return _Started(reading, chunk, tuple((batch, start(partial(work, batch))) for batch in batches))

    def _read_batch(
        self, model: nn.Module, layers: tuple[Hookpoint, ...], wanted: Bool[np.ndarray, "passage"], batch: TokenBatch
    ) -> BatchColumns:
        """Read one batch for some layers."""
        batch = batch.to(self.token_classes.device)
        encoded: dict[Hookpoint, EncodedBatch] = {}

        def consumer(hookpoint: Hookpoint, vectors: Tensor) -> None:
            encoded[hookpoint] = encode_batch(self.probes[hookpoint], batch, vectors)

        with hooked(model, {hookpoint: partial(consumer, hookpoint) for hookpoint in layers}):
            forward(model, batch.input_ids)
        read = {}
        for hookpoint in layers:
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
