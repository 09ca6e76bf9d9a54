"""Files of named arrays: safetensors, npz and what torch saves. Only arrays and plain values are ever read of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from stratalens.errors import CheckpointError
from stratalens.saes.containers import npz_file, safetensors_file, torch_file
from stratalens.saes.containers.header import Header


@runtime_checkable
class Container(Protocol):
    """What a module must have to read files of named arrays."""

    def header(self, path: Path) -> Header:
        """Read names, shapes and types of the arrays, and as little more as the file allows.

        Raises:
            CheckpointError: the file is missing, a link out of its folder, truncated, corrupt, or holds code.
            MemoryError: there is no room for it.
        """
        ...

    def blocks(self, path: Path, name: str, rows: int) -> Iterator[Tensor]:
        """Yield an array in blocks of so many rows, in the type of the file.

        Raises:
            CheckpointError: see `header`.
            MemoryError: there is no room for it.
        """
        ...

    def whole(self, path: Path, name: str) -> Tensor:
        """An array in the type of the file; mapped where the file allows it, so that rows take memory when used.

        Raises:
            CheckpointError: see `header`.
            MemoryError: there is no room for it.
        """
        ...


CONTAINERS: dict[str, Container] = {
    ".safetensors": safetensors_file,
    ".npz": npz_file,
    ".pt": torch_file,
    ".pth": torch_file,
    ".bin": torch_file,
}
"""End of a file's name -> what reads it."""


def container_of(path: Path) -> Container:
    """What reads a file of arrays, by its name.

    Raises:
        CheckpointError: no container has such names.
    """
    if path.suffix not in CONTAINERS:
        raise CheckpointError(f"{path}: not a file of arrays; expected a name that ends in {', '.join(CONTAINERS)}")
    return CONTAINERS[path.suffix]
