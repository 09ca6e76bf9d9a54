"""The two sides of a contrast, the populations of their documents, and the files that they are read from."""

from collections.abc import Iterator, Sequence
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
    text_column: str

    @classmethod
    def find(
        cls, domain: Sequence[str | Path], general: Sequence[str | Path], text_unit: str, text_column: str
    ) -> "Corpus":
        """List the files of both sides.

        Raises:
            CorpusError: see `readers.find_files`.
        """
        return cls((tuple(find_files(domain, text_unit)), tuple(find_files(general, text_unit))), text_column)

    def rows(self) -> Iterator[tuple[Side, str, str]]:
        """Stream (side, text, identity) of all rows, domain first; holds nothing of a row that it has given."""
        for side in Side:
            yield from self.rows_of(side)

    def rows_of(self, side: Side) -> Iterator[tuple[Side, str, str]]:
        """Stream the rows of one side, likewise."""
        for file in self.files[side]:
            yield from map(partial(_identified, side), read_rows(file, self.text_column))


def _identified(side: Side, row: Row) -> tuple[Side, str, str]:
    identity = row.identifier.split("#")[0] if row.identifier else ""
    return side, row.text, identity or row.text
