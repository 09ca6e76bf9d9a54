"""Files that are there as a whole or not at all, and tell when they were altered."""

import hashlib
import os
import tempfile
from pathlib import Path


def write_checksummed(path: Path, name: str, body: bytes) -> None:
    """Write a file behind a checksum over `name` and content; the file appears at once and survives a power cut.

    Args:
        path: where; directories are made.
        name: what the file is: read under another name it does not fit its checksum.
        body: content.
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
    """The content of a sealed file; None where it is torn, altered, or was written under another name.

    Raises:
        OSError: it cannot be read.
    """
    checksum, _, body = path.read_bytes().partition(b"\n")
    return body if checksum == _checksum(name, body) else None


def _checksum(name: str, body: bytes) -> bytes:
    digest = hashlib.sha256(name.encode() + b"\n")
    digest.update(body)
    return digest.hexdigest().encode()


def _sync_directory(directory: Path) -> None:
    """Make the new name last as well, where the system lets a directory be opened."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
