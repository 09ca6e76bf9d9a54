"""Values of single passages of one layer: what one batch leaves, and the columns of many."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.models.batches import TokenBatch
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.sae import SparseLatents

EARLY_SHARE = 0.1


class PassageValues(NamedTuple):
    """One layer's values of a set of passages: a sparse table with a row for each latent that fired in a passage."""

    population: Int[np.ndarray, "passage"]
    tokens: Int[np.ndarray, "passage"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "passage"]
    """Positions before sinks are dropped."""
    kept_positions: Int[np.ndarray, "passage"]
    norm_sum: Float[np.ndarray, "passage"]
    """Sum of hookpoint norms over kept positions."""
    residual_mean: Float[np.ndarray, "passage d_model"]
    """Mean hookpoint vector over kept positions."""
    passage: Int[np.ndarray, "entry"]
    latent: Int[np.ndarray, "entry"]
    mean: Float[np.ndarray, "entry"]
    """m[p, f]: mean activation over the passage's kept positions."""
    maximum: Float[np.ndarray, "entry"]
    """x[p, f]: maximum over kept positions."""
    positions_fired: Int[np.ndarray, "entry"]
    class_mass: Float[np.ndarray, "entry token_class"]
    """Activation summed by class of the token it fires on."""
    early_mass: Float[np.ndarray, "entry"]
    """Activation summed over the first tenth of the passage."""


class Encoded(NamedTuple):
    """What one batch leaves of one layer, still on the device."""

    keep: Bool[Tensor, "batch seq"]
    norm_sum: Float[Tensor, "batch"]
    residual_sum: Float[Tensor, "batch d_model"]
    latents: SparseLatents
    """Of the kept positions, row by row."""


@contextmanager
def _fixed_order() -> Iterator[None]:
    """Let sums on cuda add in a fixed order, so that the same batch gives the same bytes."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(torch.cuda.is_available() or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def reduce(
    encoded: Encoded, batch: TokenBatch, num_latents: int, token_classes: Int[Tensor, "vocabulary"]
) -> dict[str, np.ndarray]:
    """Columns of `PassageValues` from one batch; work and memory go by what fired, not by the width of the SAE."""
    row, position = encoded.keep.nonzero(as_tuple=True)
    values, slots = encoded.latents.values, encoded.latents.values > 0
    token = slots.nonzero()[:, 0]
    activation = values[slots]
    keys, entry = torch.unique(row[token] * num_latents + encoded.latents.indices[slots], return_inverse=True)
    lengths = torch.from_numpy(batch.lengths).to(row.device)
    early = (position < EARLY_SHARE * lengths[row])[token]
    kind = token_classes[batch.input_ids[row, position]][token]
    size, classes, device = len(keys), len(TOKEN_CLASSES), row.device
    with _fixed_order():
        total = torch.zeros(size, device=device).scatter_add_(0, entry, activation)
        mass = torch.zeros(size * classes, device=device).scatter_add_(0, entry * classes + kind, activation)
        early_mass = torch.zeros(size, device=device).scatter_add_(0, entry[early], activation[early])
    maximum = torch.zeros(size, device=device).scatter_reduce_(0, entry, activation, "amax")
    kept = encoded.keep.sum(1)
    passage = keys // num_latents
    columns = {
        "countable_positions": batch.countable.sum(1),
        "kept_positions": kept,
        "norm_sum": encoded.norm_sum,
        "residual_mean": encoded.residual_sum / kept.clamp(min=1)[:, None],
        "passage": passage,
        "latent": keys % num_latents,
        "mean": total / kept[passage],
        "maximum": maximum,
        "positions_fired": torch.bincount(entry, minlength=size),
        "class_mass": mass.view(size, classes),
        "early_mass": early_mass,
    }
    arrays = {name: column.cpu().numpy() for name, column in columns.items()}
    return arrays | {"batch_row": batch.rows, "passage": batch.rows[arrays["passage"]]}
