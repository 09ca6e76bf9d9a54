"""Rows of CSV files, each with the number of its first line."""

import csv
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from stratalens.corpus.reading.csv_dialect import find_dialect, header_cells, may_be_joined, named_in_first_line
from stratalens.corpus.reading.lines import Line, require_decoded
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.rows import ID_COLUMN, SKIP_REMEDY, BadRowError, require_columns
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.errors import CorpusError

MAX_CSV_FIELD_CHARACTERS = 10_000_000
"""A longer CSV cell or line is taken for an unclosed quote. Python's CSV reader needs 4 bytes per character."""
MAX_CSV_ROW_CHARACTERS = 4 * MAX_CSV_FIELD_CHARACTERS
HEAD_CHARACTERS = 2**18
"""Characters at the beginning of a file by which its dialect is recognised."""
MAX_HEAD_LINES = 2000
_ENDS_OF_FILES = "\0\x1a\ufeff"
"""Characters that old programs put at the end of a file; a line of them alone is blank."""
_LONG_CELL_REMEDY = "; close its quote, or store such long texts as jsonl or parquet"
_QUOTING_REMEDY = (
    'give --csv_quoting none if quotation marks are ordinary characters in it, backslash if they are written \\"'
)


class CsvRow(NamedTuple):
    """A row, or what is wrong with it."""

    where: str
    """File and first line of the row."""
    cells: dict[str, str]
    """Column -> cell."""
    problem: str = ""


class CsvRows:
    """Iterator over the rows of a CSV file.

    Raises:
        CorpusError: the file has no such columns, or a row of it cannot be told from the next.
    """

    def __init__(self, path: object, lines: Iterator[Line], delimiter: str, options: TextOptions, notes: ReadingNotes):
        csv.field_size_limit(MAX_CSV_FIELD_CHARACTERS)
        self._path, self._options, self._notes = path, options, notes
        self._lines = _RowLines(path, lines)
        header = self._lines.first_line(named_in_first_line)
        if header is None:
            raise CorpusError(f"{path}: not a readable CSV file (no columns: the file is empty)")
        head = [header, *self._lines.head()]
        default = self._lines.named_delimiter or delimiter
        self._dialect = find_dialect(str(path), head, default, options, whole=self._lines.is_whole)
        if self._dialect.quoting != "standard" and not self._dialect.given:
            notes.note_quoting(self._dialect.quoting, path)
        self._columns = header_cells(header, self._dialect.delimiter)
        require_columns(str(path), self._columns, options)
        for name in options.text_column:
            if self._columns.count(name) > 1:
                raise CorpusError(f"{path}: several columns are named `{name}`; rename all but one")
        self._rows = self._dialect.rows(self._lines)

    def __iter__(self) -> "CsvRows":
        return self

    def __next__(self) -> CsvRow:
        while True:
            self._lines.begin_row()
            try:
                cells = next(self._rows)
            except csv.Error as error:
                return self._broken(error)
            if cells:
                return self._row(cells)

    def _row(self, cells: list[str]) -> CsvRow:
        where = f"{self._path}:{self._lines.row_start}"
        lines = self._lines.row
        if len(lines) > 1:
            self._notes.note_cell(where, len(lines))
            if self._may_be_joined(lines, cells):
                raise CorpusError(
                    f"{where}: a quotation mark joins {len(lines)} lines, which may be rows; {_QUOTING_REMEDY}, "
                    "standard if they are one cell"
                )
        row = CsvRow(where, dict(zip(self._columns, cells, strict=False)), self._problem(where, cells))
        if row.problem and len(lines) > 1 and not self._dialect.given:  # what is in the lines is not known
            raise CorpusError(row.problem.removesuffix(f", {SKIP_REMEDY}"))
        if len(cells) < len(self._columns) and not row.problem:
            self._notes.short_rows.add(where)
        return row

    def _problem(self, where: str, cells: list[str]) -> str:
        """What is wrong with a row; empty if nothing is."""
        columns = len(self._columns)
        if self._lines.problem:
            return self._lines.problem
        if any(cells[columns:]) or len(cells) > columns == 1:
            quoted = f"put texts that contain a `{_shown(self._dialect.delimiter)}` in quotes"
            return f"{where}: more cells than columns; {quoted}, {SKIP_REMEDY}"
        for name in self._options.text_column:
            if name in self._columns[len(cells) :]:
                return (
                    f"{where}: fewer cells than columns, and none for `{name}`; put texts of several lines in quotes, "
                    f"{SKIP_REMEDY}"
                )
        return ""

    def _may_be_joined(self, lines: list[str], cells: list[str]) -> bool:
        """Whether a quotation mark may have joined rows: they look so, or are in a cell that should be short."""
        if may_be_joined(lines, len(self._columns), self._dialect):
            return True
        if self._dialect.given:
            return False
        short = [
            name
            for name, cell in zip(self._columns, cells, strict=False)
            if "\n" in cell.strip() and name not in self._options.text_column
        ]
        return bool(short) and (not self._dialect.proven or (self._options.id_column or ID_COLUMN) in short)

    def _broken(self, error: csv.Error) -> CsvRow:
        """A row that is not written as it should be; where it took several lines, what is in them is not known."""
        where = f"{self._path}:{self._lines.row_start}"
        if "field larger" in str(error):
            raise CorpusError(f"{where}: not a readable CSV file ({error}){_LONG_CELL_REMEDY}") from None
        problem = f"{where}: not a readable CSV row ({error}); {_QUOTING_REMEDY}"
        if len(self._lines.row) > 1:
            raise CorpusError(problem) from None
        return CsvRow(where, {}, f"{problem}, {SKIP_REMEDY}")


class _RowLines:
    """The lines of a CSV file with their ends, each of limited length, and together as long as one row may be."""

    def __init__(self, path: object, lines: Iterator[Line]):
        self._path, self._lines = path, lines
        self._kept: list[Line] = []
        """Lines that were looked at and are still to come, the next one last."""
        self.named_delimiter: str | None = None
        self.is_whole = False
        """Whether the lines of `head` are all that were left."""
        self.row: list[str] = []
        """Lines of the row that is being read."""
        self.row_start = 0
        """Number of its first line."""
        self.problem = ""
        """What is wrong with its bytes."""
        self._characters = 0

    def first_line(self, named_delimiter) -> str | None:
        """The header: the first line that is not blank and does not name the delimiter."""
        for line in self._lines:
            if self.named_delimiter is None and (named := named_delimiter(line.text.lstrip("\ufeff"))):
                self.named_delimiter = named
            elif line.text.strip():
                self._check(line)
                return line.text + "\n"
        return None

    def head(self) -> list[str]:
        """The next lines, which `__next__` gives again."""
        head: list[Line] = []
        characters = 0
        for line in islice(self._lines, MAX_HEAD_LINES):
            head.append(line)
            characters += len(line.text)
            if characters > HEAD_CHARACTERS:
                break
        else:
            self.is_whole = len(head) < MAX_HEAD_LINES
        self._kept = head[::-1]
        return [line.text + "\n" for line in head if len(line.text) <= HEAD_CHARACTERS]

    def begin_row(self) -> None:
        self.row, self.problem, self._characters = [], "", 0

    def __iter__(self) -> "_RowLines":
        return self

    def __next__(self) -> str:
        line = self._kept.pop() if self._kept else next(self._lines)
        if not self.row:
            self.row_start = line.number
        self._check(line)
        text = line.text + "\n" if self.row or line.text.strip(_ENDS_OF_FILES) else "\n"
        self.row.append(text)
        return text

    def _check(self, line: Line) -> None:
        self._characters += len(line.text)
        for what, length, limit in (
            ("line", len(line.text), MAX_CSV_FIELD_CHARACTERS),
            ("row", self._characters, MAX_CSV_ROW_CHARACTERS),
        ):
            if length > limit:
                raise CorpusError(
                    f"{self._path}:{line.number}: a {what} of more than {limit:,} characters{_LONG_CELL_REMEDY}"
                )
        try:
            require_decoded(f"{self._path}:{line.number}", line.text, line.encoding)
        except BadRowError as error:
            self.problem = str(error)


def _shown(delimiter: str) -> str:
    return {"\t": "tab"}.get(delimiter, delimiter)
