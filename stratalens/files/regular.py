"""Open files that others may have made: only regular files, and of a small file no more than a limit."""

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import cast

from stratalens.errors import CapacityError

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a file may be besides a regular file, a directory or a link."""

MIN_NAMED_BYTES = 2**20
"""A smaller file is not what fills the memory, so an error does not name it."""
OPEN_WITHOUT_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def open_regular(path: Path, buffer_bytes: int = io.DEFAULT_BUFFER_SIZE) -> io.BufferedReader:
    """Open a regular file for reading bytes; links are followed.

    A named pipe would wait for a writer without end, a device may have no end.

    Args:
        path: the file.
        buffer_bytes: size of the buffer.

    Raises:
        OSError: there is no such file, it is not a regular file, or it cannot be opened.
    """
    _require_regular(path, os.stat(path))  # before it is opened: a device may act on that
    handle = os.open(path, OPEN_WITHOUT_WAITING)
    try:
        _require_regular(path, os.fstat(handle))  # by now the name may lead elsewhere
        return cast(io.BufferedReader, os.fdopen(handle, "rb", buffer_bytes))
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, max_bytes: int, owner: int | None = None) -> bytes:
    """Read a whole regular file.

    Args:
        path: the file.
        max_bytes: a larger file is refused.
        owner: number of the user to whom it must belong; None for any.

    Raises:
        OSError: the file is missing, too large, not a regular file or of another user, or cannot be read.
        CapacityError: there is not enough memory for it, and it is not small.
    """
    with open_regular(path) as stream:
        found = os.fstat(stream.fileno())
        size = found.st_size
        if owner not in (None, found.st_uid):
            raise PermissionError(errno.EPERM, f"belongs to user {found.st_uid}", str(path))
        with named_when_out_of_memory(path) if size >= MIN_NAMED_BYTES else nullcontext():
            content = stream.read(max_bytes + 1) if size <= max_bytes else b""
    if size > max_bytes or len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"larger than {size_text(max_bytes)}, the limit for such a file", str(path))
    return content


def require_regular(path: Path) -> None:
    """Check that a path leads to a regular file, for libraries that open it by its name.

    Raises:
        OSError: there is no such file, or it is not a regular file.
    """
    _require_regular(path, os.stat(path))


def reason_of(error: Exception) -> str:
    """What an error says, without the file name that the message begins with anyway."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def named_when_out_of_memory(source: object) -> Iterator[None]:
    """Turn a MemoryError inside the block into one that names what was being read.

    Raises:
        CapacityError: in place of a MemoryError.
    """
    try:
        yield
    except MemoryError:
        raise CapacityError(
            f"{source}: out of memory while it was read; check that the file is what it should be, or free some memory"
        ) from None


def size_text(number_of_bytes: int) -> str:
    """Write a limit in the largest unit that gives a whole number."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number_of_bytes >= size and number_of_bytes % size == 0:
            return f"{number_of_bytes // size} {unit}"
    return f"{number_of_bytes} bytes"


def _require_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    raise OSError(errno.EINVAL, f"a regular file was expected, this is {kind}", str(path))
