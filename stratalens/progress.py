"""Progress reports of a run: the library calls a `Progress`; the command line passes one that prints."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Advance = Callable[[int, int], None]
"""Function to call with the numbers of rows and of tokens that were done since the last call."""


@runtime_checkable
class Progress(Protocol):
    """Receives what a run reports while it works."""

    def say(self, message: str) -> None:
        """Report a fact, as one line."""
        ...

    def warn(self, message: str) -> None:
        """Report something that limits what the results mean."""
        ...

    def disclose(self, message: str) -> None:
        """Report where text of the user is sent. This is never silenced."""
        ...

    def track(self, title: str, rows: int | None) -> AbstractContextManager[Advance]:
        """Report the progress of a long task.

        Args:
            title: what is being done.
            rows: how many rows it has; None where the number is not known yet.
        """
        ...

    def stage(self, name: str) -> None:
        """Report that a stage of the run begins; it lasts until the next stage begins."""
        ...


class NoProgress:
    """A `Progress` that ignores everything but where text is sent, which is logged as a warning."""

    def say(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""

    def disclose(self, message: str) -> None:
        """Log it. Python prints warnings of a program without logging on standard error."""
        logging.getLogger("stratalens").warning(message)

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        """Ignore."""
        yield lambda _rows, _tokens: None

    def stage(self, name: str) -> None:
        """Ignore."""


class TimedProgress:
    """A `Progress` that passes everything to another one and measures how long each stage takes.

    Args:
        listener: receives everything.
        started: `time.perf_counter()` at the beginning of the first stage, `start`; None for the time of this call.
    """

    def __init__(self, listener: Progress, started: float | None = None):
        self.say, self.warn, self.disclose, self.track = listener.say, listener.warn, listener.disclose, listener.track
        self._listener = listener
        self._began = time.perf_counter() if started is None else started
        self._current = "start"
        self._seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """End the current stage and begin another."""
        self._seconds = self.seconds()
        self._current, self._began = name, time.perf_counter()
        self._listener.stage(name)

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds so far, in the order in which stages began; a stage that ran twice counts both times."""
        current = time.perf_counter() - self._began
        return self._seconds | {self._current: self._seconds.get(self._current, 0.0) + current}
