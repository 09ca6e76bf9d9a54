"""Who reads shards: one process in a loop, or many on a cluster. Results do not depend on who did."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from stratalens.harvest import ShardReader
from stratalens.shards import Shard
from stratalens.state import pack


class Task(NamedTuple):
    """A shard to read, and the layers that are wanted of it."""

    shard: Shard
    layers: tuple[int, ...]


class Finished(NamedTuple):
    """A shard that was read."""

    number: int
    """Of the shard."""
    packed: dict[int, bytes]
    """Layer -> its packed state."""


@runtime_checkable
class Workers(Protocol):
    """Reads shards. A real seam: `LocalWorker` here, Ray actors in `workers_ray`."""

    def read(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """Read all tasks and yield each when it is done, in any order; tasks are taken only as they are needed."""
        ...


@dataclass(frozen=True)
class LocalWorker:
    """Reads in this process, one shard after the other."""

    reader: ShardReader

    def read(self, tasks: Iterable[Task]) -> Iterator[Finished]:
        """See `Workers`."""
        for task in tasks:
            states = self.reader.read(task.shard, task.layers)
            yield Finished(task.shard.number, {layer: pack(state) for layer, state in states.items()})
