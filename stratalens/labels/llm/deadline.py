"""Stop waiting for work that others can prolong without end: a server that trickles, a template that loops."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """Do work in a thread of its own and wait for it at most this long.

    Work that takes longer is left alone; it does not keep the program from ending.

    Raises:
        TimeoutError: it is not done in time.
        Exception: whatever the work raises.
    """
    outcome: Future[T] = Future()

    def do() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    return outcome.result(timeout=seconds)
