"""Stream rows of Hugging Face datasets. The only module that imports `datasets`, and only when a dataset is read."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stratalens.corpus.addresses import PLAIN_PROTOCOLS, is_plain, is_url
from stratalens.corpus.reading.rows import require_columns, wanted_columns
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.remote import as_corpus_errors
from stratalens.errors import CorpusError
from stratalens.files.locations import user_path
from stratalens.files.redaction import redacted

DATASET_PREFIX = "hf:"
DATASET_COLUMN_REMEDY = "give the text column after the last colon"


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

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the cells of each row, in the same order every time.

        Raises:
            CorpusError: the dataset cannot be read.
        """
        rows = iter(self.dataset)
        return iter(partial(_next_row, rows, str(self.split)), None)


def open_split(split: DatasetSplit, options: TextOptions) -> OpenSplit:
    """Find a split of a dataset and check its columns, without downloading its rows.

    Args:
        split: the split.
        options: names of the columns.

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
        if names is not None:
            wanted = {part for name in wanted_columns(options) for part in (name, name.split(".")[0]) if part in names}
            dataset = dataset.select_columns([name for name in names if name in wanted])
    if names is not None:
        require_columns(str(split), names, options, DATASET_COLUMN_REMEDY)
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
