"""The document sample: values of single documents, kept on disk one file a shard and read back one layer at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt64
from scipy import sparse

from stratalens.statistics import PassageValues


class SampledPassages(NamedTuple):
    """The document of each passage of a set, and whether the document is sampled."""

    document: UInt64[np.ndarray, "passage"]
    sampled: np.ndarray


def write_documents(path: Path, passages: SampledPassages, layers: Mapping[int, PassageValues]) -> None:
    """Write the values of the sampled documents among a set of passages, all layers, as one npz file."""
    first = next(iter(layers.values()))
    chosen = np.flatnonzero(passages.sampled)
    documents, owner = np.unique(passages.document[chosen], return_inverse=True)
    row_of_passage = np.full(len(passages.document), -1, np.int32)
    row_of_passage[chosen] = owner
    population = np.zeros(len(documents), np.int8)
    population[owner] = first.population[chosen]
    arrays: dict[str, np.ndarray] = {
        "document": documents,
        "population": population,
        "passages": np.bincount(owner, minlength=len(documents)),
        "positions": np.bincount(owner, first.countable_positions[chosen], len(documents)).astype(np.int64),
    }
    for layer, values in layers.items():
        row = row_of_passage[values.passage]
        kept = row >= 0
        residual = np.zeros((len(documents), values.residual_mean.shape[1]))
        np.add.at(residual, owner, values.residual_mean[chosen])
        arrays |= {
            f"row_{layer}": row[kept],
            f"latent_{layer}": values.latent[kept].astype(np.int32),
            f"mean_{layer}": values.mean[kept].astype(np.float32),
            f"residual_{layer}": residual.astype(np.float32),
        }
    with path.open("wb") as stream:
        np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class DocumentMatrix:
    """One layer's value of each sampled document: the mean of m over its passages."""

    document: UInt64[np.ndarray, "document"]
    population: Int[np.ndarray, "document"]
    passages: Int[np.ndarray, "document"]
    positions: Int[np.ndarray, "document"]
    values: sparse.csc_array
    """`[document, latent]`"""
    residual: Float[np.ndarray, "document d_model"]
    """Mean hookpoint vector over kept positions, averaged over passages."""


def read_documents(paths: Sequence[Path], layer: int, num_latents: int) -> DocumentMatrix:
    """Join the shards' files for one layer; a document that stands in several shards becomes one row."""
    parts = []
    for path in paths:
        with np.load(path) as archive:
            shared = {name: archive[name] for name in ("document", "population", "passages", "positions")}
            own = {name: archive[f"{name}_{layer}"] for name in ("row", "latent", "mean", "residual")}
            parts.append(shared | own)
    documents, index = np.unique(np.concatenate([p["document"] for p in parts]), return_inverse=True)
    offsets = np.cumsum([0, *(len(p["document"]) for p in parts)])
    row = np.concatenate([index[offset + p["row"]] for offset, p in zip(offsets, parts, strict=False)])

    def total(name: str) -> np.ndarray:
        joined = np.concatenate([p[name] for p in parts])
        out = np.zeros((len(documents), *joined.shape[1:]), np.float64)
        np.add.at(out, index, joined)
        return out

    passages = total("passages")
    population = np.zeros(len(documents), np.int8)
    population[index] = np.concatenate([p["population"] for p in parts])
    mean = np.concatenate([p["mean"] for p in parts]).astype(np.float64) / passages[row]
    latent = np.concatenate([p["latent"] for p in parts])
    return DocumentMatrix(
        document=documents,
        population=population,
        passages=passages.astype(np.int64),
        positions=total("positions").astype(np.int64),
        values=sparse.coo_array((mean, (row, latent)), shape=(len(documents), num_latents)).tocsc(),
        residual=total("residual") / passages[:, None],
    )
