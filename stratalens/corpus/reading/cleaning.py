"""Text without characters that nobody sees, with line ends of one kind."""

import html
import re

from stratalens.corpus.reading.notes import ReadingNotes

_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85]")
_NOT_PLAIN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_REMOVED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
"""Control characters but tab and line ends, byte order marks, and halves of characters (lone surrogates)."""


def clean(text: str, where: str, notes: ReadingNotes) -> str:
    """Remove control characters, which are counted; line ends of every kind, page breaks too, become newlines."""
    if _NOT_PLAIN.search(text) is None:
        return text
    text = _LINE_ENDS.sub("\n", text)
    text, removed = _REMOVED.subn("", text)
    if removed:
        notes.control_characters.add(where, removed)
    return text


def unescaped(text: str) -> str:
    """Text with character references such as `&amp;`, `&#160;` and `&nbsp` as a browser shows them (HTML 5)."""
    return html.unescape(text) if "&" in text else text
