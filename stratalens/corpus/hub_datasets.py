"""Stream rows of Hugging Face datasets. The only module that imports `datasets`, and only when a dataset is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.addresses import PLAIN_PROTOCOLS, is_plain, is_url
from stratalens.corpus.remote import as_corpus_errors
from stratalens.corpus.rows import ID_COLUMN, require_column
from stratalens.errors import CorpusError
from stratalens.files.locations import user_path
from stratalens.files.redaction import redacted

DATASET_PREFIX = "hf:"
TEXT_COLUMN_REMEDY = "give the text column after the last colon"


class Cells(NamedTuple):
    """The cells of one row that are read, unconverted."""

    text: object
    identifier: object
    """Value of the column `id`; None where the dataset has none."""


class DatasetSplit(NamedTuple):
    """A text column in one split of a dataset, as `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN` names it."""

    dataset: str
    """Hub id, or a local directory in the Hub's layout."""
    config: str | None
    split: str
    column: str

    def __str__(self) -> str:
        return DATASET_PREFIX + ":".join(part for part in self if part is not None)


def is_dataset(path: str | Path) -> bool:
    """Whether this names a dataset (`hf:...`) rather than a file."""
    return str(path).startswith(DATASET_PREFIX) and not str(path).startswith(DATASET_PREFIX + "//")


def parse_dataset(name: str) -> DatasetSplit:
    """Parse `hf:DATASET_ID[:CONFIG]:SPLIT:COLUMN`; a `~` in a local directory is expanded.

    Raises:
        CorpusError: the name has another form.
    """
    parts = name.removeprefix(DATASET_PREFIX).split(":")
    if len(parts) not in (3, 4) or not all(parts):
        raise CorpusError(
            f"{name}: expected hf:DATASET_ID:SPLIT:COLUMN or hf:DATASET_ID:CONFIG:SPLIT:COLUMN, "
            "such as hf:wikimedia/wikipedia:20231101.en:train:text"
        )
    config = parts[1] if len(parts) == 4 else None
    return DatasetSplit(str(user_path(parts[0])), config, parts[-2], parts[-1])


class OpenSplit(NamedTuple):
    """A split that exists and has the text column."""

    split: DatasetSplit
    dataset: Any
    parquet_files: list[str]
    """Addresses or paths of all files of the split if all are parquet, else empty. Such files are read without the
    library, which would hold a whole row group in memory whatever its settings."""

    def rows(self) -> Iterator[Cells]:
        """Yield the rows, in the same order every time.

        Raises:
            CorpusError: the dataset cannot be read.
        """
        rows = iter(self.dataset)
        return map(partial(_cells, self.split), iter(partial(_next_row, rows, str(self.split)), None))


def open_split(split: DatasetSplit) -> OpenSplit:
    """Find a split of a dataset and check its columns, without downloading its rows.

    Raises:
        CorpusError: the package is missing, the dataset cannot be read, has no such config, split or column, or its
            card names an address that only the user may name.
    """
    library = _import_datasets()
    with as_corpus_errors(str(split), str(split)):
        builder = library.load_dataset_builder(split.dataset, split.config)
        dataset = builder.as_streaming_dataset(split.split)
        files = list((builder.config.data_files or {}).get(split.split, []))
        _require_plain(split, files)
        names = dataset.column_names
        if names is not None and split.column in names:
            dataset = dataset.select_columns([name for name in (split.column, ID_COLUMN) if name in names])
    if names is not None:
        require_column(str(split), names, split.column, TEXT_COLUMN_REMEDY)
    all_parquet = all(file.endswith(".parquet") for file in files)
    return OpenSplit(split, dataset, files if all_parquet else [])


def _require_plain(split: DatasetSplit, files: list[str]) -> None:
    for file in files:
        if is_url(file) and not is_plain(file):
            raise CorpusError(
                f"{split}: it names {redacted(file)}; files of a dataset may have addresses of "
                f"{', '.join(PLAIN_PROTOCOLS)}, not nested in one another"
            )


def _import_datasets() -> Any:
    """Import `datasets` with its progress bars and log messages turned off: our errors report failures in one line."""
    try:
        import datasets
    except ImportError:
        raise CorpusError("hf: datasets need the package `datasets`: pip install 'stratalens[datasets]'") from None
    import logging

    datasets.disable_progress_bars()
    for name in ("datasets", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return datasets


def _next_row(rows: Iterator[dict[str, object]], split_name: str) -> dict[str, object] | None:
    with as_corpus_errors(split_name, split_name):
        return next(rows, None)


def _cells(split: DatasetSplit, row: dict[str, object]) -> Cells:
    require_column(str(split), list(row), split.column, TEXT_COLUMN_REMEDY)
    return Cells(row[split.column], row.get(ID_COLUMN))
