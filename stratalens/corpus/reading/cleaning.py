"""Text without characters that nobody sees, with line ends of one kind."""

import html
import re

from stratalens.corpus.reading.notes import ReadingNotes

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85]")
_CONTROL_BYTES = bytes([*range(9), *range(11, 32), 127])
_C1_IN_UTF_8 = re.compile(b"\xc2[\x80-\x9f]")
_BYTE_ORDER_MARK = "\ufeff".encode()
PIECE_CHARACTERS = 2**20
"""Characters of a long text that are looked at together."""
_REMOVED = re.compile("\x1b\\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
"""Codes of a terminal, such as of colours; other control characters but tab and line ends; byte order marks; and halves
of characters (lone surrogates)."""


def clean(text: str, where: str, notes: ReadingNotes) -> str:
    """Remove control characters, which are counted; line ends of every kind, page breaks too, become newlines."""
    if all(_is_plain(text[start : start + PIECE_CHARACTERS]) for start in range(0, len(text), PIECE_CHARACTERS)):
        return text
    text = _LINE_ENDS.sub("\n", text)
    text, removed = _REMOVED.subn("", text)
    if removed:
        notes.control_characters.add(where, removed)
    return text


def unescaped(text: str) -> str:
    """Text with character references such as `&amp;`, `&#160;` and `&nbsp` as a browser shows them (HTML 5)."""
    return html.unescape(text) if "&" in text else text


def _is_plain(text: str) -> bool:
    """Whether there is nothing to clean; by the bytes of the text, which takes a fraction of the time of a pattern."""
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    if len(data.translate(None, _CONTROL_BYTES)) < len(data):
        return False
    return text.isascii() or (_BYTE_ORDER_MARK not in data and _C1_IN_UTF_8.search(data) is None)
