"""States on disk: each is written once, atomically, under a key that is a hash of everything it depends on."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import OutputError
from stratalens.files.atomic import checksum_fits, read_checksummed, write_checksummed
from stratalens.files.regular import named_when_out_of_memory
from stratalens.files.result_names import STATE_SUFFIX
from stratalens.harvest.state.layer_state import (
    LayerState,
    fold,
    pack_state,
    unpack_state,
)
from stratalens.hookpoint import Hookpoint

FORMAT = 1
"""Part of every key: raise it whenever a state changes in form or meaning, so that older ones are not used."""


def key_of(*parts: object) -> str:
    """Hash of some values that JSON can represent, as 32 hexadecimal digits; equal values give equal keys."""
    return hashlib.sha256(json.dumps([FORMAT, *parts], sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class ShardStore:
    """What was read for an unfinished harvest: a state per layer and shard, and its codes where some are kept."""

    directory: Path

    def holds(self, hookpoint: Hookpoint, key: str) -> bool | None:
        """Whether an intact state is stored; None for a damaged one, which is removed."""
        path = self.path(hookpoint, key)
        if not path.is_file():
            return False
        if checksum_fits(path, key):
            return True
        path.unlink()
        return None

    def write(self, hookpoint: Hookpoint, key: str, packed: bytes) -> None:
        """Store what was read of one layer in one shard, readable by the user alone."""
        write_checksummed(self.path(hookpoint, key), key, packed, private=True)

    def fold(self, hookpoint: Hookpoint, keys: Sequence[str]) -> LayerState:
        """Merge the states of a layer, in the order of the keys.

        Raises:
            OutputError: a state was removed or damaged after it was written.
        """
        return fold(self._states(hookpoint, keys))

    def _states(self, hookpoint: Hookpoint, keys: Sequence[str]) -> Iterator[LayerState]:
        for key in keys:
            path = self.path(hookpoint, key)
            state = _read_state(path, key)
            if state is None:
                raise _lost(path)
            yield state

    def content(self, hookpoint: Hookpoint, key: str) -> bytes:
        """What is stored under a key.

        Raises:
            OutputError: it was removed or damaged after it was written.
        """
        path = self.path(hookpoint, key)
        content = read_checksummed(path, key) if path.is_file() else None
        if content is None:
            raise _lost(path)
        return content

    def path(self, hookpoint: Hookpoint, key: str) -> Path:
        """Path of what is stored of one layer after one shard under a key."""
        return self.directory / f"layer_{hookpoint}" / (key + STATE_SUFFIX)


def _lost(path: Path) -> OutputError:
    return OutputError(f"{path}: removed or damaged during the run; run the same command again")


class HarvestFile(NamedTuple):
    """The harvest of one layer on disk: its merged state."""

    path: Path
    key: str
    """Key under which it was written."""

    def is_intact(self) -> bool:
        """Whether the file exists, is undamaged, and was written under this key."""
        return self.path.is_file() and checksum_fits(self.path, self.key)

    def write(self, state: LayerState) -> None:
        """Write the merged state, replacing an existing file."""
        write_checksummed(self.path, self.key, pack_state(state))

    def state(self, num_latents: int | None = None) -> LayerState:
        """Read the merged state.

        Args:
            num_latents: width of the SAE, beyond which no latent may lie; None where it does not matter.

        Raises:
            OutputError: the file is missing, damaged, or was written by another version.
            CapacityError: there is not enough memory for it.
        """
        state = _read_state(self.path, self.key, num_latents)
        if state is None:
            raise OutputError(f"{self.path}: missing, damaged or of another version; run the analysis again")
        return state


def _read_state(path: Path, key: str, num_latents: int | None = None) -> LayerState | None:
    """Read a state that was written under a key; None where there is none, or one that no run writes."""
    try:
        with named_when_out_of_memory(path):
            packed = read_checksummed(path, key) if path.is_file() else None
            return None if packed is None else unpack_state(packed, num_latents)
    except ValueError:
        return None


def harvest_path(hookpoint: Hookpoint) -> Path:
    """Path of the harvest of one layer, relative to the result directory."""
    return Path("harvest") / f"layer_{hookpoint}{STATE_SUFFIX}"
