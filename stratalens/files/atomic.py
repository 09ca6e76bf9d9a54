"""Files that are written completely or not at all, with a checksum that shows when they were altered."""

import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stratalens.files.private import PRIVATE_FILE, PRIVATE_FOLDER
from stratalens.files.regular import open_regular

MAX_CHECKSUMMED_BYTES = 16 * 2**30
"""A larger file is taken for damaged. The state of a layer of a million latents that all fire takes about 5 GiB: 600
bytes for a latent in each of four populations, and 12 for each latent that fires in one of 16,384 sampled documents."""
PIECE_BYTES = 2**20
_CHECKSUM_BYTES = 65
"""A SHA-256 in hexadecimal digits, and the end of the line."""
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
            digest = _digest(name)
            digest.update(body)
            stream.write(_line_of(digest))
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, which takes the place of another one when that is done, or is removed.

    Args:
        path: of the complete file; missing directories are created.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield unfinished
        with unfinished.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_checksummed(path: Path, name: str) -> bytes | None:
    """Read the content of a file of `write_checksummed`.

    Memory is taken only for content that fits its checksum.

    Returns:
        the content; None where it is cut off, altered, larger than `MAX_CHECKSUMMED_BYTES` or has another name.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    with open_regular(path) as stream:
        size = _intact_size(stream, name)
        if size is None:
            return None
        stream.seek(_CHECKSUM_BYTES)
        return stream.read(size)


def checksum_fits(path: Path, name: str) -> bool:
    """Whether `read_checksummed` would return the content of a file; it is read in pieces and not kept.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    with open_regular(path) as stream:
        return _intact_size(stream, name) is not None


def _intact_size(stream: io.BufferedReader, name: str) -> int | None:
    """Size in bytes of what follows the checksum; None where that does not fit or the file is too large."""
    checksum = stream.read(_CHECKSUM_BYTES)
    digest, size = _digest(name), 0
    too_large = os.fstat(stream.fileno()).st_size > MAX_CHECKSUMMED_BYTES
    while not too_large and (piece := stream.read(PIECE_BYTES)):
        digest.update(piece)
        size += len(piece)
        too_large = size > MAX_CHECKSUMMED_BYTES
    return None if too_large or checksum != _line_of(digest) else size


def _digest(name: str) -> "hashlib._Hash":
    return hashlib.sha256(name.encode() + b"\n")


def _line_of(digest: "hashlib._Hash") -> bytes:
    return digest.hexdigest().encode() + b"\n"


def _sync_directory(directory: Path) -> None:
    """Make the new directory entry survive a power cut, on systems that can open a directory."""
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
