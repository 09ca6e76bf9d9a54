"""The lock of an output directory: one run at a time works in it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stratalens.errors import OutputError
from stratalens.files.own_folders import refused, require_owner, user_of_new_files
from stratalens.files.result_names import LOCK_FILE

MAX_LOCK_BYTES = 32
"""A lock holds the number of a process and nothing else."""


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Create the directory and hold its lock.

    Raises:
        OutputError: another process holds the lock, something else is in its place, or the directory cannot be created
            or written.
    """
    from filelock import FileLock, Timeout

    path = output_dir / LOCK_FILE
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            _require_plain_file(path, path.lstat())  # before it is opened
        with FileLock(path, timeout=0):
            _require_own_lock(path)
            try:
                with open(path, "wb", opener=_open_no_link) as stream:
                    stream.write(f"{os.getpid()}\n".encode())
                yield
            finally:
                path.unlink(missing_ok=True)
    except Timeout:
        with suppress(OSError):
            with open(path, "rb", opener=_open_no_link) as stream:
                owner = stream.read(MAX_LOCK_BYTES).decode("ascii", "replace").strip()
            raise OutputError(
                f"{output_dir}: another run (process {owner or 'unknown'}) is working here; wait for it, or choose "
                "another --output_dir"
            ) from None
        raise OutputError(f"{output_dir}: another run was working here just now; try again") from None
    except OSError as error:
        if error.filename is not None and Path(os.fsdecode(error.filename)) in (output_dir, path, *output_dir.parents):
            reason = error.strerror or "unknown reason"
            raise OutputError(f"{output_dir}: cannot be written: {reason}; choose another --output_dir") from None
        raise


def _require_plain_file(path: Path, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        raise refused(path, "a link, where a run writes its lock")
    if not stat.S_ISREG(found.st_mode):
        raise refused(path, "not a file, where a run writes its lock")
    if found.st_nlink > 1:
        raise refused(path, "a file that has another name as well (a hard link), where a run writes its lock")


def _require_own_lock(path: Path) -> None:
    """Refuse a file that no run of this user has left here, before it is written and removed."""
    with open(path, "rb", opener=_open_no_link) as stream:
        found, content = os.fstat(stream.fileno()), stream.read(MAX_LOCK_BYTES + 1)
    _require_plain_file(path, found)
    require_owner(path, found, user_of_new_files(path.parent))
    if content.strip(b"0123456789\r\n") or len(content) > MAX_LOCK_BYTES:
        raise refused(path, "not a lock, where a run writes one")


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))
