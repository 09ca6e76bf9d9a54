"""A second, small pass: what the reported features do on every token of the passages that evidence is drawn from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from stratalens.evidence.passages import Passage, load_passages, write_passages
from stratalens.files.damaged import UNREADABLE, damaged

PASSAGES_FILE = "passages.parquet"


class Entries(NamedTuple):
    """The tokens on which one feature fires."""

    token: Int[np.ndarray, "entry"]
    activation: Float[np.ndarray, "entry"]


@dataclass(frozen=True)
class LayerEvidence:
    """Activations of one layer's reported features on every token of a list of passages."""

    features: Int[np.ndarray, "feature"]
    activations: sparse.csc_array
    """`[token, feature]`, float32: tokens of all passages one after the other, 0 at positions that never count."""

    def entries(self, column: int) -> Entries:
        """Where one feature fires, and how strongly."""
        matrix = self.activations
        starts, tokens, values = matrix.indptr, matrix.indices, matrix.data
        assert starts is not None
        assert tokens is not None
        assert values is not None
        own = slice(starts[column], starts[column + 1])
        return Entries(tokens[own], values[own])

    def over(self, features: Sequence[int]) -> "LayerEvidence":
        """The same activations for these features, in this order; a feature that is not among its own has none."""
        width = len(self.features)
        column = {int(feature): at for at, feature in enumerate(self.features)}
        place = np.array([column.get(feature, width) for feature in features], dtype=np.int64)
        shape = self.activations.shape
        assert shape is not None
        padded = sparse.hstack([self.activations, sparse.csc_array((shape[0], 1), dtype=np.float32)])
        return LayerEvidence(np.asarray(features, np.int64), sparse.csc_array(sparse.csc_array(padded)[:, place]))

    def dense(self, column: int) -> Float[np.ndarray, "token"]:
        """Activations of one feature on all tokens."""
        shape = self.activations.shape
        assert shape is not None
        values = np.zeros(shape[0], np.float32)
        values[self.entries(column).token] = self.entries(column).activation
        return values


def first_tokens(passages: Sequence[Passage]) -> Int[np.ndarray, "passage_and_end"]:
    """Where each passage begins in the tokens of all, and where the last one ends."""
    return np.cumsum([0, *(len(passage.token_ids) for passage in passages)])


@dataclass(frozen=True)
class Evidence:
    """Passages, and what each layer's reported features do in them."""

    passages: list[Passage]
    layers: dict[int, LayerEvidence]

    @property
    def starts(self) -> Int[np.ndarray, "passage_and_end"]:
        """Where each passage begins in the tokens of all, and where the last one ends."""
        return first_tokens(self.passages)

    def means(self, layer: int) -> Float[np.ndarray, "passage feature"]:
        """Mean activation over the tokens of each passage."""
        lengths = np.diff(self.starts)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        shape = (len(lengths), len(owner))
        sums = sparse.csr_array((np.ones(len(owner), np.float32), (owner, np.arange(len(owner)))), shape=shape)
        total = sparse.csr_array(sums @ self.layers[layer].activations).toarray()
        return total / lengths[:, None]

    def maxima(self, layer: int) -> Float[np.ndarray, "passage feature"]:
        """Largest activation in each passage."""
        columns = range(len(self.layers[layer].features))
        rows = [np.maximum.reduceat(self.layers[layer].dense(column), self.starts[:-1]) for column in columns]
        return np.stack(rows, axis=1) if rows else np.zeros((len(self.passages), 0), np.float32)

    def tokens_of(self, layer: int, column: int, passage: int) -> Float[np.ndarray, "seq"]:
        """Activations of one feature on the tokens of one passage."""
        return self.layers[layer].dense(column)[self.starts[passage] : self.starts[passage + 1]]

    def write(self, directory: Path) -> None:
        """Write everything below a directory, which is created."""
        directory.mkdir()
        write_passages(self.passages, directory / PASSAGES_FILE)
        for layer, evidence in self.layers.items():
            matrix = evidence.activations
            np.savez_compressed(
                directory / f"layer_{layer}.npz",
                features=evidence.features,
                data=matrix.data,
                indices=matrix.indices,
                indptr=matrix.indptr,
                shape=np.asarray(matrix.shape),
            )

    @classmethod
    def load(cls, directory: Path, layers: Iterable[int]) -> "Evidence":
        """Read what `write` wrote.

        Raises:
            ConfigError: a file is damaged, or does not fit the others.
        """
        passages = load_passages(directory / PASSAGES_FILE)
        tokens = int(first_tokens(passages)[-1])
        return cls(passages, {layer: _load_layer(directory / f"layer_{layer}.npz", tokens) for layer in layers})


def _load_layer(path: Path, tokens: int) -> LayerEvidence:
    try:
        with np.load(path, allow_pickle=False) as archive:
            features, data, indices = archive["features"], archive["data"], archive["indices"]
            matrix = sparse.csc_array((data, indices, archive["indptr"]), shape=tuple(archive["shape"]))
        matrix.check_format(full_check=True)  # compiled code takes indices at their word
    except UNREADABLE as error:
        raise damaged(path, error) from None
    expected = (tokens, len(features)) if features.ndim == 1 else None
    if matrix.shape != expected or features.dtype.kind != "i":
        raise damaged(path, f"it does not fit the {tokens} tokens of {PASSAGES_FILE}")
    if matrix.dtype != np.float32 or not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise damaged(path, "it holds what is no activation")
    return LayerEvidence(features, matrix)
