"""One row of a corpus: what is taken of it, whatever it stands in, and what it may hold."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from stratalens.errors import CorpusError

ID_COLUMN = "id"
NAMED_COLUMNS = 12
"""Columns that an error names."""
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


class Row(NamedTuple):
    """One row, line or file of a corpus, as it stands there."""

    text: str
    """Text without surrounding white space; may be empty."""
    identifier: str | None
    """The row's `id`, if it has one."""


def make_row(where: str, text: object, identifier: object) -> Row:
    """A row of what stands in its cells.

    Raises:
        CorpusError: the text is no text, or the identifier no word or number.
    """
    if text is None:
        return Row("", None)
    if not isinstance(text, str):
        raise CorpusError(f"{where}: the text column holds {type(text).__name__}, not text")
    if not text.isascii() and _HALF_A_CHARACTER.search(text):
        raise CorpusError(f"{where}: the text holds half a character (a lone surrogate); write it anew")
    if isinstance(identifier, dict | list):
        raise CorpusError(
            f"{where}: the column `{ID_COLUMN}` holds {type(identifier).__name__}, not a word or a number"
        )
    return Row(text.strip(), None if identifier in (None, "") else str(identifier))


def require_column(where: str, columns: Sequence[str], column: str, remedy: str) -> None:
    """Make sure that the column is among those found.

    Raises:
        CorpusError: it is not; the message lists the columns.
    """
    if column not in columns:
        found = ", ".join(map(str, columns[:NAMED_COLUMNS])) or "none"
        raise CorpusError(f"{where}: no column `{column}` (found: {found}); {remedy}")
