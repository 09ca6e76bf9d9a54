"""Files that are written completely or not at all, with a checksum that shows when they were altered."""

import hashlib
import os
import tempfile
from pathlib import Path


def write_checksummed(path: Path, name: str, body: bytes) -> None:
    """Write a file behind a checksum over `name` and content; the file appears complete and survives a power cut.

    Args:
        path: the file to write; missing directories are created.
        name: identifies the content; `read_checksummed` accepts the file only under the same name.
        body: the content.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_checksum(name, body) + b"\n")
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_checksummed(path: Path, name: str) -> bytes | None:
    """Read the content of a file of `write_checksummed`; None where it is cut off, altered or has another name.

    Raises:
        OSError: the file cannot be read.
    """
    checksum, _, body = path.read_bytes().partition(b"\n")
    return body if checksum == _checksum(name, body) else None


def _checksum(name: str, body: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\n")
    digest.update(body)
    return digest.hexdigest().encode()


def _sync_directory(directory: Path) -> None:
    """Make the new directory entry survive a power cut, on systems that can open a directory."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
