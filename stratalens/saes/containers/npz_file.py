"""Read the arrays of an npz file, one block of rows after another; arrays of Python objects are never unpickled."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from stratalens.errors import CheckpointError
from stratalens.models.model_files import require_own_file
from stratalens.saes.containers.header import Header, unreadable

MAX_ARRAYS = 10_000
ERRORS = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
SUFFIX = ".npy"
PART_BYTES = 2**20
"""Bytes that are unpacked at once."""


class _Array(NamedTuple):
    """An array of the file, of which only the description was read."""

    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool
    """Whether it is stored column by column."""


def header(path: Path) -> Header:
    """See `Container`."""
    with _opened(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(SUFFIX)]
        if len(names) > MAX_ARRAYS:
            raise CheckpointError(f"{path}: holds {len(names)} arrays, more than any SAE")
        arrays = dict[str, _Array]()
        for name in names:
            with _member(archive, name.removesuffix(SUFFIX)) as stream:
                arrays[name.removesuffix(SUFFIX)] = _described(path, name, stream)
    return Header(
        path,
        {name: array.shape for name, array in arrays.items()},
        {name: _type_name(array.dtype) for name, array in arrays.items()},
    )


def blocks(path: Path, name: str, rows: int) -> Iterator[Tensor]:
    """See `Container`; rows are read as they are yielded, also of a compressed array."""
    with _opened(path) as archive, _member(archive, name) as stream:
        array = _described(path, name, stream)
        if array.by_columns and len(array.shape) > 1:
            yield from _whole(path, stream, array).split(rows)
            return
        if not array.shape:
            yield _whole(path, stream, array)
            return
        for row in range(0, array.shape[0], rows):
            shape = (min(rows, array.shape[0] - row), *array.shape[1:])
            yield _tensor(stream, array.dtype, shape)


def whole(path: Path, name: str) -> Tensor:
    """See `Container`; the array is in memory."""
    with _opened(path) as archive, _member(archive, name) as stream:
        return _whole(path, stream, _described(path, name, stream))


def _whole(path: Path, stream: zipfile.ZipExtFile, array: _Array) -> Tensor:
    if array.by_columns:
        columns = _tensor(stream, array.dtype, array.shape[::-1])
        return columns.permute(*reversed(range(columns.ndim))).contiguous()
    return _tensor(stream, array.dtype, array.shape)


def _tensor(stream: zipfile.ZipExtFile, dtype: np.dtype, shape: tuple[int, ...]) -> Tensor:
    content = np.empty(math.prod(shape) * dtype.itemsize, np.uint8)
    filled = 0
    while filled < len(content):
        part = stream.read(min(len(content) - filled, PART_BYTES))
        if not part:
            raise EOFError("an array ends early")
        content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
        filled += len(part)
    return torch.from_numpy(content.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False))


def _described(path: Path, name: str, stream: zipfile.ZipExtFile) -> _Array:
    """Read what an array's header says; the stream is then at its numbers.

    Raises:
        CheckpointError: it holds Python objects, which could run code.
    """
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(stream)
    if dtype.hasobject:
        raise CheckpointError(
            f"{path}: `{name.removesuffix(SUFFIX)[:60]}` holds Python objects, which could run code; only arrays of "
            "numbers are read"
        )
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize >= 2**63:
        raise ValueError(f"an array of shape {list(shape)}")
    return _Array(tuple(shape), dtype, by_columns)


def _type_name(dtype: np.dtype) -> str:
    """Name of a type as safetensors has it; of a type that torch lacks, numpy's own."""
    prefix = {"f": "F", "i": "I", "u": "U"}.get(dtype.kind)
    return f"{prefix}{8 * dtype.itemsize}" if prefix and dtype.itemsize <= 8 else str(dtype)


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipExtFile:
    return cast(zipfile.ZipExtFile, archive.open(name + SUFFIX))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        require_own_file(path, CheckpointError)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except ERRORS as error:
        raise unreadable(path, error) from None
