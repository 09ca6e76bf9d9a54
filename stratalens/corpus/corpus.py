"""The two sides of a contrast and the files that their rows are read from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from stratalens.config.options import RunConfig
from stratalens.corpus.builtin import domain_files, general_files
from stratalens.corpus.populations import Side
from stratalens.corpus.reading.formats import TextFile
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import DEFAULTS, TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.files.locations import user_path

FIRST_ROWS = 3
"""Rows of each file that are read before anything else is done."""


@dataclass(frozen=True)
class Corpus:
    """Files of both sides."""

    files: tuple[tuple[TextFile, ...], tuple[TextFile, ...]]
    """Indexed by `Side`."""
    warnings: tuple[str, ...] = ()
    """What is in the directories and is not read."""

    @classmethod
    def of_run(cls, config: RunConfig) -> "Corpus":
        """List the files of both sides of a run.

        Raises:
            ConfigError: the domain has no built-in text and none is named.
            CorpusError: see `text_files.find_files`.
        """
        sides, warnings = [], list[str]()
        for side, own, files in (
            (Side.DOMAIN, config.domain_data, domain_files(config.domain, config.domain_data)),
            (Side.GENERAL, config.general_data, general_files(config.general_data)),
        ):
            options = TextOptions.of_side(config, side) if own else DEFAULTS
            sides.append(tuple(find_files(files, options, user_path(config.output_dir), warnings.append)))
        return cls((sides[0], sides[1]), tuple(warnings))

    @classmethod
    def find(
        cls,
        domain: Sequence[str | Path],
        general: Sequence[str | Path],
        options: TextOptions = DEFAULTS,
        warn: Callable[[str], None] = lambda _message: None,
    ) -> "Corpus":
        """List the files of both sides, read alike.

        Args:
            domain: paths, addresses, directories, globs or `hf:` datasets of the domain side.
            general: the same for the general side.
            options: how the files are read.
            warn: called with what is in a directory and is not read.

        Raises:
            CorpusError: see `text_files.find_files`.
        """
        return cls((tuple(find_files(domain, options, warn=warn)), tuple(find_files(general, options, warn=warn))))

    def check_first_rows(self, on_file: Callable[[], None] = lambda: None) -> None:
        """Read the first rows of every file, so that a mistake in one shows before the work begins.

        Args:
            on_file: called after each file.

        Raises:
            CorpusError: a file cannot be read, or its rows have no such columns.
        """
        for files in self.files:
            for file in files:
                for _ in islice(read_rows(file), FIRST_ROWS):
                    pass
                on_file()

    def rows(self) -> Iterator[tuple[Side, str, str]]:
        """Yield (side, text, identity) of every row, the domain side first, and keep no reference to what was yielded.

        The identity names the row's document: its `id` up to the first `#`, or the text itself where there is no `id`.

        Raises:
            CorpusError: a file cannot be read.
        """
        for side in Side:
            yield from self.rows_of(side)

    def rows_of(self, side: Side, notes: ReadingNotes | None = None) -> Iterator[tuple[Side, str, str]]:
        """Yield the rows of one side, in the form of `rows`.

        Args:
            side: the side.
            notes: receives what is unusual in its files.

        Raises:
            CorpusError: a file cannot be read.
        """
        for file in self.files[side]:
            yield from map(partial(_with_identity, side), read_rows(file, notes))


def _with_identity(side: Side, row: Row) -> tuple[Side, str, str]:
    identity = row.identifier.split("#")[0] if row.identifier else ""
    return side, row.text, identity or row.text
