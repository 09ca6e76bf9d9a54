"""Lines of a text, numbered, and whole texts; what is held in memory at once is limited."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stratalens.corpus.reading.decoding import DecodedText
from stratalens.corpus.reading.encoding import UNDECODABLE
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.packing import open_bytes
from stratalens.corpus.reading.rows import SKIP_REMEDY, BadRowError
from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError

MAX_ROW_CHARACTERS = 64 * 2**20
"""Longest line, and longest file that is one document. A corpus may be of any size."""


class Line(NamedTuple):
    """A line of a text."""

    number: int
    """Counted from 1."""
    text: str
    """Without its line end."""
    encoding: str
    """Encoding of the text."""


class _LongText:
    """A text that grows piece by piece, as bytes: a list of pieces would leave as large a hole in the memory."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.characters = 0

    def add(self, piece: str) -> None:
        self._bytes += piece.encode("utf-8", "surrogatepass")
        self.characters += len(piece)

    def take(self) -> str:
        """The whole text; after this it is empty."""
        text = self._bytes.decode("utf-8", "surrogatepass")
        self._bytes, self.characters = bytearray(), 0
        return text


class NumberedLines:
    """The lines of a text, one at a time; a line is not held after it was returned."""

    def __init__(self, path: Path | Url, text: DecodedText):
        self._path, self._decoded = path, text
        self._pieces = text.pieces()
        self._ready: list[str] = []
        """Complete lines, the next one last."""
        self._begun = _LongText()
        """Beginning of the line after them."""
        self._number = 0

    def __iter__(self) -> "NumberedLines":
        return self

    def __next__(self) -> Line:
        while not self._ready:
            piece = next(self._pieces, None)
            if piece is None:
                self._finish()
            else:
                self._take(piece)
        self._number += 1
        self._require_bounded(len(self._ready[-1]), self._number)
        return Line(self._number, self._ready.pop(), self._decoded.encoding)

    def _take(self, piece: str) -> None:
        lines = piece.split("\n")
        self._begun.add(lines[0])
        self._require_bounded(self._begun.characters, self._number + 1)
        if len(lines) == 1:
            return
        self._ready = lines[-2:0:-1]
        self._ready.append(self._begun.take())
        self._begun.add(lines[-1])

    def _require_bounded(self, characters: int, number: int) -> None:
        if characters > MAX_ROW_CHARACTERS:
            raise CorpusError(
                f"{self._path}:{number}: a line of more than {MAX_ROW_CHARACTERS:,} characters; cut such long "
                "documents into several"
            )

    def _finish(self) -> None:
        last = self._begun.take()
        if not last:
            raise StopIteration
        self._ready.append(last)


def numbered_lines(path: Path | Url, encoding: str | None, notes: ReadingNotes) -> Iterator[Line]:
    """Yield each line of a file; no line is held after the next one is asked for.

    Args:
        path: the file.
        encoding: its encoding; None recognises it.
        notes: receives the encoding that was recognised.

    Raises:
        CorpusError: the file is of no known encoding, or a line is longer than `MAX_ROW_CHARACTERS`.
    """
    with open_bytes(path) as stream:
        yield from NumberedLines(path, DecodedText(path, stream, encoding, notes))


class WholeText(NamedTuple):
    """The text of a whole file."""

    text: str
    encoding: str


def whole_text(path: Path | Url, encoding: str | None, notes: ReadingNotes) -> WholeText:
    """Text of a whole file, decoded piece by piece so that bytes and text are never both in memory.

    Raises:
        CorpusError: it is of no known encoding, or longer than `MAX_ROW_CHARACTERS`.
    """
    text = _LongText()
    with open_bytes(path) as stream:
        decoded = DecodedText(path, stream, encoding, notes)
        for piece in decoded.pieces():
            text.add(piece)
            if text.characters > MAX_ROW_CHARACTERS:
                raise CorpusError(
                    f"{path}: a document of more than {MAX_ROW_CHARACTERS:,} characters; give --text_unit line if "
                    "each line is a document, or cut the file into several"
                )
    return WholeText(text.take(), decoded.encoding)


def require_decoded(where: str, text: str, encoding: str) -> None:
    """Check that every byte of a text was of its encoding.

    Raises:
        BadRowError: one was not.
    """
    if not text.isascii() and UNDECODABLE in text:
        name = encoding.replace("_", "-").upper() if encoding.startswith("utf") else encoding
        raise BadRowError(f"{where}: not {name} text; convert it, name its encoding with --encoding, {SKIP_REMEDY}")
