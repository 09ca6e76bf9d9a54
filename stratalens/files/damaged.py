"""Read files that an earlier run stored; they may be damaged or written by another program."""

import io
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError

import pandas as pd
import pyarrow.compute
import pyarrow.parquet
from pyarrow import ArrowException

from stratalens.errors import ConfigError
from stratalens.files.regular import named_when_out_of_memory, open_regular, reason_of, size_text

MAX_UNPACKED_BYTES = 2 * 2**30
"""A file of a result that takes more when it is unpacked is refused. A layer of a million latents takes 0.4 GiB."""

READ_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, ArrowException),
    *(ValueError, LookupError, TypeError, AttributeError, RuntimeError, OverflowError, MemoryError),
    *(SyntaxError, TokenError),
)
"""Everything the libraries raise when a file is damaged; a `try` that catches them holds nothing but reading.

The last two come from numpy, which parses the header of an array as Python.
"""


def damaged(path: Path, reason: object) -> ConfigError:
    """Make the error for a file of a result that is not as a run writes it.

    Args:
        path: the file.
        reason: what is wrong with it, or the error that was raised; at most 160 characters of it are shown.
    """
    said = reason_of(reason) if isinstance(reason, Exception) else str(reason)
    reason_text = " ".join(said.split())[:160]
    return ConfigError(f"{path}: damaged, missing or of another version ({reason_text}); run the analysis again")


def read_table(path: Path) -> pd.DataFrame:
    """Read the table of a parquet file.

    Raises:
        ConfigError: the file is missing or damaged, or its table would take more than `MAX_UNPACKED_BYTES`.
        CapacityError: there is not enough memory for it.
    """
    try:
        with named_when_out_of_memory(path), open_regular(path) as stream:
            require_bounded(_bytes_of_numbers(stream))
            require_bounded(_bytes_of_texts(stream))
            stream.seek(0)
            return pd.read_parquet(stream)
    except READ_ERRORS as error:
        raise damaged(path, error) from None


def require_bounded(unpacked_bytes: int) -> None:
    """Check the unpacked size of a packed file before it is unpacked.

    Raises:
        ValueError: it is more than `MAX_UNPACKED_BYTES`.
    """
    if unpacked_bytes > MAX_UNPACKED_BYTES:
        raise ValueError(f"unpacked it would take more than {size_text(MAX_UNPACKED_BYTES)}")


def _bytes_of_numbers(stream: io.BufferedReader) -> int:
    """The size of a parquet file's columns by its own account, each value counted as a number of 8 bytes."""
    metadata = pyarrow.parquet.ParquetFile(stream).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values, 0) for chunk in chunks)


def _bytes_of_texts(stream: io.BufferedReader) -> int:
    """The size of all texts of a parquet file; one that is stored once may occur in millions of rows.

    Raises:
        ValueError: there are texts in lists, which no run writes, or texts that are not UTF-8.
    """
    schema = pyarrow.parquet.ParquetFile(stream).schema
    columns = [schema.column(number) for number in range(len(schema))]
    names = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    if any("." in name for name in names):
        raise ValueError("a column of texts in lists")
    total = 0
    for batch in pyarrow.parquet.ParquetFile(stream, read_dictionary=names).iter_batches(columns=names):
        for texts in batch.columns:
            texts.dictionary.validate(full=True)  # reading does not notice what is not UTF-8
            lengths = pyarrow.compute.call_function("binary_length", [texts.dictionary])
            total += pyarrow.compute.call_function("sum", [lengths.take(texts.indices)]).as_py() or 0
    return total
