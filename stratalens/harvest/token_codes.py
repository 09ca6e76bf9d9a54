"""Token-level codes: the latents that fire on each token of some passages, with the passages themselves.

One row is one passage. With its text, its tokens and its codes the evidence of any latent needs neither the model nor
the corpus again. A file holds one layer, as parquet, so that other programs read it too.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.harvest.state.passage_values import EncodedBatch
from stratalens.models.batches import TokenBatch

if TYPE_CHECKING:
    import pyarrow


class BatchCodes(NamedTuple):
    """The codes of one batch, on the device: one entry for each latent that fires on a token, passage by passage."""

    passage: Int[Tensor, "entry"]
    """Number of the passage among those of the chunk."""
    position: Int[Tensor, "entry"]
    """Index of the token in the passage, special tokens included."""
    latent: Int[Tensor, "entry"]
    activation: Float[Tensor, "entry"]


class CodedPassage(NamedTuple):
    """A passage as it is kept."""

    content: int
    start: int
    end: int
    document: int
    population: int
    text: str
    token_ids: Int[np.ndarray, "seq"]
    """Special tokens included."""
    offsets: Int[np.ndarray, "seq 2"]
    """First character of each token in `text`, and one past its last; both 0 for special tokens."""
    whole: bool
    """Whether all passages of its document are kept; else it is here because a latent is strongest in it."""


def schema() -> "pyarrow.Schema":
    """Columns of a file of codes."""
    import pyarrow as pa

    numbers = pa.list_(pa.field("element", pa.int32(), nullable=False))
    activations = pa.list_(pa.field("element", pa.float32(), nullable=False))
    columns = {
        **dict.fromkeys(("content", "document"), pa.uint64()),
        **dict.fromkeys(("start", "end"), pa.int64()),
        **dict.fromkeys(("population", "entries"), pa.int32()),
        "whole": pa.bool_(),
        "text": pa.string(),
        **dict.fromkeys(("token_ids", "offsets", "position", "latent"), numbers),
        "activation": activations,
    }
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


PLACES = ("content", "start", "end", "document", "population", "whole")
"""Columns that say which passage a row is; `entries` is the number of its codes."""
ENTRIES = ("position", "latent", "activation")


def batch_codes(encoded: EncodedBatch, batch: TokenBatch, wanted: Bool[np.ndarray, "passage"]) -> BatchCodes:
    """The codes of the wanted passages of one batch, in the order of its rows."""
    row, position = encoded.keep.nonzero(as_tuple=True)
    token, latent, activation = encoded.latents
    kept = torch.from_numpy(wanted[batch.rows]).to(row.device)[row[token]]
    token = token[kept]
    passage_of_row = torch.from_numpy(batch.rows.astype(np.int32)).to(row.device)
    return BatchCodes(passage_of_row[row[token]], position[token].int(), latent[kept].int(), activation[kept])


def codes_table(passages: Mapping[int, CodedPassage], parts: Sequence[BatchCodes]) -> "pyarrow.Table":
    """Join the codes of some batches.

    Args:
        passages: number of a passage -> the passage, in rising order.
        parts: codes; those of other passages are left out.
    """
    import pyarrow as pa

    joined = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    entries = joined or [np.zeros(0, np.int32)] * 4
    place = np.full(1 + max(max(passages, default=0), entries[0].max(initial=0)), -1, np.int32)
    place[np.fromiter(passages, np.int64, len(passages))] = np.arange(len(passages))
    owner = place[entries[0]]
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    counts = np.bincount(owner[order], minlength=len(passages))
    own = list(passages.values())
    arrays: dict[str, Any] = {name: [getattr(passage, name) for passage in own] for name in (*PLACES, "text")}
    arrays["entries"] = counts.astype(np.int32)
    for name in ("token_ids", "offsets"):
        arrays[name] = _lists([getattr(passage, name).reshape(-1) for passage in own], np.int32)
    for name, column in zip(ENTRIES, entries[1:], strict=True):
        values = column[order].astype(np.float32 if name == "activation" else np.int32, copy=False)
        arrays[name] = pa.ListArray.from_arrays(_starts(counts), values, type=schema().field(name).type)
    return pa.table({name: arrays[name] for name in schema().names}, schema=schema())


def _lists(values: Sequence[np.ndarray], dtype: type) -> "pyarrow.Array":
    import pyarrow as pa

    joined = np.concatenate([np.zeros(0, dtype), *values]).astype(dtype)
    return pa.ListArray.from_arrays(_starts(list(map(len, values))), joined, type=schema().field("token_ids").type)


def _starts(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.cumsum([0, *counts]).astype(np.int32)
