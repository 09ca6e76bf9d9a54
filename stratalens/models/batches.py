"""Batches that do not fit into memory: halved until they do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from stratalens.errors import CapacityError
from stratalens.models.memory import out_of_memory, release_free_memory
from stratalens.models.tokens import TokenBatch

Result = TypeVar("Result")


@dataclass
class Room:
    """How much fits into memory at once, as far as it was found out."""

    batch_tokens: int
    """Tokens a batch, padding included."""
    batches_split: int = 0

    def read(self, batch: TokenBatch, attempt: Callable[[TokenBatch], Result]) -> Iterator[Result]:
        """Do something with a batch; where memory does not suffice, with its halves one after the other.

        Args:
            batch: passages.
            attempt: leaves no trace when it fails.

        Raises:
            CapacityError: a single passage does not fit.
        """
        try:
            result = attempt(batch)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        else:
            yield result
            return
        self._make(batch)  # only here, behind the handler, is what the failed attempt held free again
        for half in batch.halves():
            yield from self.read(half, attempt)

    def _make(self, batch: TokenBatch) -> None:
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
