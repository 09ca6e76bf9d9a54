"""The formats of files: what their raw rows are, and how a raw row becomes a row of text."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.hub_datasets import DATASET_COLUMN_REMEDY, DatasetSplit, open_split
from stratalens.corpus.reading.csv_table import CsvRow, CsvRows
from stratalens.corpus.reading.html_text import html_to_text
from stratalens.corpus.reading.json_values import JsonValue, begins_value_of_lines, has_json_lines, json_values
from stratalens.corpus.reading.lines import Line, WholeText, numbered_lines, require_decoded, whole_text
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.packing import PACKED_SUFFIXES
from stratalens.corpus.reading.parquet import read_parquet
from stratalens.corpus.reading.rows import SKIP_REMEDY, TEXT_COLUMN_REMEDY, BadRowError, Row, make_row, text_row
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.remote import Url, file_at

_JSON = json.JSONDecoder(strict=False)


@dataclass(frozen=True)
class TextFormat:
    """How files of one kind are read.

    Raw rows come from a generator, which an error would end; they are converted outside of it, so that the rows after a
    bad one can be read. This is done in two steps, so that what was parsed is not in memory beside its cleaned text.
    """

    raw_rows: Callable[["TextFile", ReadingNotes], Iterator[Any]]
    parse: Callable[["TextFile", Any], Any]
    """Parses a raw row; None where it is no row, such as a blank line; raises BadRowError."""
    convert: Callable[["TextFile", ReadingNotes, Any], Row]
    """Makes a row of what was parsed; raises BadRowError."""
    unit: str = "row"
    """What one document is; in plain text the options say."""


class TextFile(NamedTuple):
    """A file or a streamed dataset to read, and how."""

    path: Path | Url | DatasetSplit
    """Its `str` may be printed: it holds no credentials."""
    format: TextFormat
    unit: str
    """What one document is: `line` or `file` in plain text, `row` in a table or dataset."""
    options: TextOptions

    @property
    def place(self) -> Path | Url:
        """The path of a file that is no dataset."""
        assert not isinstance(self.path, DatasetSplit)
        return self.path


def _lines(file: TextFile, notes: ReadingNotes) -> Iterator[Line]:
    return numbered_lines(file.place, file.options.encoding, notes)


def _plain_text(file: TextFile, notes: ReadingNotes) -> Iterator[Line | WholeText]:
    if file.unit == "file":
        yield whole_text(file.place, file.options.encoding, notes)
    else:
        yield from _lines(file, notes)


class LocatedText(NamedTuple):
    """A text without columns, and where it is."""

    where: str
    text: str


def _decoded(file: TextFile, raw: Line | WholeText) -> LocatedText:
    where = f"{file.path}:{raw.number}" if isinstance(raw, Line) else str(file.path)
    require_decoded(where, raw.text, raw.encoding)
    return LocatedText(where, raw.text)


def _row_of_text(file: TextFile, notes: ReadingNotes, text: LocatedText) -> Row:
    return text_row(text.where, text.text, file.options, notes)


def _html(file: TextFile, notes: ReadingNotes) -> Iterator[WholeText]:
    yield whole_text(file.place, file.options.encoding, notes)


def _text_of_html(file: TextFile, raw: WholeText) -> LocatedText:
    return LocatedText(str(file.path), html_to_text(_decoded(file, raw).text))


def _json_lines(file: TextFile, notes: ReadingNotes) -> Iterator[Line | JsonValue]:
    """The lines of a file, or its values where it begins with a list, or with an object over several lines."""
    lines = _lines(file, notes)
    first = list(islice(lines, 1))
    if begins_value_of_lines(first[0].text if first else ""):
        yield from json_values(file.place, file.options.encoding, ReadingNotes())  # the encoding is noted
    else:
        while first:
            yield first.pop()
        yield from lines


def _json_line(file: TextFile, raw: Line | JsonValue) -> JsonValue | None:
    if isinstance(raw, JsonValue):
        return raw
    where, text = f"{file.path}:{raw.number}", raw.text.strip("\ufeff\0 \t\r\x0b\x0c\x1a\x1e")
    if not text:
        return None
    require_decoded(where, text, raw.encoding)
    try:
        return JsonValue(where, _JSON.decode(text))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "unreadable value"
        expected = f"one object per line is expected, {SKIP_REMEDY}"
        raise BadRowError(f"{where}: not valid JSON ({reason}); {expected}") from None


def _row_of_json(file: TextFile, notes: ReadingNotes, found: JsonValue) -> Row:
    if not isinstance(found.value, Mapping):
        raise BadRowError(
            f"{found.where}: a JSON object was expected, found {type(found.value).__name__}; write a document as "
            f'{{"text": "..."}}, {SKIP_REMEDY}'
        )
    return make_row(found.where, found.value, file.options, notes)


def _json(file: TextFile, notes: ReadingNotes) -> Iterator[Line | JsonValue]:
    if has_json_lines(file.place, file.options.encoding):
        yield from _lines(file, notes)
    else:
        yield from json_values(file.place, file.options.encoding, notes)


def _csv(delimiter: str, file: TextFile, notes: ReadingNotes) -> Iterator[CsvRow]:
    yield from CsvRows(file.path, _lines(file, notes), delimiter, file.options, notes)


def _sound(file: TextFile, row: CsvRow) -> CsvRow:
    del file
    if row.problem:
        raise BadRowError(row.problem)
    return row


def _row_of_csv(file: TextFile, notes: ReadingNotes, row: CsvRow) -> Row:
    return make_row(row.where, row.cells, file.options, notes)


def _parquet(file: TextFile, notes: ReadingNotes) -> Iterator[Mapping[str, object]]:
    del notes
    return read_parquet(file.place, file.options)


def _dataset(file: TextFile, notes: ReadingNotes) -> Iterator[Mapping[str, object]]:
    assert isinstance(file.path, DatasetSplit)
    opened = open_split(file.path, file.options)
    if opened.parquet_files:
        for location in opened.parquet_files:
            yield from read_parquet(file_at(location), file.options)
    else:
        yield from opened.rows()


def _as_it_is(file: TextFile, raw: Any) -> Any:
    del file
    return raw


def _row_of_table(file: TextFile, notes: ReadingNotes, cells: Mapping[str, object]) -> Row:
    remedy = DATASET_COLUMN_REMEDY if isinstance(file.path, DatasetSplit) else TEXT_COLUMN_REMEDY
    return make_row(str(file.path), cells, file.options, notes, remedy)


PLAIN_TEXT = TextFormat(_plain_text, _decoded, _row_of_text)
DATASET = TextFormat(_dataset, _as_it_is, _row_of_table)
_HTML = TextFormat(_html, _text_of_html, _row_of_text, unit="file")
_JSON_LINES = TextFormat(_json_lines, _json_line, _row_of_json)
FORMATS: dict[str, TextFormat] = {
    ".txt": PLAIN_TEXT,
    ".md": PLAIN_TEXT,
    ".htm": _HTML,
    ".html": _HTML,
    ".json": TextFormat(_json, _json_line, _row_of_json),
    ".jsonl": _JSON_LINES,
    ".ndjson": _JSON_LINES,
    ".csv": TextFormat(partial(_csv, ","), _sound, _row_of_csv),
    ".tsv": TextFormat(partial(_csv, "\t"), _sound, _row_of_csv),
    ".parquet": TextFormat(_parquet, _as_it_is, _row_of_table),
}
"""Ending of a file name, in lower case -> its format."""
READABLE_KINDS = f"{', '.join(FORMATS)} (also packed: {', '.join(PACKED_SUFFIXES)})"


def ending_of(path: Path | Url) -> str:
    """The ending that selects the format, in lower case and without that of a packed file."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def format_of(path: Path | Url) -> TextFormat | None:
    """The format of files with this ending; None if there is none."""
    return FORMATS.get(ending_of(path))
