"""How a run tells what it is doing. The library is silent; the command line listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Advance = Callable[[int, int], None]
"""Called with the rows and the tokens that were done since the last call."""


@runtime_checkable
class Listener(Protocol):
    """Hears of a run's progress."""

    def say(self, message: str) -> None:
        """A fact worth a line."""
        ...

    def warn(self, message: str) -> None:
        """Something that limits what the results mean."""
        ...

    def track(self, title: str, rows: int | None) -> AbstractContextManager[Advance]:
        """Follow a long stage of so many rows; None where nobody knows yet."""
        ...


class Silence:
    """Hears nothing."""

    def say(self, message: str) -> None:
        """Ignore."""

    def warn(self, message: str) -> None:
        """Ignore."""

    @contextmanager
    def track(self, title: str, rows: int | None) -> Iterator[Advance]:
        """Ignore."""
        yield lambda _rows, _tokens: None
