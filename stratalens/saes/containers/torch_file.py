"""Read the arrays of a file that torch saved, mapped where it allows that; nothing in it is ever run."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from stratalens.errors import CheckpointError
from stratalens.models.model_files import require_own_file
from stratalens.saes.containers.header import Header, unreadable

ERRORS = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, RecursionError),
    *(AssertionError, OverflowError, UnicodeError, zipfile.BadZipFile, pickle.UnpicklingError),
)
"""What torch raises on a damaged file."""
ZIP_MAGIC = b"PK\x03\x04"
MAX_DEPTH = 8
"""Of dictionaries in dictionaries."""
MAX_NAMES = 100_000
FORBIDDEN = re.compile(
    r"(?:Unsupported \w+: )?GLOBAL (\S{1,100})|(?:Unsupported|Blocked) (?:global|class|operand|type)[^\n]{0,80}"
)
TYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""Types of floating-point numbers, under the names of safetensors."""


def header(path: Path) -> Header:
    """See `Container`."""
    arrays, values = _content(path)
    return Header(
        path,
        {name: tuple(array.shape) for name, array in arrays.items()},
        {name: TYPE_NAMES.get(array.dtype, str(array.dtype).removeprefix("torch.")) for name, array in arrays.items()},
        values,
    )


def blocks(path: Path, name: str, rows: int) -> Iterator[Tensor]:
    """See `Container`.

    Each block is mapped by itself: pages that were read count as memory of the process for as long as they are mapped.
    """
    array = whole(path, name)
    if not array.ndim:
        yield array
        return
    size, by_block = len(array), _is_zip(path)
    for row in range(0, size, rows):
        yield array[row : row + rows]
        if by_block and row + rows < size:
            array = whole(path, name)


def whole(path: Path, name: str) -> Tensor:
    """See `Container`; the array is mapped unless the file is of torch before 1.6."""
    arrays, _ = _content(path)
    with _one_line(path):
        return arrays[name]


def _content(path: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Name -> array and name -> value, of all that is in a file."""
    with _one_line(path):
        require_own_file(path, CheckpointError)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused or harmless
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path) or None)
        size = path.stat().st_size
    arrays, values = dict[str, Tensor](), dict[str, object]()
    for name, value in _named("", loaded, 0):
        if len(arrays) + len(values) >= MAX_NAMES:
            raise CheckpointError(f"{path}: holds more than {MAX_NAMES} names, more than any SAE")
        if not isinstance(value, Tensor):
            values[name] = value
            continue
        _require_plain(path, name, value, size)
        arrays[name] = value.detach()
    return arrays, values


def _named(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield what is in nested dictionaries; those that are nested too deep are left out."""
    if not isinstance(value, Mapping):
        yield name, value
    elif depth < MAX_DEPTH:
        for key, inner in value.items():
            yield from _named(f"{name}.{key}" if name else str(key), inner, depth + 1)


def _require_plain(path: Path, name: str, array: Tensor, size: int) -> None:
    """Check that an array is one of numbers that are all in the file.

    Raises:
        CheckpointError: it is sparse, quantised or without numbers, or larger than the file.
    """
    plain = type(array) in (Tensor, Parameter) and array.layout == torch.strided
    if not plain or array.is_meta or array.is_quantized or array.is_complex():
        raise CheckpointError(f"{path}: `{name[:60]}` is not a plain array of numbers")
    if array.numel() * array.element_size() > size:
        raise CheckpointError(f"{path}: `{name[:60]}` has shape {list(array.shape)}, which is more than the file holds")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        text = str(error)
        if "not enough memory" in text or "annot allocate memory" in text:
            raise MemoryError from None
        forbidden = FORBIDDEN.search(text) if isinstance(error, pickle.UnpicklingError) else None
        if forbidden is None:
            raise unreadable(path, _without_advice(error)) from None
        what = (forbidden[1] or forbidden[0]).rstrip(".")
        raise CheckpointError(
            f"{path}: holds `{what}` beside arrays, which could run code when it is opened; it is refused: "
            "get the SAE as a file of arrays alone, such as safetensors"
        ) from None


def _without_advice(error: Exception) -> Exception:
    """An error of torch without its advice, which is to trust the file."""
    if isinstance(error, FileNotFoundError):
        return error
    if isinstance(error, pickle.UnpicklingError):
        return ValueError("not a file that torch saved")
    return error
