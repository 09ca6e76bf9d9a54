"""Readers of text files: txt, jsonl, csv and parquet, each also gzipped; directories and globs of them. All stream."""

import glob
import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from stratalens.errors import CorpusError

ID_COLUMN = "id"


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
    files: list[TextFile] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if _reader(p) and not _hidden(p, path) and p.is_file())
            if not inside:
                raise CorpusError(f"{given}: no {_KINDS} file in this directory")
            files += [_text_file(p, text_unit, whole=True) for p in inside]
        elif path.is_file():
            files.append(_text_file(path, text_unit, whole=False))
        else:
            matches = sorted(m for m in glob.glob(str(path), recursive=True) if Path(m).is_file())
            if not matches:
                raise CorpusError(f"{given}: no such file, directory or glob")
            files += [_text_file(Path(match), text_unit, whole=False) for match in matches]
    unique = {file.path.resolve(): file for file in files}
    return list(unique.values())


def read_rows(file: TextFile, text_column: str) -> Iterator[Row]:
    """Stream the rows of one file.

    Raises:
        CorpusError: unreadable, not UTF-8, broken or without the text column; the message names file and line.
    """
    try:
        yield from file.reader(file, text_column)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file.path}: not UTF-8 text ({error.reason}); convert it, say with iconv") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "cut short"
        raise CorpusError(f"{file.path}: cannot be read: {reason}") from None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # pyright: ignore[reportReturnType]


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
    import pandas as pd

    separator = "\t" if ".tsv" in file.path.suffixes else ","
    options = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding": "utf-8-sig"}
    try:
        with _open(file.path) as stream:
            columns = list(pd.read_csv(stream, nrows=0, **options).columns)
        _require_column(str(file.path), columns, text_column)
        wanted = [column for column in (text_column, ID_COLUMN) if column in columns]
        with _open(file.path) as stream:
            for part in pd.read_csv(stream, usecols=wanted, chunksize=1000, **options):
                identifiers = part[ID_COLUMN] if ID_COLUMN in part else [None] * len(part)
                for text, identifier in zip(part[text_column], identifiers, strict=True):
                    yield _row(str(file.path), text, identifier)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CorpusError(f"{file.path}: not a readable CSV file ({str(error).strip()})") from None


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


def _reader(path: Path) -> Callable[[TextFile, str], Iterator[Row]] | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return _READERS.get(suffixes[-1]) if suffixes else None


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _text_file(path: Path, text_unit: str, whole: bool) -> TextFile:
    reader = _reader(path)
    if reader is None:
        raise CorpusError(f"{path}: unknown kind of file; expected {_KINDS}")
    if reader is not _read_text:
        return TextFile(path, reader, "row")
    return TextFile(path, reader, text_unit if text_unit != "auto" else ("file" if whole else "line"))
