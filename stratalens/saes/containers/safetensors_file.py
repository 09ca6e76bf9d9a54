"""Read the arrays of a safetensors file."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stratalens.errors import CheckpointError
from stratalens.models.model_files import require_own_file
from stratalens.saes.containers.header import Header, unreadable


def header(path: Path) -> Header:
    """See `Container`."""
    with _opened(path) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        shapes = {name: tuple(array.get_shape()) for name, array in slices.items()}
        return Header(path, shapes, {name: str(array.get_dtype()) for name, array in slices.items()})


def blocks(path: Path, name: str, rows: int) -> Iterator[Tensor]:
    """See `Container`.

    Each block is mapped by itself: pages that were read count as memory of the process for as long as they are mapped.
    """
    with _opened(path) as tensors:
        shape = tensors.get_slice(name).get_shape()
        if not shape:
            yield tensors.get_tensor(name)
            return
    for row in range(0, shape[0], rows):
        with _opened(path) as tensors:
            yield tensors.get_slice(name)[row : row + rows]


def whole(path: Path, name: str) -> Tensor:
    """See `Container`; the array is mapped."""
    with _opened(path) as tensors:
        return tensors.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a file, and turn what the library says into one line."""
    try:
        require_own_file(path, CheckpointError)
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM or "annot allocate memory" in str(error):
            raise MemoryError from None
        raise unreadable(path, error) from None
