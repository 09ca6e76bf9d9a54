"""The document sample: one layer's values of single documents, which may extend over several shards."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64
from scipy import sparse

from stratalens.harvest.state.passage_values import PassageValues


class SampledPassages(NamedTuple):
    """The document of each passage of a set, and whether the document is sampled."""

    document: UInt64[np.ndarray, "passage"]
    sampled: np.ndarray
    """Boolean, `[passage]`."""


@dataclass(frozen=True)
class DocumentMatrix:
    """One layer's values of each sampled document: mean activations, averaged over its passages."""

    document: UInt64[np.ndarray, "document"]
    """64-bit hash of each document, rising."""
    population: Int[np.ndarray, "document"]
    passages: Int[np.ndarray, "document"]
    """Passages of each document."""
    positions: Int[np.ndarray, "document"]
    """Countable positions of each document."""
    values: sparse.csc_array
    """`[document, latent]`"""
    residual: Float[np.ndarray, "document d_model"]
    """Mean hookpoint vector over kept positions, averaged over passages."""


@dataclass(frozen=True)
class DocumentSample:
    """Sums of one layer over the passages of sampled documents; a document has one row per shard that it is in.

    The entries are a sparse table: one for each passage and latent that fires in it.
    """

    document: UInt64[np.ndarray, "row"]
    population: Int[np.ndarray, "row"]
    passages: Int[np.ndarray, "row"]
    positions: Int[np.ndarray, "row"]
    """Countable positions."""
    residual: Float[np.ndarray, "row d_model"]
    """Sum of the passages' mean hookpoint vectors, float32."""
    row: Int[np.ndarray, "entry"]
    """Row of the entry's document."""
    latent: Int[np.ndarray, "entry"]
    mean: Float[np.ndarray, "entry"]
    """Mean activation in one passage, float32."""

    @classmethod
    def of(cls, values: PassageValues, passages: SampledPassages) -> "DocumentSample":
        """Sum the values of a set of passages by document, for the sampled documents."""
        chosen = np.flatnonzero(passages.sampled)
        documents, owner = np.unique(passages.document[chosen], return_inverse=True)
        row_of_passage = np.full(len(passages.document), -1, np.int64)
        row_of_passage[chosen] = owner
        population = np.zeros(len(documents), np.int64)
        population[owner] = values.population[chosen]
        residual = np.zeros((len(documents), values.residual_mean.shape[1]))
        np.add.at(residual, owner, values.residual_mean[chosen])
        row = row_of_passage[values.passage]
        kept = row >= 0
        return cls(
            document=documents,
            population=population,
            passages=np.bincount(owner, minlength=len(documents)).astype(np.int64),
            positions=np.bincount(owner, values.countable_positions[chosen], len(documents)).astype(np.int64),
            residual=residual.astype(np.float32),
            row=row[kept].astype(np.int32),
            latent=values.latent[kept].astype(np.int32),
            mean=values.mean[kept].astype(np.float32),
        )

    def matrix(self, num_latents: int) -> DocumentMatrix:
        """Join the rows of each document, and average over its passages.

        Args:
            num_latents: width of the SAE.
        """
        documents, index = np.unique(self.document, return_inverse=True)

        def total(column: np.ndarray) -> np.ndarray:
            sums = np.zeros((len(documents), *column.shape[1:]), np.float64)
            np.add.at(sums, index, column)
            return sums

        passages = total(self.passages)
        population = np.zeros(len(documents), np.int64)
        population[index] = self.population
        row = index[self.row]
        mean = self.mean.astype(np.float64) / passages[row]
        return DocumentMatrix(
            document=documents,
            population=population,
            passages=passages.astype(np.int64),
            positions=total(self.positions).astype(np.int64),
            values=sparse.coo_array((mean, (row, self.latent)), shape=(len(documents), num_latents)).tocsc(),
            residual=total(self.residual) / passages[:, None],
        )


def join(parts: Sequence[DocumentSample]) -> DocumentSample:
    """Concatenate parts, at least one; documents of several parts keep a row in each."""
    offsets = np.cumsum([0, *(len(part.document) for part in parts)])
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(DocumentSample)
        if field.name != "row"
    }
    rows = [(part.row + offset).astype(np.int32) for part, offset in zip(parts, offsets, strict=False)]
    return DocumentSample(row=np.concatenate(rows), **columns)
