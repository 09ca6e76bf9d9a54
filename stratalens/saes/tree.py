"""The files among which SAEs are looked for: those of a folder and of the folders in it, as far as limits allow."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAX_DEPTH = 8
MAX_ENTRIES = 50_000
"""Files and folders that are looked at."""


class SaeTree(NamedTuple):
    """A folder, or one file in it, that the user named."""

    root: Path
    files: tuple[Path, ...]
    """The nearest first, in the order of names; hidden ones are left out. Each begins with `root`."""

    @classmethod
    def of(cls, path: Path) -> "SaeTree":
        """Look at a folder, or at one file.

        Raises:
            OSError: it cannot be read.
        """
        return cls(path, tuple(_files(path))) if path.is_dir() else cls(path.parent, (path,))

    def named(self, expression: str) -> list[Path]:
        """Those of the files whose name, without folders, an expression describes wholly."""
        pattern = re.compile(expression)
        return [path for path in self.files if pattern.fullmatch(path.name)]

    def within(self, path: Path) -> str:
        """The path of a file or folder in the tree, as it is shown; that of the root is its name."""
        relative = path.relative_to(self.root).as_posix()
        return self.root.resolve().name if relative == "." else relative


def _files(root: Path) -> Iterator[Path]:
    folders, entries = [root], 0
    for _ in range(MAX_DEPTH):
        deeper: list[Path] = []
        for folder in folders:
            for path in sorted(folder.iterdir()):
                entries += 1
                if entries > MAX_ENTRIES:
                    return
                if path.name.startswith("."):
                    continue
                if path.is_dir():
                    deeper.append(path)
                else:
                    yield path
        folders = deeper
