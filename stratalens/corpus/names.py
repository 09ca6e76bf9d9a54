"""Short names that many rows share, such as kinds and sources, kept as numbers."""

from array import array

import numpy as np
from jaxtyping import Int16

MAX_KIND_CHARACTERS = 64
NO_NAME = -1
"""Number of a row without a name."""


def plain_name(name: str) -> str:
    """A name that any file can hold: bytes of a file name that are not UTF-8 stand as `\\udce9`."""
    return name.encode("utf-8", "backslashreplace").decode()


class Names:
    """The names of rows, of which there are at most `limit` different ones."""

    def __init__(self, limit: int):
        self._limit = limit
        self._number: dict[str, int] = {}
        self._rows = array("h")

    @property
    def too_many(self) -> bool:
        """Whether there were more different names than the limit; those of later rows may be lost."""
        return len(self._number) > self._limit

    def add(self, name: str | None) -> None:
        """Add the name of one more row."""
        if name is None or self.too_many:
            self._rows.append(NO_NAME)
        else:
            self._rows.append(self._number.setdefault(name, len(self._number)))

    def sorted(self) -> tuple[tuple[str, ...], Int16[np.ndarray, "row"]]:
        """The names in order, and the number of each row's; no names at all if there were too many."""
        rows = np.frombuffer(self._rows, np.int16) if self._rows else np.zeros(0, np.int16)
        if self.too_many:
            return (), np.full(len(rows), NO_NAME, np.int16)
        names = sorted(self._number)
        rank = np.full(len(names) + 1, NO_NAME, np.int16)  # the last one is that of NO_NAME
        rank[[self._number[name] for name in names]] = np.arange(len(names))
        return tuple(names), rank[rows]
