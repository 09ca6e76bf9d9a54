"""Which character separates the cells of a CSV file, and how a quotation mark in it is meant."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from stratalens.config.text_words import delimiter_named
from stratalens.corpus.reading.notes import MANY_LINES
from stratalens.corpus.reading.rows import require_columns
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.errors import CorpusError

USUAL_DELIMITERS = (",", ";", "\t", "|")
NO_DELIMITER = "\x1f"
"""In a table of one column, where commas and others are part of the text."""
MIN_PROOF = 3
"""Quotation marks are known to enclose cells if they do so in this many rows. In a table of one column, once
is enough: only a quotation mark could say that a line is no row."""
MAX_LINES_LOOKED_AT = 1000
"""Lines of one row that are looked at to see whether they may be rows."""
MIN_JOINED_LINES = 3
"""Where they are known to, a cell that joins fewer lines that look like rows is no sign of a stray one."""
MAX_SHAPE_CHARACTERS = 40
MIN_ROWS_OF_TWO_COLUMNS = 4
MIN_ALIKE_ROWS = 2
MIN_ALIKE_SHARE = 0.6
"""Cells of a column are alike where more than this share of so many rows look the same."""
Quoting = Literal["standard", "backslash", "none"]
_BACKSLASHED = re.compile(r'\\(["\\])')
_NAMED_DELIMITER = re.compile(r'"?sep=(.)"?\s*', re.I)
_WRAPPED = re.compile(r'"(?:[^"]|"")*"')


@dataclass(frozen=True)
class CsvDialect:
    """How the cells of a CSV file are written."""

    delimiter: str
    quoting: Quoting
    given: bool = False
    """Whether the user says how a quotation mark is meant."""
    proven: bool = False
    """Whether the beginning of the file shows that quotation marks enclose cells."""
    spaced: bool = False
    """Whether a space between a delimiter and a quotation mark is no part of the cell."""
    shapes: tuple[str | None, ...] = ()
    """What the cells of each column look like, such as numbers or dates; None where they are not alike."""

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Cells of each row.

        Raises:
            csv.Error: a row is written in another way.
        """
        if self.quoting == "none":
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)
        if self.quoting == "backslash":
            lines = map(_doubled, lines)
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=self.spaced, strict=True)


def find_dialect(where: str, head: Sequence[str], default: str, options: TextOptions, *, whole: bool) -> CsvDialect:
    """Decide by the beginning of a file how its cells are written, where the options do not say.

    Args:
        where: the file, for error messages.
        head: its first lines, with line ends, the header first.
        default: the delimiter that is taken where several fit.
        options: names of the columns, and what is given.
        whole: whether these are all the lines of the file.

    Raises:
        CorpusError: there is no header, or it has no such columns.
    """
    given = delimiter_named(options.csv_delimiter) if options.csv_delimiter else None
    delimiter = given or _delimiter(where, head[0], default, options)
    if given is None and len(header_cells(head[0], delimiter)) == 1 and not _has_second_column(head, delimiter):
        delimiter = NO_DELIMITER
    if options.csv_quoting != "auto":
        return CsvDialect(delimiter, options.csv_quoting, given=True)
    columns = header_cells(head[0], delimiter)
    dialects = [CsvDialect(delimiter, quoting) for quoting in _quotings(head)]
    if any(f'{delimiter} "' in line for line in head):
        dialects[-1:-1] = [replace(dialect, spaced=True) for dialect in dialects[:-1]]
    read = [_HeadRows.read(dialect, head, whole) for dialect in dialects]
    mistakes = [rows.mistakes(dialect, len(columns)) for rows, dialect in zip(read, dialects, strict=True)]
    best = min(range(len(dialects)), key=lambda index: mistakes[index])
    shapes = _column_shapes(read[best].rows[1:], columns, options.text_column)
    proofs = sum(row.shows_quoting(delimiter, len(columns), shapes) for row in read[best].rows[1:])
    return replace(dialects[best], proven=proofs >= (1 if len(columns) == 1 else MIN_PROOF), shapes=shapes)


def named_in_first_line(line: str) -> str | None:
    """The delimiter that a first line such as `sep=;` names, as Excel writes it."""
    found = _NAMED_DELIMITER.fullmatch(line)
    return found[1] if found else None


def header_cells(line: str, delimiter: str) -> list[str]:
    """Names of the columns."""
    try:
        cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        cells = line.split(delimiter)
    return [cell.strip().lstrip("\ufeff").strip() for cell in cells]


def may_be_joined(lines: Sequence[str], columns: int, dialect: CsvDialect) -> bool:
    """Whether a cell that spans these lines may be several rows that a stray quotation mark joined.

    Args:
        lines: all lines of the row.
        columns: how many the file has.
        dialect: how the file is written.
    """
    if dialect.quoting == "none" or dialect.given:
        return False
    if dialect.proven and len(lines) < MIN_JOINED_LINES:
        return False
    if columns == 1:
        return not dialect.proven and len(lines) > MANY_LINES
    split = _plain_rows(lines[:MAX_LINES_LOOKED_AT], dialect.delimiter)
    if not split:
        return False
    looks = [len(own) == columns and _has_shapes(own, dialect.shapes) for own in split]
    if dialect.proven:
        return any(dialect.shapes) and all(looks)
    if any(dialect.shapes):
        return any(looks[1:])
    return all(looks) or (len(looks) >= MIN_JOINED_LINES and all(looks[:-1]))


def _quotings(head: Sequence[str]) -> list[Quoting]:
    """How quotation marks may be meant, as ordinary characters last."""
    return ["standard", *(["backslash"] if any('\\"' in line for line in head) else []), "none"]


def _has_shapes(cells: Sequence[str], shapes: Sequence[str | None]) -> bool:
    return all(shape in (None, _shape(cell)) for cell, shape in zip(cells, shapes, strict=True))


def _look_like_rows(lines: Sequence[str], columns: int, delimiter: str) -> bool:
    """Whether each line has a cell for each column, and those of one column are alike, such as numbers or dates."""
    split = _plain_rows(lines, delimiter)
    if columns == 1 or not split or any(len(own) != columns for own in split):
        return False
    shapes = [{_shape(own[column]) for own in split} for column in range(columns)]
    return any(len(own) == 1 and any(map(str.isalnum, next(iter(own)))) for own in shapes)


def _shape(cell: str) -> str:
    """What a number, a date or a code looks like, whatever its digits; empty for a longer text."""
    plain = cell.strip().strip('"')
    return re.sub(r"\d+", "0", plain) if len(plain) <= MAX_SHAPE_CHARACTERS else ""


def _plain_rows(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """Cells of each line if quotation marks are ordinary characters; none if a cell is too long."""
    try:
        return list(csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True))
    except csv.Error:
        return []


def _delimiter(where: str, header: str, default: str, options: TextOptions) -> str:
    """The delimiter by which the header has the columns that are asked for."""
    candidates = [default, *(usual for usual in USUAL_DELIMITERS if usual != default)]
    for delimiter in candidates:
        try:
            require_columns(where, header_cells(header, delimiter), options)
        except CorpusError:
            continue
        return delimiter
    return max(candidates, key=lambda delimiter: len(header_cells(header, delimiter)))


def _has_second_column(head: Sequence[str], delimiter: str) -> bool:
    """Whether all rows have one and the same number of cells, more than the header's single one.

    In a sentence a space follows each comma or semicolon; most tables have none there.
    """
    rows = [row for row in _plain_rows(head[1:], delimiter) if row]
    widths = set(map(len, rows))
    is_prose = all(cell.startswith(" ") for row in rows for cell in row[1:])
    return len(widths) == 1 and widths != {1} and len(head) > MIN_ROWS_OF_TWO_COLUMNS and not is_prose


class _HeadRow(NamedTuple):
    """A row at the beginning of a file."""

    cells: list[str]
    lines: list[str]

    def shows_quoting(self, delimiter: str, columns: int, shapes: Sequence[str | None]) -> bool:
        """Whether its lines would be no rows, or hold quoted cells, if quotation marks were ordinary characters."""
        if len(self.cells) != columns or '"' not in self.lines[0]:
            return False
        plain = _plain_rows(self.lines[:MAX_LINES_LOOKED_AT], delimiter)
        if not plain or len(plain[0]) != columns:
            return True
        if len(self.lines) == 1:
            return any(map(_is_wrapped, plain[0]))
        return not any(len(own) == columns and _has_shapes(own, shapes) for own in plain[1:])


class _HeadRows(NamedTuple):
    """The beginning of a file as it reads in one dialect."""

    rows: list[_HeadRow]
    broken: int
    """Rows that are not written in this dialect."""

    @classmethod
    def read(cls, dialect: CsvDialect, head: Sequence[str], whole: bool) -> "_HeadRows":
        """Read it; a last row that breaks off is no mistake unless these are all lines."""
        rows, taken, broken, first = list[_HeadRow](), list[str](), 0, 0
        reader = dialect.rows(_noted(head, taken))
        while True:
            try:
                cells = next(reader, None)
            except csv.Error:
                broken += whole or len(taken) < len(head)
                cells = []
            if cells is None:
                return cls(rows, broken)
            if cells:
                rows.append(_HeadRow(cells, taken[first:]))
            first = len(taken)

    def mistakes(self, dialect: CsvDialect, columns: int) -> int:
        """How many rows or cells are not as they would be in this dialect."""
        found = self.broken + sum(not _fits(row.cells, columns) for row in self.rows)
        if dialect.quoting != "none":
            if not dialect.spaced:
                found += sum(cell.startswith(" ") and _is_wrapped(cell) for row in self.rows for cell in row.cells)
            joined = [row for row in self.rows if len(row.lines) > 1]
            return found + sum(_look_like_rows(row.lines, columns, dialect.delimiter) for row in joined)
        found += sum(len(row.cells) < columns for row in self.rows)
        return found + sum(_is_wrapped(cell) for row in self.rows for cell in row.cells)


def _column_shapes(
    rows: Sequence[_HeadRow], columns: Sequence[str], text_column: Sequence[str]
) -> tuple[str | None, ...]:
    """What the cells of each column look like; None where they are not alike, and in the columns of the text."""
    shapes = [list(map(_shape, row.cells)) for row in rows if len(row.cells) == len(columns)]
    if len(shapes) < MIN_ALIKE_ROWS:
        return (None,) * len(columns)
    common = [Counter(column).most_common(1)[0] for column in zip(*shapes, strict=True)]
    return tuple(
        shape
        if name not in text_column and count > MIN_ALIKE_SHARE * len(shapes) and any(map(str.isalnum, shape))
        else None
        for name, (shape, count) in zip(columns, common, strict=True)
    )


def _is_wrapped(cell: str) -> bool:
    return _WRAPPED.fullmatch(cell.strip()) is not None


def _fits(row: Sequence[str], columns: int) -> bool:
    return len(row) <= columns or not any(row[columns:])


def _noted(lines: Iterable[str], taken: list[str]) -> Iterator[str]:
    for line in lines:
        taken.append(line)
        yield line


def _doubled(line: str) -> str:
    r"""A line with `""` for `\"` and `\` for `\\`."""
    return _BACKSLASHED.sub(lambda found: '""' if found[1] == '"' else "\\", line)
