"""Requests of several threads, answered together: a language model reads a batch in little more time than one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

GATHER_SECONDS = 0.1
"""A batch that is not full waits for more requests until none came for so long. An answer takes seconds."""


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Request, Answer]):
    request: Request
    answer: Future[Answer] = field(default_factory=Future)


class RequestBatches(Generic[Request, Answer]):
    """Gathers requests; one of the threads that wait works on a batch for all of them.

    Args:
        size: most requests of a batch.
        work: answers a batch: for each request its answer, or the error that is raised where it was asked.
    """

    def __init__(self, size: int, work: Callable[[Sequence[Request]], Sequence[Answer | Exception]]):
        self._size = size
        self._work = work
        self._changed = threading.Condition()
        self._waiting: list[_Waiting[Request, Answer]] = []
        self._busy = False

    def answer(self, request: Request) -> Answer:
        """Wait for the answer to a request, or work on the batch that it is in.

        Raises:
            Exception: what `work` raised, or returned for this request.
        """
        own: _Waiting[Request, Answer] = _Waiting(request)
        with self._changed:
            self._waiting.append(own)
            self._changed.notify_all()
        while not own.answer.done():
            with self._changed:
                self._changed.wait_for(lambda: own.answer.done() or not self._busy)
                if own.answer.done():
                    break
                self._busy = True
                batch = self._next_batch()
            self._answer_batch(batch)
            with self._changed:
                self._busy = False
                self._changed.notify_all()
        return own.answer.result()

    def _next_batch(self) -> list[_Waiting[Request, Answer]]:
        """Take the requests that wait, and those that come soon. Threads whose answers are there go on meanwhile."""
        seen = 0
        while seen < len(self._waiting) < self._size:
            seen = len(self._waiting)
            self._changed.wait(GATHER_SECONDS)
        batch, self._waiting = self._waiting[: self._size], self._waiting[self._size :]
        return batch

    def _answer_batch(self, batch: list[_Waiting[Request, Answer]]) -> None:
        try:
            answers = self._work([one.request for one in batch])
        except BaseException as problem:
            for one in batch:
                one.answer.set_exception(problem)
            return
        for one, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)
