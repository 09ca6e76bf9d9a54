"""Readers of txt, jsonl, csv and parquet files, gzipped or not, local or behind an address, and of streamed datasets.

All readers stream: in memory are the document that is being read and its raw data, never one that was already yielded.
The variables of a generator would keep the last document alive until the next one is read, so many loops are written
with `map`.
"""

import codecs
import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count, starmap
from pathlib import Path
from typing import Any, NamedTuple, cast

from stratalens.corpus.hub_datasets import DatasetSplit, open_split
from stratalens.corpus.remote import Url, file_at
from stratalens.corpus.rows import (
    ID_COLUMN,
    Row,
    make_row,
    require_column,
)
from stratalens.errors import CorpusError

MAX_CSV_FIELD_CHARACTERS = 10_000_000
"""A longer CSV cell or line is taken for an unclosed quote. Python's CSV reader needs 4 bytes per character."""
BUFFER_BYTES = 2**20
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
    """
    try:
        yield from file.reader(file, text_column)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.path}: not UTF-8 text ({error.reason}); convert it, for example with iconv") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "the file ends early"
        raise CorpusError(f"{file.path}: cannot be read: {reason}") from None


@contextmanager
def _open(file: TextFile) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading bytes, decompressed if it is gzipped."""
    assert not isinstance(file.path, DatasetSplit)
    with cast(io.BufferedReader, file.path.open("rb", BUFFER_BYTES)) as stream:
        if _is_gzipped(file.path):
            yield io.BufferedReader(gzip.GzipFile(fileobj=stream), BUFFER_BYTES)  # pyright: ignore[reportArgumentType]
        else:
            yield stream


def _lines(file: TextFile) -> Iterator[tuple[int, str]]:
    """Yield the number and the stripped text of each line."""
    with _open(file) as stream:
        yield from iter(partial(_next_line, file, stream, count(1)), None)


def _next_line(file: TextFile, stream: io.BufferedIOBase, numbers: Iterator[int]) -> tuple[int, str] | None:
    number, line = next(numbers), stream.readline()
    if not line:
        return None
    start = len(codecs.BOM_UTF8) if number == 1 and line.startswith(codecs.BOM_UTF8) else 0
    try:
        text = str(memoryview(line)[start:], "utf-8")
    except UnicodeDecodeError:
        raise CorpusError(f"{file.path}:{number}: not UTF-8 text; convert it, for example with iconv") from None
    del line
    return number, text.strip()


def read_text_file(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield each line of a plain-text file as a row, or the whole file as one row if its unit is `file`.

    Raises:
        CorpusError: a line is not UTF-8 text.
        UnicodeDecodeError: the whole file is not UTF-8 text; `read_rows` turns this and OSError into CorpusError.
    """
    if file.unit == "file":
        yield Row(_whole_text(file).strip(), None)
    else:
        yield from starmap(lambda _, line: Row(line, None), _lines(file))


def _whole_text(file: TextFile) -> str:
    """Text of a whole file, decoded piece by piece so that bytes and text are never both in memory."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    with _open(file) as stream:
        pieces = [decoder.decode(piece) for piece in iter(partial(stream.read, BUFFER_BYTES), b"")]
    return "".join(pieces) + decoder.decode(b"", final=True)


def _read_jsonl(file: TextFile, text_column: str) -> Iterator[Row]:
    cells = starmap(partial(_json_cells, file, text_column), _lines(file))
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
    with _open(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:  # pyright: ignore[reportArgumentType]
        table = csv.DictReader(_csv_lines(file, text), delimiter=separator, strict=True)
        try:
            if table.fieldnames is None:
                raise CorpusError(f"{file.path}: not a readable CSV file (no columns: the file is empty)")
            require_column(str(file.path), table.fieldnames, text_column, TEXT_COLUMN_REMEDY)
            for record in table:
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


def _csv_lines(file: TextFile, text: io.TextIOWrapper) -> Iterator[str]:
    for number in count(1):
        line = text.readline(MAX_CSV_FIELD_CHARACTERS + 1)
        if not line:
            return
        if len(line) > MAX_CSV_FIELD_CHARACTERS:
            raise CorpusError(
                f"{file.path}:{number}: a line of more than {MAX_CSV_FIELD_CHARACTERS:,} characters{_LONG_CELL_REMEDY}"
            )
        yield line


_LONG_CELL_REMEDY = "; close its quote, or store such long texts as jsonl or parquet"


def _read_parquet(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield row by row. Only the page with the current row is in memory, decompressed, not its whole row group."""
    import pyarrow
    import pyarrow.parquet

    try:
        with _open_seekable(file) as stream:
            table = pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
            columns = table.schema_arrow.names
            require_column(str(file.path), columns, text_column, TEXT_COLUMN_REMEDY)
            wanted = [column for column in (text_column, ID_COLUMN) if column in columns]
            batches = table.iter_batches(batch_size=1, columns=wanted, use_threads=False)
            yield from starmap(make_row, map(partial(_parquet_cells, file, text_column), batches))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CorpusError(f"{file.path}: not a readable parquet file ({reason[0]})") from None


def _parquet_cells(file: TextFile, text_column: str, batch: Any) -> tuple[str, object, object]:
    """Cells of a batch of one row. Arrow keeps the memory of freed batches; after a huge text it is released."""
    if batch.nbytes > BUFFER_BYTES:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    cells = batch.to_pydict()
    return str(file.path), cells[text_column][0], cells.get(ID_COLUMN, [None])[0]


@contextmanager
def _open_seekable(file: TextFile) -> Iterator[Any]:
    """Open a file as a seekable stream of bytes, copied into a temporary file where its own stream cannot seek."""
    with _open(file) as stream:
        if stream.seekable() and not _is_gzipped(file.path):
            yield stream
        else:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(stream, copy, BUFFER_BYTES)
                copy.seek(0)
                yield copy


def read_dataset(file: TextFile, text_column: str) -> Iterator[Row]:
    """Yield the rows of a streamed dataset; `text_column` is ignored, as the dataset's name gives its column.

    Raises:
        CorpusError: the dataset cannot be found or read, or lacks the column.
    """
    assert isinstance(file.path, DatasetSplit)
    opened = open_split(file.path)
    if opened.parquet_files:
        for location in opened.parquet_files:
            yield from _read_parquet(TextFile(file_at(location), _read_parquet, "row"), file.path.column)
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


def _is_gzipped(path: Path | Url | DatasetSplit) -> bool:
    return not isinstance(path, DatasetSplit) and path.suffix.lower() == ".gz"


def reader_of(path: Path | Url) -> Callable[[TextFile, str], Iterator[Row]] | None:
    """The reader for files with this suffix; None if there is none."""
    return READERS.get(_kind(path))
