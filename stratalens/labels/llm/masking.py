"""The API key is masked in every text that comes back from a server or from the libraries that talk to it."""

import base64
import re
from array import array
from collections.abc import Iterator
from string import ascii_lowercase, ascii_uppercase

from stratalens.files.redaction import MASK

MIN_KEY_PIECE = 8
"""Characters of the key in a row that are masked, wherever in the key they lie, and so the shortest key that is masked.

Servers like to show a beginning or an end of a key. Shorter keys, such as `none` or `ollama`, protect nothing.
"""

MAX_SHOWN_CHARACTERS = 200
MAX_READ_CHARACTERS = 20 * MAX_SHOWN_CHARACTERS
"""Characters of a text that are read in order to show the first `MAX_SHOWN_CHARACTERS`."""

_ESCAPE = re.compile(r"\\u00([2-7][0-9a-f])|%([2-7][0-9a-f])|\\([\"\\/])", re.IGNORECASE)
"""A printable ASCII character as JSON or an address may write it."""
_LOWER_CASE = str.maketrans(ascii_uppercase, ascii_lowercase)
_COVERED = b"\x01"


class KeyMask:
    """Masks keys in texts: every `MIN_KEY_PIECE` or more characters in a row, also in base64, in any case, escaped.

    Args:
        keys: what is masked; None for no key.
    """

    def __init__(self, *keys: str | None):
        long_enough = [key for key in keys if key is not None and len(key) >= MIN_KEY_PIECE]
        forms = (form for key in long_enough for form in _forms(key.encode()))
        self._pieces = frozenset(piece for form in forms for piece in _pieces(form))

    def __repr__(self) -> str:
        return "KeyMask()"

    def mask(self, text: str) -> str:
        """Return the text with `***` for each piece of the key."""
        if not self._pieces:
            return text
        plain, starts = _without_escapes(text)
        covered = bytearray(len(plain))
        for at, piece in enumerate(_pieces(plain.translate(_LOWER_CASE))):
            if piece in self._pieces:
                covered[at : at + MIN_KEY_PIECE] = _COVERED * MIN_KEY_PIECE
        kept, end = [], 0
        for run in re.finditer(_COVERED + b"+", covered):
            kept += [text[end : starts[run.start()]], MASK]
            end = starts[run.end()]
        return "".join([*kept, text[end:]])

    def one_line(self, text: str) -> str:
        """Return the beginning of a text on one line, printable and without the key."""
        shown = self.mask(" ".join(text.split())[:MAX_READ_CHARACTERS])[:MAX_SHOWN_CHARACTERS]
        return "".join(ch if ch.isprintable() else "\N{REPLACEMENT CHARACTER}" for ch in shown)


def _forms(key: bytes) -> Iterator[str]:
    """Yield the key, and what each place in a longer text makes of it in base64, in lower case."""
    yield key.decode().lower()
    for before, mixed in ((0, 0), (1, 2), (2, 3)):  # bytes before the key, and characters that they share with it
        encoded = base64.b64encode(bytes(before) + key).decode().rstrip("=")[mixed:].lower()
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + MIN_KEY_PIECE] for at in range(len(text) - MIN_KEY_PIECE + 1))


def _without_escapes(text: str) -> tuple[str, "array[int] | range"]:
    """Return the text with escapes resolved, and where in the given text each of its characters, and its end, lies."""
    starts, characters, end = array("L"), [], 0
    for escape in _ESCAPE.finditer(text):
        characters += [text[end : escape.start()], escape[3] or chr(int(escape[1] or escape[2], 16))]
        starts.extend(range(end, escape.start() + 1))
        end = escape.end()
    if end == 0:
        return text, range(len(text) + 1)
    starts.extend(range(end, len(text) + 1))
    return "".join([*characters, text[end:]]), starts
