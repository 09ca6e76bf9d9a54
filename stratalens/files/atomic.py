"""Files that are written completely or not at all, with a checksum that shows when they were altered."""

import hashlib
import os
import secrets
from functools import partial
from pathlib import Path

from stratalens.files.private import PRIVATE_FILE, PRIVATE_FOLDER

SHARED_FILE = 0o666
SHARED_FOLDER = 0o777
"""Rights that the user's umask reduces to those of any other file."""


def write_checksummed(path: Path, name: str, body: bytes, *, private: bool = False) -> None:
    """Write a file behind a checksum over `name` and content; the file appears complete and survives a power cut.

    Args:
        path: the file to write; missing directories are created.
        name: identifies the content; `read_checksummed` accepts the file only under the same name.
        body: the content.
        private: whether only the user may read the file; else this is as the umask says.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(mode=PRIVATE_FOLDER if private else SHARED_FOLDER, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{secrets.token_hex(8)}.tmp")
    opener = partial(os.open, mode=PRIVATE_FILE if private else SHARED_FILE)
    try:
        with open(unfinished, "xb", opener=opener) as stream:
            stream.write(_checksum(name, body) + b"\n")
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
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
