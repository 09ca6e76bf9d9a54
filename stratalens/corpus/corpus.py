"""The two sides of a contrast and the files that their rows are read from."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from stratalens.config.options import RunConfig
from stratalens.corpus.builtin import GENERAL, text_file
from stratalens.corpus.names import plain_name
from stratalens.corpus.populations import Side
from stratalens.corpus.reading.formats import TextFile
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import BUILT_IN_TEXTS, DEFAULTS, TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError
from stratalens.files.locations import user_path

FIRST_ROWS = 3
"""Rows of each file that are read before anything else is done."""


class CorpusRow(NamedTuple):
    """A row of a corpus, and which document it is of."""

    side: Side
    text: str
    identity: str
    """Names the document: the row's `id` up to the first `#`, or the text itself where there is no `id`."""
    kind: str | None
    """Kind of the document, if it has one."""
    source: str
    """Where the document is from: what the source column says, else its file."""


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
        warnings = list[str]()
        find = partial(find_files, output_dir=user_path(config.output_dir), warn=warnings.append)
        if config.pair:
            return cls(_files_of_pairs(config, find), tuple(warnings))
        sides = []
        for side, own in ((Side.DOMAIN, config.domain_data), (Side.GENERAL, config.general_data)):
            if own:
                found = find(own, TextOptions.of_side(config, side))
            else:
                found = find([text_file(config.domain if side == Side.DOMAIN else GENERAL)], BUILT_IN_TEXTS)
            sides.append(tuple(found))
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

    def rows(self) -> Iterator[CorpusRow]:
        """Yield every row, the domain side first, and keep no reference to what was yielded.

        Raises:
            CorpusError: a file cannot be read.
        """
        for side in Side:
            yield from self.rows_of(side)

    def rows_of(self, side: Side, notes: ReadingNotes | None = None) -> Iterator[CorpusRow]:
        """Yield the rows of one side.

        Args:
            side: the side.
            notes: receives what is unusual in its files.

        Raises:
            CorpusError: a file cannot be read.
        """
        for file, name in zip(self.files[side], self._source_names[side], strict=True):
            yield from map(partial(_with_identity, side, name), read_rows(file, notes))

    @cached_property
    def _source_names(self) -> tuple[list[str], ...]:
        """Names of the files of each side: without their folders where that tells them apart."""
        return tuple(_short_names([str(file.path) for file in files]) for files in self.files)


def _files_of_pairs(
    config: RunConfig, find: Callable[[Sequence[str | Path], TextOptions], list[TextFile]]
) -> tuple[tuple[TextFile, ...], tuple[TextFile, ...]]:
    """Files of both sides of the pairs of texts.

    Raises:
        CorpusError: a file is named in two pairs, or see `text_files.find_files`.
    """
    sides: tuple[dict[str, TextFile], dict[str, TextFile]] = ({}, {})
    for kind, *texts in config.pair:
        for side, text in zip(Side, texts, strict=True):
            options = replace(TextOptions.of_side(config, side), kind=kind.strip())
            for file in find([text], options):
                if sides[side].setdefault(str(file.path), file).options.kind != options.kind:
                    raise CorpusError(
                        f"{file.path}: named in two --pair as two kinds of text; give the file once, or cut it in two"
                    )
    return tuple(sides[0].values()), tuple(sides[1].values())


def _short_names(paths: Sequence[str]) -> list[str]:
    last = [path.rsplit("/", 1)[-1] for path in paths]
    times = Counter(last)
    return [plain_name(name if times[name] == 1 else path) for name, path in zip(last, paths, strict=True)]


def _with_identity(side: Side, file: str, row: Row) -> CorpusRow:
    identity = row.identifier.split("#")[0] if row.identifier else ""
    return CorpusRow(side, row.text, identity or row.text, row.kind, row.source or file)
