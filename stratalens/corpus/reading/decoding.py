"""Decode the bytes of a text piece by piece, in the encoding that was named or that the bytes have."""

import codecs
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from stratalens.corpus.reading.encoding import (
    UNDECODABLE,
    declared_encoding,
    encoding_of,
    start_encoding,
)
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.packing import BUFFER_BYTES
from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError

MARKING = "stratalens.marked"
"""Name of the error handler that puts `UNDECODABLE` in the place of each byte that is not of the encoding."""
_ESCAPE = b"\x1b"
"""Begins the sequences by which the encodings of ISO 2022, of ASCII bytes alone, change their set of characters."""


class DecodedText:
    """The text of a stream of bytes, in pieces, with newlines as line ends."""

    encoding = "utf_8"
    """Encoding of what was read so far."""

    def __init__(self, path: Path | Url, stream: io.BufferedIOBase, encoding: str | None, notes: ReadingNotes):
        self._path, self._stream, self._notes = path, stream, notes
        self._given = encoding
        self._decoder: codecs.IncrementalDecoder | None = None
        """None while the encoding is not known, as all is ASCII so far."""
        self._newlines = io.IncrementalNewlineDecoder(None, translate=True)

    def pieces(self) -> Iterator[str]:
        """Yield the text; no piece is held after the next one is asked for.

        Raises:
            CorpusError: the bytes are of no known encoding.
        """
        codecs.register_error(MARKING, _marked)
        self._decoder = _decoder(self._given) if self._given else None
        yield from filter(None, map(self._decoded, _blocks(self._stream)))

    def _decoded(self, block: tuple[int, bytes]) -> str:
        """Decode one block; an empty one ends the text."""
        number, data = block
        if self._decoder is None and (encoding := self._recognised(data, number == 0)):
            self.encoding = encoding
            self._decoder = _decoder(encoding)
            if not encoding.startswith("utf_8"):
                self._notes.note_encoding(encoding, self._path)
        try:
            text = data.decode("ascii") if self._decoder is None else self._decoder.decode(data, not data)
        except UnicodeError as error:  # of the whole text, such as a byte order mark that must be there
            raise CorpusError(f"{self._path}: not {self._given} text ({error}); give another --encoding") from None
        return self._newlines.decode(text, not data)

    def _recognised(self, data: bytes, first: bool) -> str | None:
        """Encoding of a block; None while all is ASCII, which most encodings share."""
        if first and (encoding := start_encoding(data)):
            return encoding
        if data.isascii() and _ESCAPE not in data:
            return None
        declared = declared_encoding(data) if first else None
        encoding = encoding_of(self._path, data)
        return declared if declared and encoding != "utf_8" else encoding


def _blocks(stream: io.BufferedIOBase) -> Iterator[tuple[int, bytes]]:
    """Yield numbered blocks of bytes, and an empty one at the end."""
    yield from enumerate(iter(partial(stream.read, BUFFER_BYTES), b""))
    yield -1, b""


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder(encoding)(MARKING)


def _marked(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return UNDECODABLE * (error.end - error.start), error.end
