"""The objects of a JSON file: the file is one, or a list of them, or several one after the other."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.reading.decoding import DecodedText
from stratalens.corpus.reading.lines import MAX_ROW_CHARACTERS, require_decoded
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.packing import BUFFER_BYTES, open_bytes
from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError

_BLANK = re.compile("[ \t\r\n\0\x0b\x0c\x1a\x1e\ufeff]*")
"""White space, and what programs put before the first value, between two or at the end of a file."""
LONGEST_CUT = 16
"""A mistake so many characters before the end of what was read may be a number or a name that goes on after it."""


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
    lines = [line.lstrip("\ufeff\x1e \t") for line in text.split("\n", 100)[:100] if _BLANK.fullmatch(line) is None]
    if len(lines) < 2 or not lines[1].startswith("{"):
        return False
    try:
        return isinstance(json.loads(lines[0], strict=False), dict)
    except (ValueError, RecursionError):
        return False


def begins_value_of_lines(line: str) -> bool:
    """Whether the first line of a file that should have an object in each line begins a list or a longer object."""
    begun = line.strip("\ufeff\x1e \t")
    return begun.startswith("[") or begun == "{"


def json_values(path: Path | Url, encoding: str | None, notes: ReadingNotes) -> Iterator[JsonValue]:
    """Yield the items of a file's list, or its objects one after the other; one is in memory at a time.

    Raises:
        CorpusError: it is not valid JSON, or a value is longer than `MAX_ROW_CHARACTERS`.
    """
    with open_bytes(path) as opened:
        text = _JsonText(path, DecodedText(path, opened, encoding, notes))
        is_list = text.take("[")
        number = 0
        while not (text.take("]") if is_list else text.at_end()):
            if is_list and number and not text.take(","):
                raise text.invalid("expecting a comma or the end of the list", number)
            found = text.value(number)
            number += 1
            yield JsonValue(f"{path}, value {number}", found)
            del found
        if not number and not is_list:
            raise text.invalid("the file is empty", number)
        if not text.at_end():
            raise text.invalid("something follows the list", number)


class _JsonText:
    """The text of a file, of which only what is being decoded is kept."""

    def __init__(self, path: Path | Url, text: DecodedText):
        self._path, self._text = path, text
        self._pieces = text.pieces()
        self._decoder = json.JSONDecoder(strict=False)
        self._kept, self._at = "", 0
        self._is_whole = False

    def at_end(self) -> bool:
        """Whether nothing but white space is left."""
        return not self._next_character()

    def take(self, mark: str) -> bool:
        """Pass a mark if it comes next, white space apart."""
        is_next = self._next_character() == mark
        self._at += is_next
        return is_next

    def value(self, number: int) -> Any:
        """Decode the next value; `number` came before it.

        Raises:
            CorpusError: there is none, or it is too long.
        """
        self._next_character()
        while True:
            try:
                found, end = self._decoder.raw_decode(self._kept, self._at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._kept) - LONGEST_CUT
                if self._is_whole or not cut:
                    raise self.invalid(error.msg, number) from None
            except (ValueError, RecursionError):
                raise self.invalid("unreadable value", number) from None
            else:
                if self._is_whole or end < len(self._kept):
                    self._require_bounded(end - self._at)
                    self._at = end
                    return found
            self._require_bounded(len(self._kept) - self._at)
            self._fill(2 * (len(self._kept) - self._at))

    def invalid(self, reason: str, number: int) -> CorpusError:
        """The error that the file is no JSON from the value after this number on."""
        return CorpusError(f"{self._path}: not valid JSON ({reason}), after {number:,} values")

    def _next_character(self) -> str:
        """The next character that is not white space, which is passed; empty at the end."""
        while True:
            blank = _BLANK.match(self._kept, self._at)
            assert blank is not None
            self._at = blank.end()
            if self._at < len(self._kept) or self._is_whole:
                return self._kept[self._at : self._at + 1]
            self._fill(1)

    def _fill(self, characters: int) -> None:
        """Drop what was decoded, and keep at least so many characters if the text has them."""
        kept = [self._kept[self._at :]]
        self._kept, self._at = "", 0
        length = len(kept[0])
        while not self._is_whole and length < max(1, characters):
            piece = next(self._pieces, "")
            require_decoded(str(self._path), piece, self._text.encoding)
            self._is_whole = not piece
            kept.append(piece)
            length += len(piece)
        self._kept = "".join(kept)

    def _require_bounded(self, characters: int) -> None:
        if characters > MAX_ROW_CHARACTERS:
            raise CorpusError(
                f"{self._path}: a value of more than {MAX_ROW_CHARACTERS:,} characters; make it a list of documents, "
                "or a jsonl file"
            )
