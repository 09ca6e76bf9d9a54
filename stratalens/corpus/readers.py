"""Readers of text: txt, jsonl, csv and parquet files, gz of these, here or behind an address, and streamed datasets.

All stream: a reader holds the document it is making and what that is made of, and nothing that it has given away. A
generator's own variables would hold it until the next document is there, hence `map` where a loop would be usual.
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

LONGEST_FIELD = 10_000_000
"""Characters of a CSV cell or line; a longer one is an unclosed quote. Python's CSV reader takes 4 bytes for each."""
BUFFER_BYTES = 2**20
NAME_THE_TEXT = "name the text with --text_column"


class TextFile(NamedTuple):
    """A file or a streamed dataset to read, and how."""

    path: Path | Url | DatasetSplit
    """Its `str` is what may be printed."""
    reader: Callable[["TextFile", str], Iterator[Row]]
    unit: str
    """`line` or `file` for plain text, `row` for tables: what one document is."""


def read_rows(file: TextFile, text_column: str) -> Iterator[Row]:
    """Stream the rows of one file.

    Raises:
        CorpusError: unreadable, not UTF-8, broken or without the text column; the message names file and line.
    """
    try:
        yield from file.reader(file, text_column)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.path}: not UTF-8 text ({error.reason}); convert it, say with iconv") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "cut short"
        raise CorpusError(f"{file.path}: cannot be read: {reason}") from None


@contextmanager
def _open(file: TextFile) -> Iterator[io.BufferedIOBase]:
    """The bytes of a file, unzipped."""
    assert not isinstance(file.path, DatasetSplit)
    with cast(io.BufferedReader, file.path.open("rb", BUFFER_BYTES)) as stream:
        if _is_zipped(file.path):
            yield io.BufferedReader(gzip.GzipFile(fileobj=stream), BUFFER_BYTES)  # pyright: ignore[reportArgumentType]
        else:
            yield stream


def _lines(file: TextFile) -> Iterator[tuple[int, str]]:
    """Number and text of each line."""
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
        raise CorpusError(f"{file.path}:{number}: not UTF-8 text; convert it, say with iconv") from None
    del line
    return number, text.strip()


def read_text_file(file: TextFile, text_column: str) -> Iterator[Row]:
    """Stream the lines of a plain-text file, or the whole of it as one row."""
    if file.unit == "file":
        yield Row(_whole_text(file).strip(), None)
    else:
        yield from starmap(lambda _, line: Row(line, None), _lines(file))


def _whole_text(file: TextFile) -> str:
    """All of a file, decoded as it comes: its bytes and its text are never there at once."""
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
        raise CorpusError(f"{where}: not valid JSON ({reason}); one object a line is expected") from None
    if not isinstance(record, dict):
        raise CorpusError(f"{where}: a JSON object was expected, found {type(record).__name__}")
    require_column(where, list(record), text_column, NAME_THE_TEXT)
    return where, record[text_column], record.get(ID_COLUMN)


def _read_csv(file: TextFile, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    separator = "\t" if _kind(file.path) == ".tsv" else ","
    with _open(file) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:  # pyright: ignore[reportArgumentType]
        table = csv.DictReader(_csv_lines(file, text), delimiter=separator, strict=True)
        try:
            if table.fieldnames is None:
                raise CorpusError(f"{file.path}: not a readable CSV file (No columns, the file is empty)")
            require_column(str(file.path), table.fieldnames, text_column, NAME_THE_TEXT)
            for record in table:
                where = f"{file.path}:{table.line_num}"
                if None in record:
                    raise CorpusError(f"{where}: more cells than columns; quote the texts that hold a `{separator}`")
                yield make_row(where, record[text_column], record.get(ID_COLUMN))
        except csv.Error as error:
            remedy = _LONG_CELL if "field larger" in str(error) else ""
            raise CorpusError(
                f"{file.path}: not a readable CSV file (line {table.line_num}: {error}){remedy}"
            ) from None


def _csv_lines(file: TextFile, text: io.TextIOWrapper) -> Iterator[str]:
    for number in count(1):
        line = text.readline(LONGEST_FIELD + 1)
        if not line:
            return
        if len(line) > LONGEST_FIELD:
            raise CorpusError(f"{file.path}:{number}: a line of more than {LONGEST_FIELD:,} characters{_LONG_CELL}")
        yield line


_LONG_CELL = "; close its quote, or keep texts as long as that in jsonl or parquet"


def _read_parquet(file: TextFile, text_column: str) -> Iterator[Row]:
    """Row by row; what is in memory is the page of the file that holds the row, unpacked, and not a row group."""
    import pyarrow
    import pyarrow.parquet

    try:
        with _open_seekable(file) as stream:
            table = pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
            columns = table.schema_arrow.names
            require_column(str(file.path), columns, text_column, NAME_THE_TEXT)
            wanted = [column for column in (text_column, ID_COLUMN) if column in columns]
            batches = table.iter_batches(batch_size=1, columns=wanted, use_threads=False)
            yield from starmap(make_row, map(partial(_parquet_cells, file, text_column), batches))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CorpusError(f"{file.path}: not a readable parquet file ({reason[0]})") from None


def _parquet_cells(file: TextFile, text_column: str, batch: Any) -> tuple[str, object, object]:
    """The cells of a batch of one row; arrow keeps freed memory, which after a huge text is worth asking for."""
    if batch.nbytes > BUFFER_BYTES:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    cells = batch.to_pydict()
    return str(file.path), cells[text_column][0], cells.get(ID_COLUMN, [None])[0]


@contextmanager
def _open_seekable(file: TextFile) -> Iterator[Any]:
    """The bytes of a file for reading here and there; by way of a temporary file where its own stream only runs on."""
    with _open(file) as stream:
        if stream.seekable() and not _is_zipped(file.path):
            yield stream
        else:
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(stream, copy, BUFFER_BYTES)
                copy.seek(0)
                yield copy


def read_dataset(file: TextFile, text_column: str) -> Iterator[Row]:
    """Rows of a dataset; it names its own text column."""
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
    """The ending that tells how a file is read, in lower case, `.gz` left out."""
    suffixes = [] if isinstance(path, DatasetSplit) else [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_zipped(path: Path | Url | DatasetSplit) -> bool:
    return not isinstance(path, DatasetSplit) and path.suffix.lower() == ".gz"


def reader_of(path: Path | Url) -> Callable[[TextFile, str], Iterator[Row]] | None:
    """The reader of files of this ending; None where there is none."""
    return READERS.get(_kind(path))
