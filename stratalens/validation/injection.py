"""Read sequences of tokens for some features, piece by piece; what was read before is not read again."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float

from stratalens.corpus.populations import Population
from stratalens.errors import counted
from stratalens.evidence.passage_reader import PassageReader
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.files.atomic import read_checksummed, write_checksummed
from stratalens.files.result_names import STATE_SUFFIX
from stratalens.harvest.open_model import OpenModel
from stratalens.harvest.store import ShardStore, key_of
from stratalens.hookpoint import Hookpoint
from stratalens.models.hooks import drop_blocks_above
from stratalens.progress import Advance, Progress
from stratalens.saes.probe import Probe

FORMAT = 1
"""Part of every key: raise it whenever what is read, or how, changes in meaning."""
VALUES_NAME = "values of a token test"
"""The name under which the values of a finished test are written."""

Maxima = Float[np.ndarray, "sequence feature"]
"""Maximum of each feature over the kept positions of each sequence, float32."""


@dataclass(frozen=True)
class Piece:
    """Sequences that are read together, and the features they are read for."""

    sequences: tuple[np.ndarray, ...]
    """Token ids of each, special tokens included."""
    features: Mapping[Hookpoint, tuple[int, ...]]
    where: tuple[Bool[np.ndarray, "seq"], ...] | None = None
    """Tokens of each sequence of which the maximum is taken; None for all."""

    @property
    def tokens(self) -> int:
        """Number of tokens of all sequences."""
        return sum(map(len, self.sequences))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the sequences, and over where maxima are taken."""
        sha = hashlib.sha256()
        for sequence in self.sequences:
            sha.update(f"{len(sequence)}\n".encode())
            sha.update(sequence.astype("<i8").tobytes())
        for mask in self.where or ():
            sha.update(mask.tobytes())
        return sha.hexdigest()


class SequenceReader(Protocol):
    """Reads sequences of token ids: `ModelReader`, and planted latents in tests."""

    def read(self, piece: Piece, advance: Advance) -> dict[Hookpoint, Maxima]:
        """Return the maxima of features on sequences.

        Args:
            piece: what is read. After one for some hookpoints there are only pieces for these and shallower ones.
            advance: called with the numbers of sequences and tokens of each finished batch.
        """
        ...


@dataclass
class ModelReader:
    """Reads with the model, which is cut after the deepest hookpoint that is still to be read."""

    load: Callable[[], OpenModel]
    """Called when something must be read for the first time."""
    groups: Sequence[tuple[Hookpoint, ...]]
    """Hookpoints whose SAEs fit into memory together."""
    special_ids: frozenset[int]
    batch_tokens: int
    _probes: dict[tuple[Hookpoint, ...], list[Probe]] = field(default_factory=dict)

    @cached_property
    def _opened(self) -> OpenModel:
        return self.load()

    def read(self, piece: Piece, advance: Advance) -> dict[Hookpoint, Maxima]:
        """See `SequenceReader`."""
        features, where = piece.features, None if piece.where is None else np.concatenate(piece.where)
        drop_blocks_above(self._opened.model, max(features).block)
        passages = [_as_passage(sequence) for sequence in piece.sequences]
        groups = [tuple(place for place in group if place in features) for group in self.groups]
        found: dict[Hookpoint, Maxima] = {}
        for number, group in enumerate(own for own in groups if own):
            report: Advance = advance if number == 0 else lambda _sequences, tokens: advance(0, tokens)
            reader = PassageReader(self._opened.model, passages, self.special_ids, self.batch_tokens, report)
            evidence = reader.read([self._loaded(group)], features)
            found |= {place: evidence.maxima(place, where) for place in group}
        return found

    def _loaded(self, group: tuple[Hookpoint, ...]) -> list[Probe]:
        """The probes of a group; only those of the last one are kept."""
        if group not in self._probes:
            self._probes.clear()
            self._probes[group] = list(self._opened.probes(group).values())
        return self._probes[group]


def _as_passage(token_ids: np.ndarray) -> Passage:
    """A sequence in the form in which passages are read; it has no text and no document."""
    offsets = np.zeros((len(token_ids), 2), np.int64)
    return Passage(PassageLocation(0, 0, 0), 0, Population.numbered(0), "", token_ids, offsets)


@dataclass
class ValueStore:
    """The values of pieces: those of a finished test, those that a stopped one has stored, and new ones."""

    folder: Path
    """Where the values of a test that is not finished are stored."""
    facts: Mapping[Hookpoint, object]
    """Hookpoint -> everything that values depend on besides sequences and features, as values for JSON."""
    before: Mapping[Hookpoint, Mapping[str, Maxima]] = field(default_factory=dict)
    """Hookpoint -> key -> values of a finished test."""
    used: dict[Hookpoint, dict[str, Maxima]] = field(default_factory=dict)
    """Hookpoint -> key -> values of this test."""

    def load(self, piece: Piece) -> dict[Hookpoint, Maxima] | None:
        """The values of a piece at all its hookpoints; None where they are not all stored and intact."""
        found: dict[Hookpoint, Maxima] = {}
        for place, features in piece.features.items():
            key = self._key(place, piece)
            own = self.before.get(place, {}).get(key)
            own = read_values(self._path(place, key), key).get(key) if own is None else own
            if own is None or own.shape != (len(piece.sequences), len(features)):
                return None
            found[place] = own
            self.used.setdefault(place, {})[key] = own
        return found

    def write(self, piece: Piece, values: Mapping[Hookpoint, Maxima]) -> None:
        """Store the values of a piece, readable by the user alone."""
        for place, own in values.items():
            key = self._key(place, piece)
            own = own.astype(np.float32)
            write_checksummed(self._path(place, key), key, pack_values({key: own}), private=True)
            self.used.setdefault(place, {})[key] = own

    def digest(self) -> str:
        """Hash of everything that determines the values of this test."""
        return key_of({str(place): sorted(own) for place, own in self.used.items()})

    def _key(self, hookpoint: Hookpoint, piece: Piece) -> str:
        return key_of("token test", FORMAT, self.facts[hookpoint], piece.digest, piece.features[hookpoint])

    def _path(self, hookpoint: Hookpoint, key: str) -> Path:
        return ShardStore(self.folder).path(hookpoint, key)


def values_path(hookpoint: Hookpoint) -> Path:
    """Path of the values of a finished test at one hookpoint, relative to the result directory."""
    return Path("token_test") / f"layer_{hookpoint}{STATE_SUFFIX}"


def pack_values(values: Mapping[str, Maxima]) -> bytes:
    """Pack values: a line of JSON with the shape under each key, then their numbers one after the other."""
    shapes = {key: list(own.shape) for key, own in sorted(values.items())}
    return (
        json.dumps(shapes).encode() + b"\n" + b"".join(own.astype("<f4").tobytes() for _, own in sorted(values.items()))
    )


def unpack_values(packed: bytes) -> dict[str, Maxima]:
    """Restore values from the bytes of `pack_values`.

    Raises:
        ValueError: they are not those of values, or a value is no activation.
    """
    head, _, body = packed.partition(b"\n")
    try:
        shapes = {str(key): (int(rows), int(columns)) for key, (rows, columns) in json.loads(head).items()}
    except (AttributeError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"no shapes: {error}") from None
    numbers = np.frombuffer(body, "<f4").astype(np.float32)
    sizes = [rows * columns for rows, columns in shapes.values()]
    if any(min(shape) < 0 for shape in shapes.values()) or sum(sizes) != len(numbers):
        raise ValueError("not as many numbers as the shapes say")
    if not np.isfinite(numbers).all() or (numbers < 0).any():
        raise ValueError("numbers that are no activations")
    parts = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
    return {key: part.reshape(shape) for (key, shape), part in zip(shapes.items(), parts, strict=True)}


def read_values(path: Path, name: str) -> dict[str, Maxima]:
    """Read a file of values that was written under a name; empty where there is none that is intact."""
    try:
        packed = read_checksummed(path, name) if path.is_file() else None
        return {} if packed is None else unpack_values(packed)
    except ValueError:
        return {}


def describe_work(pieces: Sequence[Piece], store: ValueStore, tokens_per_second: float | None) -> str:
    """Say how many tokens are still to be read, and how long that takes at the speed of the harvest."""
    missing = [piece for piece in pieces if store.load(piece) is None]
    tokens, all_tokens = sum(piece.tokens for piece in missing), sum(piece.tokens for piece in pieces)
    deepest = max(max(piece.features) for piece in pieces).block + 1
    work = sum(piece.tokens * (max(piece.features).block + 1) / deepest for piece in missing)
    before = "" if tokens == all_tokens else f" ({all_tokens - tokens:,} were read before)"
    seconds = f", about {work / tokens_per_second:,.0f} s at the speed of the harvest" if tokens_per_second else ""
    return f"Token test: {counted(tokens, 'token')} to read{before}{seconds if tokens else ''}"


def read_pieces(
    pieces: Sequence[Piece], reader: SequenceReader, store: ValueStore, progress: Progress
) -> list[dict[Hookpoint, Maxima]]:
    """Read the pieces that are not stored, and store each as soon as it is read.

    Args:
        pieces: in the order in which they are read, those for deeper hookpoints first.
        reader: reads sequences.
        store: has what was read before.
        progress: receives counts of sequences and tokens.

    Returns:
        The values of each piece.
    """
    values = []
    with progress.track("Testing tokens", sum(len(piece.sequences) for piece in pieces)) as advance:
        for piece in pieces:
            found = store.load(piece)
            if found is None:
                found = reader.read(piece, advance)
                store.write(piece, found)
            else:
                advance(len(piece.sequences), 0)
            values.append(found)
    return values
