"""Rows of a Hugging Face dataset, streamed: the only module that imports `datasets`, and only when one is named."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.remote import as_corpus_errors
from stratalens.corpus.rows import ID_COLUMN, require_column
from stratalens.errors import CorpusError

PREFIX = "hf:"
NAME_THE_TEXT = "name the text behind the last colon"


class Cells(NamedTuple):
    """What is taken of one row, as it stands there."""

    text: object
    identifier: object
    """Value of the column `id`, None without one."""


class DatasetSplit(NamedTuple):
    """A text column of a split of a dataset."""

    dataset: str
    """Hub id, or a local directory in the Hub's layout."""
    config: str | None
    split: str
    column: str

    def __str__(self) -> str:
        return PREFIX + ":".join(part for part in self if part is not None)


def is_dataset(given: str | Path) -> bool:
    """Whether this names a dataset and not a file."""
    return str(given).startswith(PREFIX) and not str(given).startswith(PREFIX + "//")


def parse_dataset(given: str) -> DatasetSplit:
    """Read `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN`.

    Raises:
        CorpusError: it is of another form.
    """
    parts = given.removeprefix(PREFIX).split(":")
    if len(parts) not in (3, 4) or not all(parts):
        raise CorpusError(
            f"{given}: expected hf:DATASET_ID:SPLIT:COLUMN or hf:DATASET_ID:CONFIG:SPLIT:COLUMN, "
            "such as hf:wikimedia/wikipedia:20231101.en:train:text"
        )
    config = parts[1] if len(parts) == 4 else None
    return DatasetSplit(str(Path(parts[0]).expanduser()), config, parts[-2], parts[-1])


class OpenSplit(NamedTuple):
    """A split that was found and has the column."""

    split: DatasetSplit
    dataset: Any
    parquet_files: list[str]
    """Addresses or paths of all its files where they are parquet, else empty: the library would read them a row group
    at a time, whatever its settings."""

    def rows(self) -> Iterator[Cells]:
        """Stream the rows, in the same order every time.

        Raises:
            CorpusError: they cannot be read.
        """
        rows = iter(self.dataset)
        return map(partial(_cells, self.split), iter(partial(_next, rows, str(self.split)), None))


def open_split(split: DatasetSplit) -> OpenSplit:
    """Find a split of a dataset; its rows stay where they are.

    Raises:
        CorpusError: the package is missing, the dataset cannot be read, or has no such config, split or column.
    """
    library = _library()
    with as_corpus_errors(str(split), str(split)):
        builder = library.load_dataset_builder(split.dataset, split.config)
        dataset = builder.as_streaming_dataset(split.split)
        names = dataset.column_names
        if names is not None and split.column in names:
            dataset = dataset.select_columns([name for name in (split.column, ID_COLUMN) if name in names])
        files = list((builder.config.data_files or {}).get(split.split, []))
    if names is not None:
        require_column(str(split), names, split.column, NAME_THE_TEXT)
    all_parquet = all(file.endswith(".parquet") for file in files)
    return OpenSplit(split, dataset, files if all_parquet else [])


def _library() -> Any:
    """The package, told to keep its progress bars and messages off the terminal: errors say the same in one line."""
    try:
        import datasets
    except ImportError:
        raise CorpusError("hf: datasets need a package of their own: pip install 'stratalens[datasets]'") from None
    import logging

    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return datasets


def _next(rows: Iterator[dict[str, object]], shown: str) -> dict[str, object] | None:
    with as_corpus_errors(shown, shown):
        return next(rows, None)


def _cells(split: DatasetSplit, row: dict[str, object]) -> Cells:
    require_column(str(split), list(row), split.column, NAME_THE_TEXT)
    return Cells(row[split.column], row.get(ID_COLUMN))
