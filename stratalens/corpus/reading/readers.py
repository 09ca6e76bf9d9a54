"""Read the rows of files, local or behind an address, and of streamed datasets.

All formats stream: in memory are the document that is being read and its raw data, never one that was already yielded.
The variables of a generator would keep the last document alive until the next one is read, so many loops are written
with `map`.
"""

import lzma
import zlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from stratalens.corpus.reading.formats import TextFile
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.rows import BadRowError, Row
from stratalens.errors import CorpusError
from stratalens.files.regular import named_when_out_of_memory, reason_of


def read_rows(file: TextFile, notes: ReadingNotes | None = None) -> Iterator[Row]:
    """Yield the rows of one file.

    Args:
        file: the file, and how to read it.
        notes: receives what is unusual, and the rows that are skipped.

    Raises:
        CorpusError: the file is unreadable, damaged, of no known encoding or without the text column, or a row of it
            is bad and bad rows are not skipped; the message names the file, and the line where that is known.
        CapacityError: there is not enough memory for one of its rows.
    """
    return _Rows(file, notes or ReadingNotes())


class _Rows:
    """The rows of one file; a row is not held after it was returned."""

    def __init__(self, file: TextFile, notes: ReadingNotes):
        self._file, self._notes = file, notes
        parsed = map(partial(file.format.parse, file), _raw_rows(file, notes))
        self._rows: Iterator[Row] = map(partial(file.format.convert, file, notes), filter(_is_row, parsed))

    def __iter__(self) -> "_Rows":
        return self

    def __next__(self) -> Row:
        while True:
            try:
                with named_when_out_of_memory(self._file.path):
                    row = next(self._rows)
            except BadRowError as error:
                if not self._file.options.skip_bad_rows:
                    raise
                self._notes.bad_rows.add(str(error))
            else:
                return row


def _is_row(parsed: object) -> bool:
    return parsed is not None


def _raw_rows(file: TextFile, notes: ReadingNotes) -> Iterator[Any]:
    """Yield the raw rows of a file.

    Raises:
        CorpusError: in place of the errors of files and packed files.
    """
    try:
        yield from file.format.raw_rows(file, notes)
    except BadRowError as error:  # here it ends the file
        raise CorpusError(str(error)) from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise CorpusError(f"{file.path}: cannot be read: {reason_of(error)}") from None
