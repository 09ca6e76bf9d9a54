"""One row of a corpus: its text and identifier, checked the same way whatever file they come from."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from stratalens.errors import CorpusError

ID_COLUMN = "id"
MAX_LISTED_COLUMNS = 12
"""At most this many column names are listed in an error message."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class Row(NamedTuple):
    """One row, line or whole file of a corpus."""

    text: str
    """Text without surrounding white space; may be empty."""
    identifier: str | None
    """The row's `id`, if it has one."""


def make_row(where: str, text: object, identifier: object) -> Row:
    """Build a row from the values of its cells; a missing text (None) becomes an empty one.

    Args:
        where: file and line of the row, for error messages.
        text: value of the text column.
        identifier: value of the column `id`; None and "" mean that there is none.

    Raises:
        CorpusError: the text is not a string or holds a lone surrogate, or the identifier is a list or a table.
    """
    if text is None:
        return Row("", None)
    if not isinstance(text, str):
        raise CorpusError(f"{where}: the text column holds {type(text).__name__}, not text")
    if not text.isascii() and _LONE_SURROGATE.search(text):
        raise CorpusError(f"{where}: the text holds half a character (a lone surrogate); remove it or write it again")
    if isinstance(identifier, dict | list):
        raise CorpusError(
            f"{where}: the column `{ID_COLUMN}` holds {type(identifier).__name__}, not a word or a number"
        )
    return Row(text.strip(), None if identifier in (None, "") else str(identifier))


def require_column(where: str, columns: Sequence[str], column: str, remedy: str) -> None:
    """Check that a column is among those of a file or row.

    Args:
        where: file and line, for the error message.
        columns: names of the columns that are there.
        column: name of the column that is needed.
        remedy: end of the error message: what the user can do.

    Raises:
        CorpusError: the column is missing; the message lists those that are there.
    """
    if column not in columns:
        found = ", ".join(map(str, columns[:MAX_LISTED_COLUMNS])) or "none"
        raise CorpusError(f"{where}: no column `{column}` (found: {found}); {remedy}")
