"""Batches of passages: passages of similar length are packed together, and a batch too large for memory is halved."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stratalens.errors import CapacityError, counted
from stratalens.models.memory import out_of_memory, release_device_memory, release_free_memory

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded passages. No attention mask is needed: under causal attention no real position sees the padding."""

    rows: np.ndarray
    """Index of each row's passage in the packed list, `[batch]`."""
    input_ids: Int[Tensor, "batch seq"]
    countable: Bool[Tensor, "batch seq"]
    """False at padding, at special tokens and at position 0 (an attention sink even in models without BOS)."""
    lengths: np.ndarray
    """Tokens of each row, padding left out, `[batch]`."""

    @property
    def tokens(self) -> int:
        """Number of tokens in all rows, padding left out."""
        return int(self.lengths.sum())

    def halves(self) -> tuple["TokenBatch", "TokenBatch"]:
        """Split a batch of at least two rows in two, each padded only as far as its own longest row."""
        middle = (len(self.rows) + 1) // 2
        first, second = (self._part(rows) for rows in (slice(0, middle), slice(middle, None)))
        return first, second

    def _part(self, rows: slice) -> "TokenBatch":
        width = int(self.lengths[rows].max())
        ids, countable = self.input_ids[rows, :width], self.countable[rows, :width]
        return TokenBatch(self.rows[rows], ids, countable, self.lengths[rows])

    def to(self, device: torch.device) -> "TokenBatch":
        """Copy the batch with its tensors on another device."""
        return replace(self, input_ids=self.input_ids.to(device), countable=self.countable.to(device))


def pack_batches(
    sequences: Sequence[np.ndarray], batch_tokens: int, special_ids: Iterable[int], pad_id: int = 0
) -> Iterator[TokenBatch]:
    """Group sequences of similar length into batches, the longest first.

    A batch that does not fit into memory is therefore among the first.

    Args:
        sequences: token ids of each passage, `[seq]`.
        batch_tokens: most tokens of a batch, padding included; a batch has at least one row, however long.
        special_ids: ids of special tokens, which do not count.
        pad_id: id that fills the padding.

    Yields:
        Batches that together hold every sequence once.
    """
    lengths = np.asarray([len(sequence) for sequence in sequences])
    order = np.argsort(-lengths, kind="stable")
    first = 0
    special = torch.as_tensor(sorted(special_ids), dtype=torch.long)
    while first < len(order):
        width = int(lengths[order[first]])
        rows = order[first : first + max(1, batch_tokens // width)]
        input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        for row, index in enumerate(rows):
            input_ids[row, : lengths[index]] = torch.from_numpy(sequences[index])
        positions = torch.arange(width)
        countable = (positions < torch.from_numpy(lengths[rows])[:, None]) & (positions > 0)
        countable &= ~torch.isin(input_ids, special)
        yield TokenBatch(rows, input_ids, countable, lengths[rows])
        first += len(rows)


@dataclass
class BatchRunner:
    """Calls a function on batches and halves those that do not fit into memory."""

    batch_tokens: int
    """Most tokens of a batch, padding included; lowered when a batch did not fit."""
    batches_split: int = 0
    """Number of batches that were halved."""

    def run(self, batch: TokenBatch, work: Callable[[TokenBatch], Outcome]) -> Iterator[Outcome]:
        """Yield the result of `work` on a batch or, if memory does not suffice, on its halves one after the other.

        Args:
            batch: passages.
            work: a function of a batch; it must change nothing when it fails.

        Raises:
            CapacityError: a single passage does not fit.
        """
        try:
            outcome = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        else:
            yield outcome
            return
        # Outside the except clause, because the memory of the failed attempt is freed only when that clause ends.
        self._shrink_batch(batch)
        for half in batch.halves():
            yield from self.run(half, work)

    def _shrink_batch(self, batch: TokenBatch) -> None:
        if len(batch.rows) == 1:
            raise passage_too_large(batch.tokens)
        self.batches_split += 1
        self.batch_tokens = min(self.batch_tokens, batch.input_ids.numel() // 2)
        release_device_memory()
        release_free_memory()


def passage_too_large(tokens: int) -> CapacityError:
    """The error for a passage that does not fit into memory by itself."""
    return CapacityError(
        f"out of memory with a single passage of {counted(tokens, 'token')}; analyse fewer or shallower "
        "layers at once (--layers, --memory_gb), lower --max_length, or use --dtype bfloat16 or --load_in 8bit"
    )
