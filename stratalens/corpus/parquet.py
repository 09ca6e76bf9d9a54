"""The reader of parquet files: row by row, with no more than a page of each column in memory."""

import io
from collections.abc import Iterator
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from stratalens.corpus.parquet_pages import pages_of
from stratalens.corpus.remote import Url
from stratalens.corpus.rows import ID_COLUMN, Row, make_row, require_column
from stratalens.corpus.streams import BUFFER_BYTES, MAX_PACKING_RATIO, MAX_ROW_BYTES, open_seekable
from stratalens.errors import CorpusError
from stratalens.files.regular import size_text

MAX_PAGE_BYTES = 2**30
"""A larger page is refused; the format allows twice as much. Writers put a thousand texts into a page, or 1 MB."""


def read_parquet(path: Path | Url, text_column: str, remedy: str) -> Iterator[Row]:
    """Yield row by row. Only the page with the current row is in memory, decompressed, not its whole row group.

    Args:
        path: the file.
        text_column: name of the column that holds the text.
        remedy: what to do where there is no such column.

    Raises:
        CorpusError: the file is no parquet file, is damaged, has no such column, or a page of it is too large.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with open_seekable(path) as stream:
            table = pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER_BYTES, pre_buffer=False)
            columns = table.schema_arrow.names
            require_column(str(path), columns, text_column, remedy)
            wanted = [column for column in (text_column, ID_COLUMN) if column in columns]
            _require_flat(path, table.schema, wanted)
            _require_bounded_pages(path, stream, table.metadata, wanted)
            batches = table.iter_batches(batch_size=1, columns=wanted, use_threads=False)
            yield from starmap(make_row, map(partial(_cells, path, text_column), batches))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise CorpusError(f"{path}: not a readable parquet file ({reason[0]})") from None


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


def _cells(path: Path | Url, text_column: str, batch: Any) -> tuple[str, object, object]:
    """Cells of a batch of one row. Arrow keeps the memory of freed batches; after a huge text it is released."""
    if batch.nbytes > BUFFER_BYTES:
        import pyarrow

        pyarrow.default_memory_pool().release_unused()
    if batch.nbytes > MAX_ROW_BYTES:
        limit = size_text(MAX_ROW_BYTES)
        raise CorpusError(f"{path}: a row of more than {limit}; cut such long documents into several")
    cells = batch.to_pydict()
    return str(path), cells[text_column][0], cells.get(ID_COLUMN, [None])[0]
