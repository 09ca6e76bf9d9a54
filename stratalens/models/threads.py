"""Do a piece of work for each of several things, as many at a time as PyTorch may use threads."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_threads(work: Callable[[Item], Outcome], items: Iterable[Item]) -> list[Outcome]:
    """The outcome for each thing, in their order; faster than a loop where the work is mostly done by NumPy."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(work, items))
