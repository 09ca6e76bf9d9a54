"""Who reads shards: this process, one after the other, or many on a cluster. The bytes do not depend on who did."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.shard_reader import ShardReader
from stratalens.harvest.shards import Shard
from stratalens.harvest.state.layer_state import LayerState, pack_state
from stratalens.models import PassageCutter
from stratalens.models.token_classes import vocabulary_classes

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


class ShardTask(NamedTuple):
    """A shard to read, and the layers that are wanted of it."""

    shard: Shard
    layers: tuple[int, ...]


class FinishedShard(NamedTuple):
    """A shard that was read."""

    number: int
    """Of the shard."""
    packed: dict[int, bytes]
    """Layer -> its packed state."""
    rows: int
    """Corpus rows that end in the shard."""
    tokens: int


class ReadingCallbacks(NamedTuple):
    """Who hears of the reading."""

    on_tokens: Callable[[int], None]
    """Called with the tokens that were read since the last call."""
    on_rows: Callable[[int], None]
    """Called with the corpus rows that were completed since the last call."""


class WorkerKind(NamedTuple):
    """What last bits depend on besides model and text: workers of one kind give the same bytes."""

    device: str
    dtype: str
    libraries: tuple[tuple[str, str], ...]
    """Names and versions."""


@runtime_checkable
class Workers(Protocol):
    """Reads shards. A real seam: `LocalWorker` here, Ray actors in `workers_ray`."""

    @property
    def kind(self) -> WorkerKind:
        """Of all of them."""
        ...

    def read(self, layers: tuple[int, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """Read all tasks and yield each when it is done, in any order; tasks are taken only as they are needed.

        Args:
            layers: all layers that the tasks want; their SAEs are held in memory.
            tasks: what to read.
        """
        ...


@dataclass(frozen=True)
class LocalWorker:
    """Reads in this process."""

    opened: OpenModel
    cutter: PassageCutter
    batch_tokens: int
    callbacks: ReadingCallbacks

    @property
    def kind(self) -> WorkerKind:
        """See `Workers`."""
        libraries = tuple((name, version(name)) for name in LIBRARIES)
        return WorkerKind(_device_kind(self.opened.device), str(self.opened.dtype), libraries)

    def reader(self, layers: tuple[int, ...]) -> ShardReader:
        """Load what is needed to read some layers."""
        classes = torch.from_numpy(vocabulary_classes(self.cutter.tokenizer)).to(self.opened.device)
        probes = self.opened.probes(layers)
        return ShardReader(
            self.opened.model,
            probes,
            self.cutter,
            classes,
            self.batch_tokens,
            self.callbacks.on_tokens,
            self.callbacks.on_rows,
        )

    def read(self, layers: tuple[int, ...], tasks: Iterable[ShardTask]) -> Iterator[FinishedShard]:
        """See `Workers`."""
        reader = self.reader(layers)
        for task in tasks:
            yield finished(task.shard, reader.read(task.shard, task.layers))


def _device_kind(device: torch.device) -> str:
    """A GPU's name; of a cpu its instructions and the number of threads."""
    if device.type == "cuda":
        return f"cuda, {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        return f"cpu, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return device.type


def finished(shard: Shard, states: Mapping[int, LayerState]) -> FinishedShard:
    """What a worker hands on of a shard."""
    tokens = int(next(iter(states.values())).stats.tokens.sum())
    return FinishedShard(
        shard.number, {layer: pack_state(state) for layer, state in states.items()}, shard.rows, tokens
    )
