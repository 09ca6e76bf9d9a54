"""Batches of passages: packed by like length, and halved where they do not fit into memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stratalens.errors import CapacityError
from stratalens.models.memory import out_of_memory, release_free_memory

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded passages. Padding needs no attention mask: under causal attention no kept position sees it."""

    rows: np.ndarray
    """Index of each row's passage in the list that was packed, `[batch]`."""
    input_ids: Int[Tensor, "batch seq"]
    countable: Bool[Tensor, "batch seq"]
    """False at padding, at special tokens and at position 0 (an attention sink even in models without BOS)."""

    lengths: np.ndarray
    """Tokens a row, padding left out, `[batch]`."""

    @property
    def tokens(self) -> int:
        """Tokens of all rows, padding left out."""
        return int(self.lengths.sum())

    def halves(self) -> tuple["TokenBatch", "TokenBatch"]:
        """The batch as two, each padded no more than its own rows need; it has at least two rows."""
        middle = (len(self.rows) + 1) // 2
        first, second = (self._part(rows) for rows in (slice(0, middle), slice(middle, None)))
        return first, second

    def _part(self, rows: slice) -> "TokenBatch":
        width = int(self.lengths[rows].max())
        ids, countable = self.input_ids[rows, :width], self.countable[rows, :width]
        return TokenBatch(self.rows[rows], ids, countable, self.lengths[rows])

    def to(self, device: torch.device) -> "TokenBatch":
        """The same batch with its tensors on another device."""
        return replace(self, input_ids=self.input_ids.to(device), countable=self.countable.to(device))


def pack_batches(
    sequences: Sequence[np.ndarray], batch_tokens: int, special_ids: Iterable[int], pad_id: int = 0
) -> Iterator[TokenBatch]:
    """Group sequences of like length into batches of at most `batch_tokens` tokens, padding included.

    Longest first, so that a batch that does not fit in memory shows at once. A batch always has at least one row.
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
    """Runs work on batches, and halves those that do not fit into memory."""

    batch_tokens: int
    """Tokens a batch, padding included; fewer after a batch did not fit."""
    batches_split: int = 0

    def run(self, batch: TokenBatch, work: Callable[[TokenBatch], Outcome]) -> Iterator[Outcome]:
        """Yield what the work gives for a batch; where memory does not suffice, for its halves one after the other.

        Args:
            batch: passages.
            work: must change nothing when it fails.

        Raises:
            CapacityError: a single passage does not fit.
        """
        try:
            outcome = work(batch)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        else:
            yield outcome
            return
        # Outside of the handler: only here is the memory that the failed attempt held free again.
        self._shrink_batch(batch)
        for half in batch.halves():
            yield from self.run(half, work)

    def _shrink_batch(self, batch: TokenBatch) -> None:
        if len(batch.rows) == 1:
            raise CapacityError(
                f"out of memory with a single passage of {batch.tokens} tokens; analyse fewer or shallower layers at "
                "once (--layers, --memory_gb), lower --max_length, or use --dtype bfloat16 or --load_in 8bit"
            )
        self.batches_split += 1
        self.batch_tokens = min(self.batch_tokens, batch.input_ids.numel() // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        release_free_memory()
