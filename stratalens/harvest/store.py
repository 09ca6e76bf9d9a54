"""Shards and harvests on disk: each written once, at once, under a name that says all it depends on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import OutputError
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.output_dir import STATE_SUFFIX
from stratalens.harvest.state.layer_state import (
    LayerState,
    fold,
    pack_state,
    unpack_state,
)

FORMAT = 1
"""Part of every name: raise it whenever a state changes in form or meaning, and all older ones are unread."""


def key_of(*parts: object) -> str:
    """A name for what depends on these parts alone; they are what JSON can hold."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ShardStore:
    """The shards of an unfinished reading, a file for each layer and shard."""

    directory: Path

    def holds(self, layer: int, key: str) -> bool | None:
        """Whether a sound state is there; None for one that is damaged, which is thereby removed."""
        path = self.path(layer, key)
        if not path.is_file():
            return False
        if read_checksummed(path, key) is not None:
            return True
        path.unlink()
        return None

    def write(self, layer: int, key: str, packed: bytes) -> None:
        """Keep the packed state of one layer after one shard."""
        write_checksummed(self.path(layer, key), key, packed)

    def fold(self, layer: int, keys: Sequence[str]) -> LayerState:
        """All shards of a layer together, in this order.

        Raises:
            OutputError: a state was removed or damaged since it was written.
        """
        return fold(self._states(layer, keys))

    def _states(self, layer: int, keys: Sequence[str]) -> Iterator[LayerState]:
        for key in keys:
            path = self.path(layer, key)
            packed = read_checksummed(path, key) if path.is_file() else None
            if packed is None:
                raise OutputError(f"{path}: removed or damaged while the run went on; run the same command again")
            yield unpack_state(packed)

    def path(self, layer: int, key: str) -> Path:
        """Where a state stands."""
        return self.directory / f"layer_{layer}" / (key + STATE_SUFFIX)


class HarvestFile(NamedTuple):
    """The folded state of one layer on disk."""

    path: Path
    key: str
    """Name under which it was written."""

    def is_sound(self) -> bool:
        """Whether the file is there, whole, and of that name."""
        return self.path.is_file() and read_checksummed(self.path, self.key) is not None

    def write(self, state: LayerState) -> None:
        """Write the state of a layer."""
        write_checksummed(self.path, self.key, pack_state(state))

    def state(self) -> LayerState:
        """Read the state.

        Raises:
            OutputError: the file is missing, damaged, or was written by another version.
        """
        packed = read_checksummed(self.path, self.key) if self.path.is_file() else None
        if packed is None:
            raise OutputError(f"{self.path}: missing, damaged or of another version; run the analysis again")
        return unpack_state(packed)


def harvest_path(layer: int) -> Path:
    """Where the harvest of one layer stands in a result."""
    return Path("harvest") / f"layer_{layer}{STATE_SUFFIX}"
