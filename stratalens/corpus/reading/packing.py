"""Open files as streams of bytes, unpacked; how a file is packed is told by its first bytes, not by its name."""

import bz2
import gzip
import io
import lzma
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError
from stratalens.files.regular import open_regular

BUFFER_BYTES = 2**20
MAX_PACKING_RATIO = 50
"""How many times larger a page of a parquet file, or a packed parquet file, may become. Texts become 3 to 10 times
larger. A page may be as long as a row in any case, a file as large as `MAX_FREE_COPY_BYTES`."""
MAX_FREE_COPY_BYTES = 2**30
MAX_XZ_MEMORY_BYTES = 2**28
"""Memory that unpacking an xz file may take; `xz -9` takes a quarter of it."""
PACKED_SUFFIXES = (".gz", ".zst", ".xz", ".bz2")
"""Endings of packed files, after the ending of what is in them."""
_FIRST_BYTES = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_BZIP2_NEXT = (b"1AY&SY", b"\x17rE8P\x90")
"""What follows in a bzip2 file: a block, or the end of an empty one."""


@contextmanager
def open_bytes(path: Path | Url) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading bytes, unpacked.

    Raises:
        OSError: the file is missing, not a regular file, or cannot be opened.
        CorpusError: a remote file cannot be opened.
    """
    with _open_packed(path) as stream:
        yield _unpacked(stream) if packing_of(stream) else stream


def packing_of(stream: io.BufferedReader) -> str:
    """How the file at the beginning of this stream is packed; empty if it is not."""
    start = stream.peek(16)[:16]
    kind = next((kind for first, kind in _FIRST_BYTES.items() if start.startswith(first)), "")
    return "" if kind == "bzip2" and start[4:10] not in _BZIP2_NEXT else kind


@contextmanager
def open_seekable(path: Path | Url) -> Iterator[io.BufferedIOBase]:
    """Open a file as a seekable stream of bytes, copied into a temporary file where its own stream cannot seek.

    Raises:
        CorpusError: a packed file becomes far larger than such a file does.
    """
    with _open_packed(path) as packed:
        is_packed = bool(packing_of(packed))
        if packed.seekable() and not is_packed:
            yield packed
            return
        with tempfile.TemporaryFile() as copy:
            if is_packed:
                _unpack(path, packed, cast(io.BufferedIOBase, copy))
            else:
                shutil.copyfileobj(packed, copy, BUFFER_BYTES)
            copy.seek(0)
            yield cast(io.BufferedIOBase, copy)


def _open_packed(path: Path | Url) -> io.BufferedReader:
    if isinstance(path, Url):
        return path.open("rb", BUFFER_BYTES)
    return open_regular(path, BUFFER_BYTES)


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    match packing_of(stream):
        case "gzip":
            raw: Any = gzip.GzipFile(fileobj=stream)
        case "bzip2":
            raw = bz2.BZ2File(stream)
        case "xz":
            raw = _XzStream(stream)
        case _:
            import pyarrow

            raw = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), "zstd")
    return io.BufferedReader(raw, BUFFER_BYTES)


class _XzStream(io.RawIOBase):
    """An xz file unpacked within a limit of memory, which the library's own file object does not have."""

    def __init__(self, stream: io.BufferedReader):
        self._stream = stream
        self._decoder: lzma.LZMADecompressor | None = _xz_decoder()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._decoder is not None:
            packed = self._stream.read(2**16) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("the packed file ends too early")
            data = self._decoder.decompress(packed, max_length=len(buffer))
            if self._decoder.eof:
                self._decoder = self._next_decoder(self._decoder.unused_data)
            if data:
                buffer[: len(data)] = data
                return len(data)
        return 0

    def _next_decoder(self, unused: bytes) -> lzma.LZMADecompressor | None:
        """Decoder of the next xz stream of the file, after zero bytes that fill it up; None at the end of the file."""
        rest = unused.lstrip(b"\0")
        while not rest and (more := self._stream.read(2**16)):
            rest = more.lstrip(b"\0")
        if not rest:
            return None
        decoder = _xz_decoder()
        decoder.decompress(rest, max_length=0)
        return decoder


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY_BYTES)


def _unpack(path: Path | Url, packed: io.BufferedReader, copy: io.BufferedIOBase) -> None:
    unpacked = _unpacked(packed)
    for piece in iter(partial(unpacked.read, BUFFER_BYTES), b""):
        copy.write(piece)
        if copy.tell() > max(MAX_FREE_COPY_BYTES, MAX_PACKING_RATIO * packed.tell()):
            raise CorpusError(
                f"{path}: unpacked it is more than {MAX_PACKING_RATIO} times as large; unpack it yourself if it is "
                "what it should be"
            )
