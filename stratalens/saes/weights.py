"""Read the arrays of a checkpoint by blocks of rows, so that of a wide SAE no second copy is in memory."""

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from stratalens.errors import CheckpointError
from stratalens.files.regular import named_when_out_of_memory, open_regular
from stratalens.models.model_files import require_own_file
from stratalens.saes.containers import Container, container_of
from stratalens.saes.containers.header import Header, unreadable

BLOCK_ELEMENTS = 2**20
"""Numbers in a block of rows."""
WIDE_ELEMENTS = 2**24
"""The weights of an encoder are wide from so many on, and then in bfloat16 where that loses nothing.

Products are then made by blocks of rows. That takes no longer where they are large (131,072 x 1,024, 512 tokens: 743 ms
in float32, 744 in bfloat16), and 5 to 9% where they are small (2,304 x 576), which therefore stay in float32.
"""
TURNED_ROWS = 32
"""Stored rows that are read together where they become columns: writing columns one by one is slow."""
KEPT_TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types in which rows stay as they are stored until they are used."""
MAX_LISTED_NUMBERS = 2**20
"""Of an array that is read as a list."""


def read_header(path: Path) -> Header:
    """Read names, shapes and types of the arrays of a file.

    Raises:
        CheckpointError: the file is missing, a link out of its folder, truncated, corrupt, or holds code.
    """
    with named_when_out_of_memory(path):
        return container_of(path).header(path)


def read_array(path: Path, name: str, *, narrow: bool = False, turned: bool = False) -> Tensor:
    """Read an array of finite numbers as float32.

    Args:
        path: the file.
        name: of the array.
        narrow: whether a wide array may be bfloat16 where that represents all of its numbers.
        turned: whether the two axes are exchanged: `[a, b]` in the file becomes `[b, a]`.

    Raises:
        CheckpointError: the file is truncated or corrupt, or a number is not finite.
        CapacityError: there is not enough memory for it.
    """
    with named_when_out_of_memory(path):
        shape = _shape(path, name)
        may_be_narrow = narrow and math.prod(shape) >= WIDE_ELEMENTS
        array = torch.empty(shape, dtype=torch.bfloat16 if may_be_narrow else torch.float32)
        if turned:
            array = array.reshape(shape[::-1]).T
        row = 0
        for block in _blocks(path, name, TURNED_ROWS if turned else 1):
            block = block.float()
            if array.dtype == torch.bfloat16 and not is_bfloat16(block):
                array = array.float()
            _put(array, row, block)
            row += len(block) if block.ndim else 1
    return array.T if turned else array


def mapped_rows(path: Path, name: str, *, turned: bool = False) -> Float[Tensor, "row column"]:
    """The rows of an array of finite numbers, in the type of the file.

    Where the file can be mapped, only rows that are used take memory; where they are columns of the file, all do.

    Raises:
        CheckpointError: the file is truncated or corrupt, or a number is not finite.
        CapacityError: there is not enough memory for it.
    """
    with named_when_out_of_memory(path):
        if not turned:
            for _ in _blocks(path, name, 1):
                pass
            rows = container_of(path).whole(path, name)
            return rows if rows.dtype in KEPT_TYPES else rows.float()
        columns: Tensor | None = None
        row = 0
        for block in _blocks(path, name, TURNED_ROWS):
            if columns is None:
                dtype = block.dtype if block.dtype in KEPT_TYPES else torch.float32
                columns = torch.empty(_shape(path, name)[::-1], dtype=dtype).T
            _put(columns, row, block)
            row += len(block)
        assert columns is not None
        return columns.T


def read_numbers(path: Path, name: str) -> list[float]:
    """Read a small array of finite numbers, of any type and shape, as a list.

    Raises:
        CheckpointError: the file is truncated or corrupt, the array is not small, or a number is not finite.
    """
    with named_when_out_of_memory(path):
        if math.prod(_shape(path, name)) > MAX_LISTED_NUMBERS:
            raise CheckpointError(f"{path}: `{name}` has shape {list(_shape(path, name))}; a few numbers are expected")
        blocks = _blocks(path, name, 1)
        return [float(number) for block in blocks for number in block.double().flatten().tolist()]


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


def row_norms(rows: Float[Tensor, "row column"]) -> Float[Tensor, "row"]:
    """Euclidean norm of each row, in float32."""
    return of_rows(rows, lambda block: block.float().norm(dim=1), torch.float32)


def folded(
    weight: Float[Tensor, "latent d_model"], bias: Float[Tensor, "latent"], centre: Float[Tensor, "d_model"]
) -> Float[Tensor, "latent"]:
    """The bias of a product whose vectors have a centre subtracted first: bias - W centre, computed in float64."""
    centre = centre.double()
    return (bias.double() - of_rows(weight, lambda rows: rows.double() @ centre, torch.float64)).float()


def digest_of(path: Path, settings: str = "") -> str:
    """SHA-256 of a file; with settings that change what it means, of both.

    Raises:
        CheckpointError: it cannot be read.
    """
    try:
        require_own_file(path, CheckpointError)
        with open_regular(path) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from None
    return hashlib.sha256(f"{digest} {settings}".encode()).hexdigest() if settings else digest


def _shape(path: Path, name: str) -> tuple[int, ...]:
    return container_of(path).header(path).shape(name)


def _put(array: Tensor, row: int, block: Tensor) -> None:
    """Put a block of rows into its place."""
    place = array[row : row + len(block)] if block.ndim else array
    place.copy_(block)


def _blocks(path: Path, name: str, min_rows: int) -> Iterator[Tensor]:
    """Yield an array in blocks of rows, of finite numbers."""
    container: Container = container_of(path)
    shape = _shape(path, name)
    rows = max(min_rows, BLOCK_ELEMENTS // max(1, math.prod(shape[1:])))
    for block in container.blocks(path, name, rows):
        if not bool(torch.isfinite(block.float()).all()):
            raise CheckpointError(f"{path}: `{name}` holds NaN or infinite values; the checkpoint is damaged")
        yield block
