"""What was measured of an unfinished test of effects, so that one that was stopped continues where it was."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stratalens.effects.text import EffectText
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.harvest.store import ShardStore, key_of
from stratalens.hookpoint import Hookpoint

FORMAT = 2
"""Part of every key: raise it whenever what is measured, or how, changes in meaning."""
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class EffectValueFiles:
    """Arrays in files, each under a key that is a hash of everything on which it depends."""

    folder: Path
    facts: Mapping[Hookpoint, object]
    """Hookpoint -> everything that values depend on besides text and ablations, as values for JSON."""

    def load(self, hookpoint: Hookpoint, what: Sequence[object], names: Sequence[str]) -> dict[str, np.ndarray] | None:
        """The arrays that were stored under a description; None where there are none that are intact."""
        key = self._key(hookpoint, what)
        path = self._path(hookpoint, key)
        try:
            packed = read_checksummed(path, key) if path.is_file() else None
            if packed is None:
                return None
            with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
        except (ValueError, KeyError, EOFError, OSError):
            return None

    def write(self, hookpoint: Hookpoint, what: Sequence[object], arrays: Arrays) -> None:
        """Store arrays under a description, readable by the user alone."""
        key, packed = self._key(hookpoint, what), io.BytesIO()
        np.savez(packed, **dict(arrays))  # pyright: ignore[reportArgumentType]
        write_checksummed(self._path(hookpoint, key), key, packed.getvalue(), private=True)

    def _key(self, hookpoint: Hookpoint, what: Sequence[object]) -> str:
        return key_of("effect", FORMAT, self.facts[hookpoint], *what)

    def _path(self, hookpoint: Hookpoint, key: str) -> Path:
        return ShardStore(self.folder).path(hookpoint, key)


def text_digest(text: EffectText, passages: Sequence[int] | np.ndarray) -> str:
    """SHA-256 over the tokens of some passages, and which of them count."""
    sha = hashlib.sha256()
    for number in passages:
        ids, classes = text.passages[int(number)].token_ids, text.token_class[int(number)]
        sha.update(f"{len(ids)}\n".encode())
        sha.update(ids.astype("<i8").tobytes())
        sha.update(classes.astype("<i8").tobytes())
    return sha.hexdigest()
