"""Open files of text as streams of bytes, unpacked, with a limit on what is held in memory at once."""

import codecs
import gzip
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError
from stratalens.files.regular import open_regular, size_text

BUFFER_BYTES = 2**20
MAX_ROW_BYTES = 64 * 2**20
"""Longest line, and longest file that is one document, unpacked. A corpus may be of any size."""
MAX_PACKING_RATIO = 50
"""How many times larger a page of a parquet file, or a gzipped parquet file, may become. Texts become 3 to 10 times
larger. A page may be as long as a row in any case, a file as large as `MAX_FREE_COPY_BYTES`."""
MAX_FREE_COPY_BYTES = 2**30


def is_gzipped(path: Path | Url) -> bool:
    """Whether a file is gzipped, by its name."""
    return path.suffix.lower() == ".gz"


@contextmanager
def open_bytes(path: Path | Url) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading bytes, decompressed if it is gzipped.

    Raises:
        OSError: the file is missing, not a regular file, or cannot be opened.
        CorpusError: a remote file cannot be opened.
    """
    with _open_packed(path) as stream:
        if is_gzipped(path):
            yield io.BufferedReader(gzip.GzipFile(fileobj=stream), BUFFER_BYTES)  # pyright: ignore[reportArgumentType]
        else:
            yield stream


def _open_packed(path: Path | Url) -> io.BufferedReader:
    if isinstance(path, Url):
        return path.open("rb", BUFFER_BYTES)
    return open_regular(path, BUFFER_BYTES)


def numbered_lines(path: Path | Url) -> Iterator[tuple[int, str]]:
    """Yield the number and the stripped text of each line; no line is held after the next one is asked for.

    Raises:
        CorpusError: a line is not UTF-8 text, or longer than `MAX_ROW_BYTES`.
    """
    with open_bytes(path) as stream:
        yield from iter(partial(_next_line, path, stream, count(1)), None)


def _next_line(path: Path | Url, stream: io.BufferedIOBase, numbers: Iterator[int]) -> tuple[int, str] | None:
    number, line = next(numbers), stream.readline(MAX_ROW_BYTES + 1)
    if not line:
        return None
    if len(line) > MAX_ROW_BYTES:
        raise CorpusError(
            f"{path}:{number}: a line of more than {size_text(MAX_ROW_BYTES)}; cut such long documents into several"
        )
    start = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
    try:
        text = str(memoryview(line)[start:], "utf-8")
    except UnicodeDecodeError:
        raise CorpusError(f"{path}:{number}: not UTF-8 text; convert it, for example with iconv") from None
    del line
    return number, text.strip()


def whole_text(path: Path | Url) -> str:
    """Text of a whole file, decoded piece by piece so that bytes and text are never both in memory.

    Raises:
        UnicodeDecodeError: it is not UTF-8 text.
        CorpusError: it is longer than `MAX_ROW_BYTES`.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    pieces, size = [], 0
    with open_bytes(path) as stream:
        for piece in iter(partial(stream.read, BUFFER_BYTES), b""):
            size += len(piece)
            if size > MAX_ROW_BYTES:
                raise CorpusError(
                    f"{path}: a document of more than {size_text(MAX_ROW_BYTES)}; give --text_unit line if each line "
                    "is a document, or cut the file into several"
                )
            pieces.append(decoder.decode(piece))
    return "".join(pieces) + decoder.decode(b"", final=True)


@contextmanager
def open_seekable(path: Path | Url) -> Iterator[io.BufferedIOBase]:
    """Open a file as a seekable stream of bytes, copied into a temporary file where its own stream cannot seek.

    Raises:
        CorpusError: a gzipped file becomes far larger than such a file does.
    """
    with _open_packed(path) as packed:
        if packed.seekable() and not is_gzipped(path):
            yield packed
            return
        with tempfile.TemporaryFile() as copy:
            if is_gzipped(path):
                _unpack(path, packed, cast(io.BufferedIOBase, copy))
            else:
                shutil.copyfileobj(packed, copy, BUFFER_BYTES)
            copy.seek(0)
            yield cast(io.BufferedIOBase, copy)


def _unpack(path: Path | Url, packed: io.BufferedReader, copy: io.BufferedIOBase) -> None:
    with gzip.GzipFile(fileobj=packed) as unpacked:
        for piece in iter(partial(unpacked.read, BUFFER_BYTES), b""):
            copy.write(piece)
            if copy.tell() > max(MAX_FREE_COPY_BYTES, MAX_PACKING_RATIO * packed.tell()):
                raise CorpusError(
                    f"{path}: unpacked it is more than {MAX_PACKING_RATIO} times as large; unpack it yourself if it is "
                    "what it should be"
                )
