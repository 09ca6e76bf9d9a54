"""The two sides of a contrast and the files that their rows are read from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stratalens.corpus.populations import Side
from stratalens.corpus.readers import TextFile, read_rows
from stratalens.corpus.rows import Row
from stratalens.corpus.text_files import find_files


@dataclass(frozen=True)
class Corpus:
    """Files of both sides, and the name of their text column."""

    files: tuple[tuple[TextFile, ...], tuple[TextFile, ...]]
    """Indexed by `Side`."""
    text_column: str

    @classmethod
    def find(
        cls,
        domain: Sequence[str | Path],
        general: Sequence[str | Path],
        text_unit: str,
        text_column: str,
        warn: Callable[[str], None] = lambda _message: None,
    ) -> "Corpus":
        """List the files of both sides.

        Args:
            domain: paths, addresses, directories, globs or `hf:` datasets of the domain side.
            general: the same for the general side.
            text_unit: what one document of a plain-text file is: `line`, `file` or `auto`.
            text_column: the column of a jsonl, csv or parquet file that holds the text.
            warn: called with what is in a directory and is not read.

        Raises:
            CorpusError: see `text_files.find_files`.
        """
        files = tuple(find_files(domain, text_unit, warn)), tuple(find_files(general, text_unit, warn))
        return cls(files, text_column)

    def rows(self) -> Iterator[tuple[Side, str, str]]:
        """Yield (side, text, identity) of every row, the domain side first, and keep no reference to what was yielded.

        The identity names the row's document: its `id` up to the first `#`, or the text itself where there is no `id`.

        Raises:
            CorpusError: a file cannot be read.
        """
        for side in Side:
            yield from self.rows_of(side)

    def rows_of(self, side: Side) -> Iterator[tuple[Side, str, str]]:
        """Yield the rows of one side, in the form of `rows`.

        Raises:
            CorpusError: a file cannot be read.
        """
        for file in self.files[side]:
            yield from map(partial(_with_identity, side), read_rows(file, self.text_column))


def _with_identity(side: Side, row: Row) -> tuple[Side, str, str]:
    identity = row.identifier.split("#")[0] if row.identifier else ""
    return side, row.text, identity or row.text
