"""The reader of parquet files: row by row, with no more than a page of each column in memory."""

import io
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stratalens.corpus.reading.packing import BUFFER_BYTES, MAX_PACKING_RATIO, open_seekable
from stratalens.corpus.reading.parquet_pages import pages_of
from stratalens.corpus.reading.rows import TEXT_COLUMN_REMEDY, missing_column, require_columns, wanted_columns
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.remote import Url
from stratalens.errors import CorpusError
from stratalens.files.regular import size_text

MAX_ROW_BYTES = 64 * 2**20
"""Longest row, unpacked."""
MAX_PAGE_BYTES = 2**30
"""A larger page is refused; the format allows twice as much. Writers put a thousand texts into a page, or 1 MB."""


def read_parquet(path: Path | Url, options: TextOptions) -> Iterator[Mapping[str, object]]:
    """Yield the wanted cells of each row.

    Only the page with the current row is in memory, decompressed, not its whole row group.

    Args:
        path: the file.
        options: names of the columns that are wanted.

    Raises:
        CorpusError: the file is no parquet file, is damaged, has no such column, or a page of it is too large.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open_seekable(path) as stream:
            table = pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
            columns = table.schema_arrow.names
            require_columns(str(path), columns, options)
            wanted = _columns_or_fields(table.schema_arrow, wanted_columns(options))
            _require_fields(path, table.schema, options.text_column)
            _require_flat(path, table.schema, wanted)
            _require_bounded_pages(path, stream, table.metadata, wanted)
            batches = table.iter_batches(batch_size=1, columns=wanted, use_threads=False)
            yield from map(partial(_cells, path), batches)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CorpusError(f"{path}: not a readable parquet file ({reason[0]})") from None


def _columns_or_fields(schema: Any, wanted: tuple[str, ...]) -> list[str]:
    """Of the wanted names, those that are columns, or fields of a column."""
    found = []
    for name in wanted:
        column = name if name in schema.names else name.split(".")[0]
        if column in schema.names and name not in found:
            found.append(name)
    return found


def _require_fields(path: Path | Url, schema: Any, text_column: tuple[str, ...]) -> None:
    """Check that the fields of columns that are asked for are there.

    Raises:
        CorpusError: one is missing; the message lists those that are there.
    """
    found = [schema.column(number).path for number in range(len(schema))]
    for name in text_column:
        if not any(_is_of(leaf, [name]) for leaf in found):
            raise CorpusError(missing_column(str(path), name, found, TEXT_COLUMN_REMEDY))


def _require_flat(path: Path | Url, schema: Any, wanted: list[str]) -> None:
    """Check that no column holds lists: one row of a few bytes may be a list of any length.

    Raises:
        CorpusError: one does.
    """
    for column in map(schema.column, range(len(schema))):
        if _is_of(column.path, wanted) and column.max_repetition_level > 0:
            name = column.path.split(".")[0][:60]
            raise CorpusError(f"{path}: the column `{name}` holds lists; expected a text or an id in each row")


def _is_of(path_in_schema: str, wanted: list[str]) -> bool:
    """Whether a leaf of the schema belongs to one of the wanted columns, whose names may hold dots."""
    return any(path_in_schema == name or path_in_schema.startswith(f"{name}.") for name in wanted)


def _require_bounded_pages(path: Path | Url, stream: io.BufferedIOBase, metadata: Any, wanted: list[str]) -> None:
    """Check the sizes of pages; of a file elsewhere only those of column chunks, as every page would be fetched twice.

    Raises:
        CorpusError: a page or a chunk becomes far larger than texts do, or larger than `MAX_PAGE_BYTES`.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            if not _is_of(chunk.path_in_schema, wanted):
                continue
            if isinstance(path, Url):
                bounded = _is_bounded(chunk.total_uncompressed_size, chunk.total_compressed_size)
            else:
                pages = pages_of(stream.fileno(), chunk)
                bounded = all(
                    page.unpacked_bytes <= MAX_PAGE_BYTES and _is_bounded(page.unpacked_bytes, page.packed_bytes)
                    for page in pages
                )
            if not bounded:
                raise CorpusError(
                    f"{path}: a page of the column `{chunk.path_in_schema[:60]}` is larger than "
                    f"{size_text(MAX_PAGE_BYTES)} when it is unpacked, or more than {MAX_PACKING_RATIO} times as large "
                    "as in the file; write the file again with smaller pages"
                )


def _is_bounded(unpacked_bytes: int, packed_bytes: int) -> bool:
    return unpacked_bytes <= max(MAX_ROW_BYTES, MAX_PACKING_RATIO * packed_bytes)


def _cells(path: Path | Url, batch: Any) -> Mapping[str, object]:
    """Cells of a batch of one row. Arrow keeps the memory of freed batches; after a huge text it is released."""
    if batch.nbytes > BUFFER_BYTES:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    if batch.nbytes > MAX_ROW_BYTES:
        limit = size_text(MAX_ROW_BYTES)
        raise CorpusError(f"{path}: a row of more than {limit}; cut such long documents into several")
    return batch.to_pylist()[0]
