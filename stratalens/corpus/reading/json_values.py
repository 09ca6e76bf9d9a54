"""The objects of a JSON file: the file is one, or a list of them, or several one after the other."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.reading.decoding import DecodedText
from stratalens.corpus.reading.encoding import UNDECODABLE
from stratalens.corpus.reading.lines import MAX_ROW_CHARACTERS
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.packing import BUFFER_BYTES, open_bytes
from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError


class JsonValue(NamedTuple):
    """A value of a JSON file."""

    where: str
    """File and number of the value, counted from 1."""
    value: Any


def has_json_lines(path: Path | Url, encoding: str | None) -> bool:
    """Whether a file that should be one JSON value has one in each line instead, by its first two lines."""
    with open_bytes(path) as stream:
        start = io.BytesIO(stream.read(BUFFER_BYTES))
    text = "".join(DecodedText(path, start, encoding, ReadingNotes()).pieces())
    lines = [line for line in text.lstrip("\ufeff").splitlines()[:100] if line.strip()]
    if len(lines) < 2 or not lines[1].lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(lines[0]), dict)
    except (ValueError, RecursionError):
        return False


def json_values(path: Path | Url, encoding: str | None, notes: ReadingNotes) -> Iterator[JsonValue]:
    """Yield the items of a file's list, or its objects one after the other; one is in memory at a time.

    Raises:
        CorpusError: it is not valid JSON, or a value is longer than `MAX_ROW_CHARACTERS`.
    """
    import ijson

    with open_bytes(path) as opened:
        stream = _Utf8Stream(path, DecodedText(path, opened, encoding, notes))
        is_list = stream.peek() == b"["
        values = ijson.items(stream, "item" if is_list else "", multiple_values=not is_list, use_float=True)
        number = 0
        while True:
            try:
                found = next(values, stream)
            except (ijson.JSONError, ValueError, OverflowError, RecursionError) as error:
                reason = " ".join(str(error).split())[:100]
                raise CorpusError(f"{path}: not valid JSON ({reason}), after {number:,} values") from None
            if found is stream:
                return
            number += 1
            stream.begin_value()
            yield JsonValue(f"{path}, value {number}", found)
            del found


class _Utf8Stream:
    """The text of a file as a stream of bytes of UTF-8, of limited length for each value."""

    def __init__(self, path: Path | Url, text: DecodedText):
        self._path, self._text = path, text
        self._pieces = text.pieces()
        self._rest = b""
        self._characters = 0

    def begin_value(self) -> None:
        """Count the characters of the next value from here."""
        self._characters = 0

    def peek(self) -> bytes:
        """The first byte that is not white space; what is before it is left out."""
        while not self._rest and self._fill():
            self._rest = self._rest.lstrip(b" \t\r\n\xef\xbb\xbf")
        return self._rest[:1]

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; none at the end."""
        if not self._rest:
            self._fill()
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _fill(self) -> bool:
        piece = next(self._pieces, "")
        self._characters += len(piece)
        if self._characters > MAX_ROW_CHARACTERS:
            raise CorpusError(
                f"{self._path}: a value of more than {MAX_ROW_CHARACTERS:,} characters; make it a list of documents, "
                "or a jsonl file"
            )
        if UNDECODABLE in piece:
            raise CorpusError(f"{self._path}: not {self._text.encoding} text; convert it, or name its encoding")
        self._rest = piece.replace("\0", "").encode()
        return bool(piece)
