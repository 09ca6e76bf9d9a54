"""Run a model on several batches beside each other: one batch alone leaves the cores idle between its operations."""

import copy
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from queue import SimpleQueue
from typing import NamedTuple, TypeVar

import torch
from torch import nn

Outcome = TypeVar("Outcome")
Work = Callable[[nn.Module], Outcome]
Start = Callable[[Work[Outcome]], Callable[[], Outcome]]
"""Begins some work with a model; what it returns waits for the work and returns its outcome."""


class Division(NamedTuple):
    """How the threads of the CPU are divided."""

    streams: int
    """Batches that are read at the same time."""
    threads: int
    """Threads that compute each of them."""
    ahead: bool
    """Whether work begins at once, beside the thread that starts it, or when its outcome is waited for."""


@cache
def has_bfloat16_units() -> bool:
    """Whether float32 products on this CPU may use units for bfloat16, which are faster by a multiple.

    PyTorch allows it for the whole process or not at all, so that no other thread may compute at the same time.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return platform.machine() == "aarch64" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def division_of(device: torch.device) -> Division:
    """How many batches to read at the same time: two on the CPU, each with half of the threads; else one.

    A GPU is kept busy by one batch, as long as it need not wait for what the CPU makes of the last ones. On two cores,
    a forward pass of SmolLM2-135M in two batches of 1,024 tokens reads 1.18 times as many tokens a second as in one of
    4,096.
    """
    threads = torch.get_num_threads()
    beside = device.type == "cpu" and threads > 1 and not has_bfloat16_units()
    return Division(2, threads // 2, ahead=True) if beside else Division(1, threads, ahead=device.type != "cpu")


@dataclass(frozen=True)
class Streams:
    """Reads batches in threads, each with modules of its own, so that hooks do not meet; they share their weights."""

    models: tuple[nn.Module, ...]
    """One for each batch that is read at the same time."""
    threads: int
    """Threads that compute each batch."""
    ahead: bool
    """See `Division`; several streams must."""

    @classmethod
    def of(cls, model: nn.Module, division: Division) -> "Streams":
        """Make copies of the modules of a model, which have the same weights."""
        shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        copies = (copy.deepcopy(model, dict(shared)) for _ in range(division.streams - 1))
        return cls((model, *copies), division.threads, division.ahead)

    @property
    def number(self) -> int:
        """Batches that are read at the same time."""
        return len(self.models)

    @contextmanager
    def open(self) -> Iterator[Start]:
        """While open, work can be started."""
        if not self.ahead:
            yield lambda work: partial(_work_with, self.models[0], work)
            return
        free = SimpleQueue[nn.Module]()
        for model in self.models:
            free.put(model)

        def run(work: Work[Outcome]) -> Outcome:
            model = free.get()
            try:
                return _work_with(model, work)
            finally:
                free.put(model)

        threads_before = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.number, "batches", initializer=torch.set_num_threads, initargs=(self.threads,))
        try:
            yield lambda work: pool.submit(run, work).result
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads_before)  # for threads that start later; those that run keep their own number


def _work_with(model: nn.Module, work: Work[Outcome]) -> Outcome:
    with torch.inference_mode():
        return work(model)
