"""One row of a corpus: its text and identifier, picked from its columns the same way whatever file they come from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from stratalens.corpus.names import plain_name
from stratalens.corpus.reading.cleaning import clean, unescaped
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.text_options import NO_ID, TextOptions
from stratalens.errors import CorpusError

ID_COLUMN = "id"
MAX_LISTED_COLUMNS = 12
"""At most this many column names are listed in an error message."""
COLUMN_SEPARATOR = "\n\n"
"""What joins the texts of several columns."""
SKIP_REMEDY = "or skip such rows with --skip_bad_rows"
TEXT_COLUMN_REMEDY = "give the text column with --text_column"


class BadRowError(CorpusError):
    """One row of a file cannot be read; the rows after it can."""


class Row(NamedTuple):
    """One row, line or whole file of a corpus."""

    text: str
    """Clean text without surrounding white space; may be empty."""
    identifier: str | None
    """What names the row's document, if there is anything."""
    kind: str | None = None
    """Kind of the document, if it has one."""
    source: str | None = None
    """Source of the document, if a column names it."""


def text_row(where: str, text: str, options: TextOptions, notes: ReadingNotes) -> Row:
    """Build a row of a text that has no columns."""
    return Row(_clean(where, text, options, notes), None, options.kind)


def make_row(
    where: str,
    cells: Mapping[str, object],
    options: TextOptions,
    notes: ReadingNotes,
    remedy: str = TEXT_COLUMN_REMEDY,
) -> Row:
    """Pick the text and the identifier from the cells of a row; a missing value (None) becomes an empty text.

    Args:
        where: file and line of the row, for error messages.
        cells: column -> value; a value may be a mapping of its own.
        options: names of the columns.
        notes: receives what was unusual.
        remedy: what to do where there is no such column.

    Raises:
        BadRowError: a column is missing, a text is not a string, or the identifier is a list or a table.
    """
    texts = []
    for column in options.text_column:
        value = _field(where, cells, column, remedy)
        if not isinstance(value, str | None):
            named = f" `{column}`" if len(options.text_column) > 1 else ""
            kind = type(value).__name__
            raise BadRowError(f"{where}: the text column{named} holds {kind}, not text; {remedy}, {SKIP_REMEDY}")
        if value is not None:
            texts.append(_clean(where, value, options, notes))
    if not texts:
        return Row("", None)
    return Row(
        text=texts[0] if len(texts) == 1 else COLUMN_SEPARATOR.join(filter(None, texts)),
        identifier=_identifier(where, cells, options),
        kind=options.kind or _name(where, cells, options.kind_column, "kind"),
        source=_name(where, cells, options.source_column, "source"),
    )


def _named_columns(options: TextOptions) -> dict[str, str]:
    """What a column that the options name holds -> its name; the text columns apart."""
    columns = {"id": options.id_column, "kind": options.kind_column, "source": options.source_column}
    return {what: column for what, column in columns.items() if column is not None and (what, column) != ("id", NO_ID)}


def wanted_columns(options: TextOptions) -> tuple[str, ...]:
    """Names of the columns that a row is made of."""
    default = [ID_COLUMN] if options.id_column is None else []
    return (*options.text_column, *_named_columns(options).values(), *default)


def require_columns(where: str, columns: Sequence[str], options: TextOptions, remedy: str = TEXT_COLUMN_REMEDY) -> None:
    """Check that the columns that must be there are among those of a table.

    Raises:
        CorpusError: one is missing; the message lists those that are there.
    """
    wanted = [(column, remedy) for column in options.text_column]
    wanted += [(column, _column_remedy(what)) for what, column in _named_columns(options).items()]
    for column, own_remedy in wanted:
        if not _names_one(column, columns):
            raise CorpusError(missing_column(where, column, columns, own_remedy))


def _column_remedy(what: str) -> str:
    return f"give the {what} column with --{what}_column"


def missing_column(where: str, column: str, columns: Sequence[object], remedy: str) -> str:
    """Message that a column is missing, with those that are there."""
    found = ", ".join(map(str, columns[:MAX_LISTED_COLUMNS])) or "none"
    return f"{where}: no column `{column}` (found: {found}); {remedy}"


def _names_one(column: str, columns: Sequence[str]) -> bool:
    """Whether a name is one of the columns, or a field of one."""
    parts = column.split(".")
    return any(".".join(parts[:length]) in columns for length in range(1, len(parts) + 1))


def _field(where: str, cells: Mapping[str, object], column: str, remedy: str) -> object:
    """Value of a column, or of a field of it where the name has dots.

    Raises:
        BadRowError: there is no such column or field.
    """
    if column in cells:
        return cells[column]
    parts = column.split(".")
    for length in range(len(parts) - 1, 0, -1):
        outer = ".".join(parts[:length])
        if outer not in cells:
            continue
        value = cells[outer]
        if value is None:
            return None
        if isinstance(value, Mapping):
            return _field(where, value, ".".join(parts[length:]), remedy)
        raise BadRowError(
            f"{where}: no field `{'.'.join(parts[length:])}` in the column `{outer}`, which holds "
            f"{type(value).__name__}; {remedy}, {SKIP_REMEDY}"
        )
    raise BadRowError(missing_column(where, column, list(cells), f"{remedy}, {SKIP_REMEDY}"))


def _identifier(where: str, cells: Mapping[str, object], options: TextOptions) -> str | None:
    if options.id_column == NO_ID:
        return None
    if options.id_column is None:
        return _as_name(where, cells.get(ID_COLUMN), ID_COLUMN, "id")
    return _name(where, cells, options.id_column, "id")


def _name(where: str, cells: Mapping[str, object], column: str | None, what: str) -> str | None:
    """The word or number in a column that the options name; None where there is no such option, or nothing in it."""
    if column is None:
        return None
    name = _as_name(where, _field(where, cells, column, _column_remedy(what)), column, what)
    return plain_name((name or "").strip()) or None


def _as_name(where: str, value: object, column: str, what: str) -> str | None:
    if isinstance(value, Mapping | list):
        raise BadRowError(
            f"{where}: the column `{column}` holds {type(value).__name__}, not a word or a number; name another column "
            f"with --{what}_column, {SKIP_REMEDY}"
        )
    return None if value in (None, "") else str(value)


def _clean(where: str, text: str, options: TextOptions, notes: ReadingNotes) -> str:
    if options.unescape_html:
        text = unescaped(text)
    return clean(text, where, notes).strip()
