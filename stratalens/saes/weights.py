"""Read the arrays of a safetensors file by blocks of rows, so that of a wide SAE no second copy is in memory."""

import errno
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stratalens.errors import CheckpointError
from stratalens.files.regular import named_when_out_of_memory, reason_of
from stratalens.models.model_files import require_own_file

BLOCK_ELEMENTS = 2**20
"""Numbers in a block of rows."""
WIDE_ELEMENTS = 2**24
"""The weights of an encoder are wide from so many on, and then in bfloat16 where that loses nothing.

Products are then made by blocks of rows. That takes no longer where they are large (131,072 x 1,024, 512 tokens: 743 ms
in float32, 744 in bfloat16), and 5 to 9% where they are small (2,304 x 576), which therefore stay in float32.
"""
FLOATING_POINT_PREFIXES = ("F", "BF")
"""Prefixes of the names of floating-point types in a safetensors header."""
KEPT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types in which rows stay as they are stored until they are used."""


class Header(NamedTuple):
    """What a file holds; no number of it was read."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    """Name of an array -> its shape."""
    dtypes: dict[str, str]
    """Name of an array -> its type, such as `BF16`."""

    def require(self, expected: Mapping[str, tuple[int, ...]], source: str) -> None:
        """Check that there are some arrays of floating-point numbers.

        Args:
            expected: name -> shape.
            source: what says so, for the message.

        Raises:
            CheckpointError: one is missing, or of another shape or type.
        """
        for name, shape in expected.items():
            if name not in self.shapes:
                found = ", ".join(sorted(self.shapes)) or "none"
                raise CheckpointError(f"{self.path}: no tensor `{name}` (found: {found})")
            if not self.dtypes[name].startswith(FLOATING_POINT_PREFIXES):
                raise CheckpointError(
                    f"{self.path}: `{name}` holds {self.dtypes[name]}, but floating-point numbers are expected"
                )
            if self.shapes[name] != shape:
                raise CheckpointError(
                    f"{self.path}: `{name}` has shape {list(self.shapes[name])}, but {source} says {list(shape)}"
                )


def read_header(path: Path) -> Header:
    """Read names, shapes and types of the arrays of a file.

    Raises:
        CheckpointError: the file is missing, a link out of its folder, truncated or corrupt.
    """
    with named_when_out_of_memory(path), _opened(path) as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        shapes = {name: tuple(array.get_shape()) for name, array in slices.items()}
        return Header(path, shapes, {name: str(array.get_dtype()) for name, array in slices.items()})


def read_array(path: Path, name: str, *, narrow: bool = False) -> Tensor:
    """Read an array of finite numbers as float32.

    Args:
        path: the file.
        name: of the array.
        narrow: whether a wide array may be bfloat16 where that represents all of its numbers.

    Raises:
        CheckpointError: the file is truncated or corrupt, or a number is not finite.
        CapacityError: there is not enough memory for it.
    """
    with named_when_out_of_memory(path):
        with _opened(path) as tensors:
            shape = tensors.get_slice(name).get_shape()
        may_be_narrow = narrow and math.prod(shape) >= WIDE_ELEMENTS
        array = torch.empty(shape, dtype=torch.bfloat16 if may_be_narrow else torch.float32)
        row = 0
        for block in _blocks(path, name):
            if array.dtype == torch.bfloat16 and not is_bfloat16(block):
                array = torch.empty(shape).copy_(array)
            array[row : row + len(block)] = block
            row += len(block)
    return array


def mapped_rows(path: Path, name: str) -> Float[Tensor, "row column"]:
    """The rows of an array of finite numbers, in the type of the file: only rows that are used take memory.

    Raises:
        CheckpointError: the file is truncated or corrupt, or a number is not finite.
        CapacityError: there is not enough memory for it.
    """
    with named_when_out_of_memory(path):
        for _ in _blocks(path, name):
            pass
        with _opened(path) as tensors:
            rows = tensors.get_tensor(name)
        return rows if rows.dtype in KEPT_TYPES else rows.float()


def is_bfloat16(numbers: Float[Tensor, "..."]) -> bool:
    """Whether bfloat16 represents all numbers exactly."""
    return torch.equal(numbers.bfloat16().to(numbers.dtype), numbers)


def row_blocks(rows: Float[Tensor, "row column"]) -> tuple[Float[Tensor, "block column"], ...]:
    """Split rows into blocks of about `BLOCK_ELEMENTS` numbers."""
    return rows.split(max(1, BLOCK_ELEMENTS // max(1, rows[:1].numel())))


def of_rows(
    rows: Float[Tensor, "row column"],
    compute: Callable[[Float[Tensor, "block column"]], Float[Tensor, "block"]],
    dtype: torch.dtype,
) -> Float[Tensor, "row"]:
    """Compute a number of each row, block by block.

    The result has its place before: small results between large temporary arrays would leave the heap full of holes.
    """
    numbers, blocks = torch.empty(len(rows), dtype=dtype), row_blocks(rows)
    for block, place in zip(blocks, numbers.split(len(blocks[0])), strict=True):
        place.copy_(compute(block))
    return numbers


def _blocks(path: Path, name: str) -> Iterator[Tensor]:
    """Yield an array in blocks of rows, as float32.

    Each block is mapped by itself: pages that were read count as memory of the process for as long as they are mapped.
    """
    with _opened(path) as tensors:
        shape = tensors.get_slice(name).get_shape()
    rows = max(1, BLOCK_ELEMENTS // max(1, shape[1] if len(shape) > 1 else 1))
    for row in range(0, shape[0], rows):
        with _opened(path) as tensors:
            block = tensors.get_slice(name)[row : row + rows].float()
        if not bool(torch.isfinite(block).all()):
            raise CheckpointError(f"{path}: `{name}` holds NaN or infinite values; the checkpoint is damaged")
        yield block


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """Open a file, and turn what the library says into one line.

    Raises:
        CheckpointError: the file is missing, a link out of its folder, truncated or corrupt.
        MemoryError: there is no room for it.
    """
    try:
        require_own_file(path, CheckpointError)
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM or "annot allocate memory" in str(error):
            raise MemoryError from None
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """The error for a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{path}: missing")
    reason = (reason_of(error).splitlines() or ["unreadable"])[0]
    return CheckpointError(f"{path}: truncated or corrupt ({reason}); copy or download it again")
