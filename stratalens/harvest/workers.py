"""Workers that read shards: this process, or actors on a cluster. All workers of one kind give the same bytes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import ReadShard, ShardReader
from stratalens.harvest.shards import ShardTask
from stratalens.harvest.state.layer_state import pack_state
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter
from stratalens.models.streams import Streams, division_of
from stratalens.models.token_classes import vocabulary_classes

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


class FinishedShard(NamedTuple):
    """The result of reading one shard."""

    number: int
    """Index of the shard."""
    packed: dict[Hookpoint, bytes]
    """Hookpoint -> its packed state."""
    codes: dict[Hookpoint, bytes]
    """Hookpoint -> the file of its codes; empty where nothing is kept of the shard."""
    rows: int
    """Corpus rows that end in the shard."""
    tokens: int
    """Tokens fed to the model."""


class HarvestCallbacks(NamedTuple):
    """Functions called as text is read."""

    on_tokens: Callable[[int], None]
    """Called with the number of tokens read since the last call."""
    on_rows: Callable[[int], None]
    """Called with the number of corpus rows completed since the last call."""


class WorkerKind(NamedTuple):
    """Everything besides model and text that rounding depends on: workers of one kind give the same bytes."""

    device: str
    """Name of the GPU, or instruction set and threads of the CPU."""
    dtype: str
    libraries: tuple[tuple[str, str], ...]
    """Names and versions."""


@runtime_checkable
class Workers(Protocol):
    """Reads shards: implemented by `LocalWorker` here and by `RayWorkers` in `ray_workers`."""

    @property
    def kind(self) -> WorkerKind:
        """The one kind of all workers."""
        ...

    def read(self, hookpoints: tuple[Hookpoint, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """Yield the result of each task when it is finished, in any order; tasks are consumed only as needed.

        Args:
            hookpoints: all layers of the tasks; their SAEs are kept in memory.
            tasks: shards to read.

        Raises:
            CapacityError: a single passage does not fit into memory.
        """
        ...


@dataclass(frozen=True)
class LocalWorker:
    """Reads in this process."""

    opened: OpenModel
    cutter: PassageCutter
    batch_tokens: int
    callbacks: HarvestCallbacks

    @property
    def kind(self) -> WorkerKind:
        """See `Workers`."""
        return kind_of(self.opened.device, self.opened.dtype)

    def reader(self, hookpoints: tuple[Hookpoint, ...]) -> ShardReader:
        """Load the SAEs of some layers; return a reader for them."""
        classes = vocabulary_classes(self.cutter.tokenizer, self.cutter.known_ids)
        return ShardReader(
            Streams.of(self.opened.model, division_of(self.opened.device)),
            self.opened.probes(hookpoints),
            self.cutter,
            torch.from_numpy(classes).to(self.opened.device),
            self.batch_tokens,
            1 if self.opened.device.type == "cpu" else torch.get_num_threads(),  # the streams use the cores themselves
            self.callbacks.on_tokens,
            self.callbacks.on_rows,
        )

    def read(self, hookpoints: tuple[Hookpoint, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """See `Workers`."""
        return map(packed, self.reader(hookpoints).read(tasks))


def kind_of(device: torch.device, dtype: torch.dtype) -> WorkerKind:
    """The kind of a worker of this process."""
    return WorkerKind(_device_kind(device), str(dtype), tuple((name, version(name)) for name in LIBRARIES))


def _device_kind(device: torch.device) -> str:
    """Name of a GPU; instruction set and number of threads of a CPU."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        streams, threads, _ = division_of(device)
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}, {streams} x {threads} threads"
    return device.type


def packed(read: ReadShard) -> FinishedShard:
    """Pack what was read of a shard for at least one layer."""
    return FinishedShard(
        read.task.shard.number,
        packed={hookpoint: pack_state(state) for hookpoint, state in read.states.items()},
        codes=read.codes,
        rows=read.task.shard.rows,
        tokens=int(next(iter(read.states.values())).stats.tokens.sum()),
    )
