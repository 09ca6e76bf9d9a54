"""Evidence: passages, and the activations of the reported features on each of their tokens."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32
from scipy import sparse

from stratalens.evidence.passages import Passage, load_passages, write_passages
from stratalens.files.damaged import READ_ERRORS, damaged, require_bounded
from stratalens.files.regular import named_when_out_of_memory, open_regular
from stratalens.hookpoint import Hookpoint

PASSAGES_FILE = "passages.parquet"


class Entries(NamedTuple):
    """The tokens on which one feature fires."""

    token: Int[np.ndarray, "entry"]
    """Index among the tokens of all passages."""
    activation: Float[np.ndarray, "entry"]


class FiredEntries(NamedTuple):
    """The tokens on which some features fire; in 32 bits, because there are many."""

    token: Int32[np.ndarray, "entry"]
    """Index among the tokens of all passages."""
    column: Int32[np.ndarray, "entry"]
    """Index among the features."""
    activation: Float32[np.ndarray, "entry"]


NO_ENTRIES = FiredEntries(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))


@dataclass(frozen=True)
class LayerEvidence:
    """Activations of one layer's reported features on every token of a list of passages."""

    features: Int[np.ndarray, "feature"]
    activations: sparse.csc_array
    """`[token, feature]`, float32: the tokens of all passages in order; 0 at positions that never count."""

    @classmethod
    def of(cls, entries: FiredEntries, features: Sequence[int], tokens: int) -> "LayerEvidence":
        """Make the matrix of entries in any order.

        Args:
            entries: of these features.
            features: numbers of the latents.
            tokens: number of tokens of all passages.
        """
        matrix = sparse.coo_array(
            (entries.activation, (entries.token, entries.column)), (tokens, len(features))
        ).tocsc()
        matrix.sort_indices()
        return cls(np.asarray(features, np.int64), matrix)

    def entries(self, column: int) -> Entries:
        """Tokens on which the feature of a column fires, with its activations."""
        matrix = self.activations
        starts, tokens, values = matrix.indptr, matrix.indices, matrix.data
        assert starts is not None
        assert tokens is not None
        assert values is not None
        rows = slice(starts[column], starts[column + 1])
        return Entries(tokens[rows], values[rows])

    def for_features(self, features: Sequence[int]) -> "LayerEvidence":
        """The activations of these features, in this order; all zero for a feature that was not read."""
        width = len(self.features)
        column = {int(feature): at for at, feature in enumerate(self.features)}
        columns = np.array([column.get(feature, width) for feature in features], dtype=np.int64)
        shape = self.activations.shape
        assert shape is not None
        padded = sparse.hstack([self.activations, sparse.csc_array((shape[0], 1), dtype=np.float32)])
        return LayerEvidence(np.asarray(features, np.int64), sparse.csc_array(sparse.csc_array(padded)[:, columns]))

    def dense(self, column: int) -> Float[np.ndarray, "token"]:
        """Activations of the feature of a column on all tokens."""
        shape = self.activations.shape
        assert shape is not None
        values = np.zeros(shape[0], np.float32)
        values[self.entries(column).token] = self.entries(column).activation
        return values


def first_tokens(passages: Sequence[Passage]) -> Int[np.ndarray, "passage_and_end"]:
    """Index of each passage's first token among the tokens of all passages, and last the number of these tokens."""
    return np.cumsum([0, *(len(passage.token_ids) for passage in passages)])


@dataclass(frozen=True)
class Evidence:
    """Passages, and the activations of each layer's reported features on their tokens."""

    passages: list[Passage]
    layers: dict[Hookpoint, LayerEvidence]
    """Hookpoint -> activations of its reported features."""

    @property
    def starts(self) -> Int[np.ndarray, "passage_and_end"]:
        """See `first_tokens`."""
        return first_tokens(self.passages)

    def means(self, hookpoint: Hookpoint) -> Float[np.ndarray, "passage feature"]:
        """Mean activation over the tokens of each passage."""
        lengths = np.diff(self.starts)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        shape = (len(lengths), len(owner))
        sums = sparse.csr_array((np.ones(len(owner), np.float32), (owner, np.arange(len(owner)))), shape=shape)
        total = sparse.csr_array(sums @ self.layers[hookpoint].activations).toarray()
        return total / lengths[:, None]

    def maxima(
        self, hookpoint: Hookpoint, where: Bool[np.ndarray, "token"] | None = None
    ) -> Float[np.ndarray, "passage feature"]:
        """Maximum activation in each passage.

        Args:
            hookpoint: of the features.
            where: tokens of all passages that count; None for all. A passage without any has 0.
        """
        own, starts = self.layers[hookpoint], self.starts[:-1]
        counts = np.float32(1) if where is None else where.astype(np.float32)
        rows = [np.maximum.reduceat(own.dense(column) * counts, starts) for column in range(len(own.features))]
        return np.stack(rows, axis=1) if rows else np.zeros((len(self.passages), 0), np.float32)

    def tokens_of(self, hookpoint: Hookpoint, column: int, passage: int) -> Float[np.ndarray, "seq"]:
        """Activations of the feature of a column on the tokens of one passage."""
        return self.layers[hookpoint].dense(column)[self.starts[passage] : self.starts[passage + 1]]

    def write(self, directory: Path) -> None:
        """Write passages and activations into a directory."""
        directory.mkdir(exist_ok=True)
        write_passages(self.passages, directory / PASSAGES_FILE)
        for hookpoint, evidence in self.layers.items():
            matrix = evidence.activations
            np.savez_compressed(
                directory / f"layer_{hookpoint}.npz",
                features=evidence.features,
                data=matrix.data,
                indices=matrix.indices,
                indptr=matrix.indptr,
                shape=np.asarray(matrix.shape),
            )

    @classmethod
    def load(cls, directory: Path, hookpoints: Iterable[Hookpoint]) -> "Evidence":
        """Load the files of `write`.

        Raises:
            ConfigError: a file is missing, damaged, or does not fit the others.
        """
        passages = load_passages(directory / PASSAGES_FILE)
        tokens = int(first_tokens(passages)[-1])
        return cls(
            passages, {hookpoint: _load_layer(directory / f"layer_{hookpoint}.npz", tokens) for hookpoint in hookpoints}
        )


def _load_layer(path: Path, tokens: int) -> LayerEvidence:
    try:
        with named_when_out_of_memory(path), open_regular(path) as stream, zipfile.ZipFile(stream) as members:
            require_bounded(sum(member.file_size for member in members.infolist()))
            stream.seek(0)
            archive = np.load(stream, allow_pickle=False)
            features, data, indices = archive["features"], archive["data"], archive["indices"]
            matrix = sparse.csc_array((data, indices, archive["indptr"]), shape=tuple(archive["shape"]))
        matrix.check_format(full_check=True)  # scipy does not check indices when it uses them
    except READ_ERRORS as error:
        raise damaged(path, error) from None
    expected = (tokens, len(features)) if features.ndim == 1 else None
    if matrix.shape != expected or features.dtype.kind != "i":
        raise damaged(path, f"it does not fit the {tokens} tokens of {PASSAGES_FILE}")
    if matrix.dtype != np.float32 or not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise damaged(path, "it holds values that are not activations")
    return LayerEvidence(features, matrix)


def join_evidence(one: Evidence, other: Evidence) -> Evidence:
    """Join two evidences of the same features on different passages, in the order in which evidence has passages."""
    passages = [*one.passages, *other.passages]
    order = sorted(range(len(passages)), key=lambda number: (passages[number].population, passages[number].location))
    starts = first_tokens(passages)
    rows = np.concatenate([np.arange(starts[number], starts[number + 1]) for number in order]) if order else order
    layers = {}
    for hookpoint, own in one.layers.items():
        both = sparse.csr_array(sparse.vstack([own.activations, other.layers[hookpoint].activations], format="csr"))
        matrix = sparse.csc_array(both[rows])
        matrix.sort_indices()
        layers[hookpoint] = LayerEvidence(own.features, matrix)
    return Evidence([passages[number] for number in order], layers)
