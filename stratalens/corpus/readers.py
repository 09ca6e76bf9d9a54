"""Readers of txt, jsonl, csv and parquet files, gzipped or not, local or behind an address, and of streamed datasets.

All readers stream: in memory are the document that is being read and its raw data, never one that was already yielded.
The variables of a generator would keep the last document alive until the next one is read, so many loops are written
with `map`.
"""

import csv
import io
import json
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import NamedTuple

from stratalens.corpus.hub_datasets import DatasetSplit, open_split
from stratalens.corpus.parquet import read_parquet
from stratalens.corpus.remote import Url, file_at
from stratalens.corpus.rows import (
    ID_COLUMN,
    Row,
    make_row,
    require_column,
)
from stratalens.corpus.streams import numbered_lines, open_bytes, whole_text
from stratalens.errors import CorpusError
from stratalens.files.regular import named_when_out_of_memory, reason_of

MAX_CSV_FIELD_CHARACTERS = 10_000_000
"""A longer CSV cell or line is taken for an unclosed quote. Python's CSV reader needs 4 bytes per character."""
MAX_CSV_ROW_CHARACTERS = 4 * MAX_CSV_FIELD_CHARACTERS
TEXT_COLUMN_REMEDY = "give the text column with --text_column"


class TextFile(NamedTuple):
    """A file or a streamed dataset to read, and how."""

    path: Path | Url | DatasetSplit
    """Its `str` may be printed: it holds no credentials."""
    reader: Callable[["TextFile", str], Iterator[Row]]
    unit: str
    """What one document is: `line` or `file` in plain text, `row` in a table or dataset."""


def read_rows(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield the rows of one file.

    Raises:
        CorpusError: the file is unreadable, not UTF-8, damaged or without the text column; the message names the file,
            and the line where that is known.
        CapacityError: there is not enough memory for one of its rows.
    """
    try:
        with named_when_out_of_memory(file.path):
            yield from file.reader(file, text_column)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.path}: not UTF-8 text ({error.reason}); convert it, for example with iconv") from None
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{file.path}: cannot be read: {reason_of(error)}") from None


def read_text_file(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield each line of a plain-text file as a row, or the whole file as one row if its unit is `file`.

    Raises:
        CorpusError: a line is not UTF-8 text.
        UnicodeDecodeError: the whole file is not UTF-8 text; `read_rows` turns this and OSError into CorpusError.
    """
    if file.unit == "file":
        yield Row(whole_text(_place(file)).strip(), None)
    else:
        yield from starmap(lambda _, line: Row(line, None), numbered_lines(_place(file)))


def _place(file: TextFile) -> Path | Url:
    assert not isinstance(file.path, DatasetSplit)
    return file.path


def _read_jsonl(file: TextFile, text_column: str) -> Iterator[Row]:
    cells = starmap(partial(_json_cells, file, text_column), numbered_lines(_place(file)))
    yield from starmap(make_row, filter(None, cells))


def _json_cells(file: TextFile, text_column: str, number: int, line: str) -> tuple[str, object, object] | None:
    if not line:
        return None
    where = f"{file.path}:{number}"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "unreadable value"
        raise CorpusError(f"{where}: not valid JSON ({reason}); one object per line is expected") from None
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: a JSON object was expected, found {type(record).__name__}")
    require_column(where, list(record), text_column, TEXT_COLUMN_REMEDY)
    return where, record[text_column], record.get(ID_COLUMN)


def _read_csv(file: TextFile, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_FIELD_CHARACTERS)
    separator = "\t" if _kind(file.path) == ".tsv" else ","
    with open_bytes(_place(file)) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:  # pyright: ignore[reportArgumentType]
        lines = _CsvLines(file, text)
        table = csv.DictReader(lines, delimiter=separator, strict=True)
        try:
            if table.fieldnames is None:
                raise CorpusError(f"{file.path}: not a readable CSV file (no columns: the file is empty)")
            require_column(str(file.path), table.fieldnames, text_column, TEXT_COLUMN_REMEDY)
            for record in table:
                lines.row_characters = 0
                where = f"{file.path}:{table.line_num}"
                if None in record:
                    raise CorpusError(
                        f"{where}: more cells than columns; put texts that contain a `{separator}` in quotes"
                    )
                yield make_row(where, record[text_column], record.get(ID_COLUMN))
        except csv.Error as error:
            remedy = _LONG_CELL_REMEDY if "field larger" in str(error) else ""
            raise CorpusError(
                f"{file.path}: not a readable CSV file (line {table.line_num}: {error}){remedy}"
            ) from None


class _CsvLines:
    """The lines of a CSV file, each of limited length, and together as long as one row may be."""

    def __init__(self, file: TextFile, text: io.TextIOWrapper):
        self._file, self._text, self._number = file, text, 0
        self.row_characters = 0
        """Characters since the row began; whoever takes a row sets this to 0."""

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_CSV_FIELD_CHARACTERS + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self.row_characters += len(line)
        for what, length, limit in (
            ("line", len(line), MAX_CSV_FIELD_CHARACTERS),
            ("row", self.row_characters, MAX_CSV_ROW_CHARACTERS),
        ):
            if length > limit:
                raise CorpusError(
                    f"{self._file.path}:{self._number}: a {what} of more than {limit:,} characters{_LONG_CELL_REMEDY}"
                )
        return line


_LONG_CELL_REMEDY = "; close its quote, or store such long texts as jsonl or parquet"


def _read_parquet(file: TextFile, text_column: str) -> Iterator[Row]:
    yield from read_parquet(_place(file), text_column, TEXT_COLUMN_REMEDY)


def read_dataset(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield the rows of a streamed dataset; `text_column` is ignored, as the dataset's name gives its column.

    Raises:
        CorpusError: the dataset cannot be found or read, or lacks the column.
    """
    assert isinstance(file.path, DatasetSplit)
    opened = open_split(file.path)
    if opened.parquet_files:
        for location in opened.parquet_files:
            yield from read_parquet(file_at(location), file.path.column, TEXT_COLUMN_REMEDY)
    else:
        yield from starmap(partial(make_row, str(file.path)), opened.rows())


READERS: dict[str, Callable[[TextFile, str], Iterator[Row]]] = {
    ".txt": read_text_file,
    ".md": read_text_file,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
READABLE_KINDS = ", ".join(READERS) + " (or .gz of these)"


def _kind(path: Path | Url | DatasetSplit) -> str:
    """The suffix that selects the reader, in lower case and without a final `.gz`."""
    suffixes = [] if isinstance(path, DatasetSplit) else [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def reader_of(path: Path | Url) -> Callable[[TextFile, str], Iterator[Row]] | None:
    """The reader for files with this suffix; None if there is none."""
    return READERS.get(_kind(path))
