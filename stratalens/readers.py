"""Readers of text files: txt, jsonl, csv and parquet, each also gzipped; directories and globs of them. All stream."""

import csv
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import CorpusError

ID_COLUMN = "id"
LONGEST_FIELD = 100_000_000
"""Characters of a CSV cell; a longer one is an unclosed quote."""


class Row(NamedTuple):
    """One row, line or file of a corpus, as it stands there."""

    text: str
    """Text without surrounding white space; may be empty."""
    identifier: str | None
    """The row's `id`, if it has one."""


class TextFile(NamedTuple):
    """A file to read, and how."""

    path: Path
    reader: Callable[["TextFile", str], Iterator[Row]]
    unit: str
    """`line` or `file` for plain text, `row` for tables: what one document is."""


def find_files(paths: Sequence[str | Path], text_unit: str = "auto") -> list[TextFile]:
    """List the readable files under paths, directories and globs, in a stable order.

    A plain-text file named itself is read by lines, one inside a directory as a whole, unless `text_unit` says
    `line` or `file`.

    Raises:
        CorpusError: nothing there, nothing readable there, or a file of an unknown kind was named.
    """
    found: dict[Path, TextFile] = {}
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _reader(p) and not _hidden(p, path) and p.is_file())
            if not inside:
                raise CorpusError(f"{given}: no {_KINDS} file in this directory")
            for each in inside:  # a file that is named itself as well keeps that reading
                found.setdefault(each.resolve(), _text_file(each, text_unit, whole=True))
            continue
        matches = [path] if path.is_file() else sorted(map(Path, glob.glob(str(path), recursive=True)))
        named = [match for match in matches if match.is_file()]
        if not named:
            raise CorpusError(f"{given}: no such file, directory or glob")
        found |= {each.resolve(): _text_file(each, text_unit, whole=False) for each in named}
    return list(found.values())


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


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.GzipFile(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise CorpusError(f"{path}:{number}: not UTF-8 text; convert it, say with iconv") from None


def _read_text(file: TextFile, text_column: str) -> Iterator[Row]:
    if file.unit == "file":
        with _open(file.path) as stream:
            yield Row(stream.read().decode("utf-8-sig").strip(), None)
    else:
        for _, line in _lines(file.path):
            yield Row(line, None)


def _read_jsonl(file: TextFile, text_column: str) -> Iterator[Row]:
    for number, line in _lines(file.path):
        if not line:
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "unreadable value"
            raise CorpusError(
                f"{file.path}:{number}: not valid JSON ({reason}); one object a line is expected"
            ) from None
        where = f"{file.path}:{number}"
        if not isinstance(record, dict):
            raise CorpusError(f"{where}: a JSON object was expected, found {type(record).__name__}")
        _require_column(where, list(record), text_column)
        yield _row(where, record[text_column], record.get(ID_COLUMN))


def _read_csv(file: TextFile, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    separator = "\t" if _kind(file.path) == ".tsv" else ","
    with io.TextIOWrapper(_open(file.path), "utf-8-sig", newline="") as text:  # pyright: ignore[reportArgumentType]
        table = csv.DictReader(text, delimiter=separator, strict=True)
        try:
            if table.fieldnames is None:
                raise CorpusError(f"{file.path}: not a readable CSV file (No columns, the file is empty)")
            _require_column(str(file.path), table.fieldnames, text_column)
            for record in table:
                where = f"{file.path}:{table.line_num}"
                if None in record:
                    raise CorpusError(f"{where}: more cells than columns; quote the texts that hold a `{separator}`")
                yield _row(where, record[text_column], record.get(ID_COLUMN))
        except csv.Error as error:
            raise CorpusError(f"{file.path}: not a readable CSV file (line {table.line_num}: {error})") from None


def _read_parquet(file: TextFile, text_column: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _open(file.path) as stream:
            table = pyarrow.parquet.ParquetFile(stream)
            columns = table.schema_arrow.names
            _require_column(str(file.path), columns, text_column)
            wanted = [column for column in (text_column, ID_COLUMN) if column in columns]
            for batch in table.iter_batches(batch_size=1000, columns=wanted):
                for record in batch.to_pylist():
                    yield _row(str(file.path), record[text_column], record.get(ID_COLUMN))
    except pyarrow.ArrowException as error:
        raise CorpusError(f"{file.path}: not a readable parquet file ({str(error).splitlines()[0]})") from None


def _require_column(where: str, columns: Sequence[str], text_column: str) -> None:
    if text_column not in columns:
        found = ", ".join(map(str, columns[:12])) or "none"
        raise CorpusError(f"{where}: no column `{text_column}` (found: {found}); name the text with --text_column")


def _row(where: str, text: object, identifier: object) -> Row:
    if text is None:
        return Row("", None)
    if not isinstance(text, str):
        raise CorpusError(f"{where}: the text column holds {type(text).__name__}, not text")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise CorpusError(f"{where}: the text holds half a character (a lone surrogate); write it anew") from None
    return Row(text.strip(), None if identifier in (None, "") else str(identifier))


_READERS: dict[str, Callable[[TextFile, str], Iterator[Row]]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
_KINDS = ", ".join(_READERS) + " (or .gz of these)"


def _kind(path: Path) -> str:
    """The ending that tells how a file is read, in lower case, `.gz` left out."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _reader(path: Path) -> Callable[[TextFile, str], Iterator[Row]] | None:
    return _READERS.get(_kind(path))


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _text_file(path: Path, text_unit: str, whole: bool) -> TextFile:
    reader = _reader(path)
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of file; expected {_KINDS}")
    if reader is not _read_text:
        return TextFile(path, reader, "row")
    return TextFile(path, reader, text_unit if text_unit != "auto" else ("file" if whole else "line"))
