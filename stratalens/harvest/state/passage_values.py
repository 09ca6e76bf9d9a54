"""Values of single passages of one layer, reduced from the activations of batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stratalens.models.batches import TokenBatch
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.activations import SparseLatents

EARLY_SHARE = 0.1
"""The tokens of this first share of a passage count as early."""


class PassageValues(NamedTuple):
    """One layer's values of a set of passages.

    The entries are a sparse table: one for each passage and latent that fires in it.
    """

    population: Int[np.ndarray, "passage"]
    tokens: Int[np.ndarray, "passage"]
    """Tokens fed to the model, special ones included."""
    countable_positions: Int[np.ndarray, "passage"]
    """Positions that count before sinks are dropped: neither first, nor special tokens."""
    kept_positions: Int[np.ndarray, "passage"]
    """Countable positions that are no sinks."""
    norm_sum: Float[np.ndarray, "passage"]
    """Sum of hookpoint norms over kept positions."""
    residual_mean: Float[np.ndarray, "passage d_model"]
    """Mean hookpoint vector over kept positions."""
    passage: Int[np.ndarray, "entry"]
    """Index of the entry's passage in the set."""
    latent: Int[np.ndarray, "entry"]
    mean: Float[np.ndarray, "entry"]
    """Mean activation over the passage's kept positions, m[p, f]."""
    maximum: Float[np.ndarray, "entry"]
    """Maximum activation over kept positions, x[p, f]."""
    positions_fired: Int[np.ndarray, "entry"]
    """Kept positions at which the latent fires."""
    class_mass: Float[np.ndarray, "entry token_class"]
    """Activation summed by class of the token at which it occurs."""
    early_mass: Float[np.ndarray, "entry"]
    """Activation summed over the first tenth of the passage."""


class EncodedBatch(NamedTuple):
    """One batch as encoded by one layer's SAE, still on the device."""

    keep: Bool[Tensor, "batch seq"]
    """Whether a position is kept."""
    norm_sum: Float[Tensor, "batch"]
    """Sum of hookpoint norms over kept positions."""
    residual_sum: Float[Tensor, "batch d_model"]
    """Sum of hookpoint vectors over kept positions."""
    latents: SparseLatents
    """Latents at the kept positions, row by row."""


@contextmanager
def _deterministic_sums(device: torch.device) -> Iterator[None]:
    """Make sums on cuda add in a fixed order, so that the same batch gives the same bytes.

    The setting is that of the process: on other devices, where threads may read batches beside each other, it stays.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def _unique(keys: Int[Tensor, "entry"]) -> tuple[Int[Tensor, "key"], Int[Tensor, "entry"]]:
    """The different keys in rising order, and the index of each entry's key.

    Taken on the CPU for mps, where it is reported to be wrong for keys above 2^24.
    """
    there = keys.cpu() if keys.device.type == "mps" else keys
    unique, entry = torch.unique(there, return_inverse=True)
    return unique.to(keys.device), entry.to(keys.device)


def reduce_batch(
    encoded: EncodedBatch, batch: TokenBatch, num_latents: int, token_classes: Int[Tensor, "vocabulary"]
) -> dict[str, Tensor]:
    """Reduce one batch to columns of `PassageValues`; cost depends on how many latents fire, not on the SAE's width.

    Args:
        encoded: latents of the batch.
        batch: its tokens.
        num_latents: width of the SAE.
        token_classes: class of each token id.

    Returns:
        The columns by name, on the device, without `population` and `tokens`; `batch_row` is the passage of each row
        of the batch.
    """
    row, position = encoded.keep.nonzero(as_tuple=True)
    token, latent, activation = encoded.latents
    keys, entry = _unique(row[token] * num_latents + latent)
    lengths = torch.from_numpy(batch.lengths).to(row.device)
    early = (position < EARLY_SHARE * lengths[row])[token]
    token_class = token_classes[batch.input_ids[row, position]][token]
    size, classes, device = len(keys), len(TOKEN_CLASSES), row.device
    with _deterministic_sums(device):
        total = torch.zeros(size, device=device).scatter_add_(0, entry, activation)
        mass = torch.zeros(size * classes, device=device).scatter_add_(0, entry * classes + token_class, activation)
        early_mass = torch.zeros(size, device=device).scatter_add_(0, entry[early], activation[early])
    maximum = torch.zeros(size, device=device).scatter_reduce_(0, entry, activation, "amax")
    kept = encoded.keep.sum(1)
    passage = keys // num_latents
    passage_of_row = torch.from_numpy(batch.rows).to(device)
    return {
        "countable_positions": batch.countable.sum(1),
        "kept_positions": kept,
        "norm_sum": encoded.norm_sum,
        "residual_mean": encoded.residual_sum / kept.clamp(min=1)[:, None],
        "batch_row": passage_of_row,
        "passage": passage_of_row[passage],
        "latent": keys % num_latents,
        "mean": total / kept[passage],
        "maximum": maximum,
        "positions_fired": torch.bincount(entry, minlength=size),
        "class_mass": mass.view(size, classes),
        "early_mass": early_mass,
    }
