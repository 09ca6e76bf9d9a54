"""How a run tells what it is doing. The library prints nothing; the command line listens and prints."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Advance = Callable[[int, int], None]
"""Called with the rows and the tokens that were done since the last call."""


@runtime_checkable
class Progress(Protocol):
    """Is told how a run gets on."""

    def say(self, message: str) -> None:
        """A fact worth a line."""
        ...

    def warn(self, message: str) -> None:
        """Something that limits what the results mean."""
        ...

    def track(self, title: str, rows: int | None) -> AbstractContextManager[Advance]:
        """Follow a long piece of work of so many rows; None where nobody knows yet."""
        ...

    def stage(self, name: str) -> None:
        """A stage of the run begins and lasts until the next one does."""
        ...


class NoProgress:
    """Ignores everything it is told."""

    def say(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        """Ignore."""
        yield lambda _rows, _tokens: None

    def stage(self, name: str) -> None:
        """Ignore."""


class TimedProgress:
    """Passes everything on and measures how long each stage takes.

    Args:
        listener: is told everything.
        started: when the first stage, `start`, began, as `time.perf_counter` counts; None for now.
    """

    def __init__(self, listener: Progress, started: float | None = None):
        self.say, self.warn, self.track = listener.say, listener.warn, listener.track
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
        """Stage -> seconds so far, in the order in which stages began; a stage that came twice is added up."""
        current = time.perf_counter() - self._began
        return self._seconds | {self._current: self._seconds.get(self._current, 0.0) + current}
