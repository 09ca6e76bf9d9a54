"""Files of token-level codes: one layer each, written passage after passage and read a group of passages at a time."""

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stratalens.files.damaged import require_bounded
from stratalens.files.regular import open_regular
from stratalens.harvest.token_codes import ENTRIES, PLACES, schema

if TYPE_CHECKING:
    import pyarrow

GROUP_ENTRIES = 2**20
"""About this many entries are compressed, and later read, at a time."""
KEY = b"stratalens.harvest"
"""Name in the file's metadata of the key of the harvest that the codes belong to."""


class CodesWriter:
    """Writes tables of codes, one after the other, as one file.

    Args:
        sink: an open file, or a buffer in memory.
        key: of the harvest that the codes belong to.
    """

    def __init__(self, sink: Any, key: str = ""):
        import pyarrow.parquet

        packed = {f"{name}.list.element": "BYTE_STREAM_SPLIT" for name in ("latent", "activation")}
        small = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in ("position", "offsets")}
        self._writer = pyarrow.parquet.ParquetWriter(
            sink,
            schema().with_metadata({KEY: key.encode()}),
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            column_encoding=packed | small,
        )

    def add(self, table: "pyarrow.Table") -> None:
        """Write some passages, in groups of about `GROUP_ENTRIES` entries."""
        ends = np.cumsum(table.column("entries").to_numpy())
        group = (ends - 1).clip(min=0) // GROUP_ENTRIES
        for rows in np.split(np.arange(len(ends)), np.flatnonzero(np.diff(group)) + 1) if len(ends) else ():
            self._writer.write_table(table.slice(rows[0], len(rows)), row_group_size=len(rows))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class CodesFile:
    """An open file of codes, to be used as a context.

    Args:
        source: path of the file, or its content in memory.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
        ValueError: it is not as a run writes it; pyarrow's own errors are of this type or of OSError.
    """

    def __init__(self, source: Path | io.BytesIO):
        import pyarrow.parquet

        with ExitStack() as stack:
            self._stream = stack.enter_context(open_regular(source) if isinstance(source, Path) else source)
            self.size = self._stream.seek(0, io.SEEK_END)
            """In bytes."""
            self._stream.seek(0)
            self._file = stack.enter_context(pyarrow.parquet.ParquetFile(self._stream))
            if not self._file.schema_arrow.equals(schema()):
                raise ValueError("its columns are not those of codes")
            self._open = stack.pop_all()
        self.key = (self._file.schema_arrow.metadata or {}).get(KEY, b"").decode("ascii", "replace")

    def __enter__(self) -> "CodesFile":
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    def places(self) -> "pyarrow.Table":
        """Which passages it holds, and the number of entries of each."""
        import pyarrow as pa

        columns = [*PLACES, "entries"]
        return pa.concat_tables([schema().empty_table().select(columns), *self.groups(columns)]).combine_chunks()

    def groups(self, columns: Sequence[str] | None = None) -> Iterator["pyarrow.Table"]:
        """Yield its passages in order, a group at a time.

        Args:
            columns: names of the columns to read; None for all.

        Raises:
            OSError, ValueError: it is damaged.
        """
        for number in range(self._file.num_row_groups):
            self._require_bounded(number)
            table = self._file.read_row_group(number, columns=None if columns is None else list(columns))
            _require_sound(table)
            yield table.combine_chunks()

    def _require_bounded(self, number: int) -> None:
        group = self._file.metadata.row_group(number)
        chunks = [group.column(column) for column in range(group.num_columns)]
        if any("DICTIONARY" in encoding for chunk in chunks for encoding in chunk.encodings):
            raise ValueError("values in dictionaries, which no run writes")  # a long text may occur in many rows
        require_bounded(sum(max(chunk.total_uncompressed_size, 8 * chunk.num_values, 0) for chunk in chunks))


def _require_sound(table: "pyarrow.Table") -> None:
    """Check that lists have the lengths that `entries` says, and that their values can be.

    Raises:
        ValueError: they cannot.
    """
    table.validate(full=True)
    names = [name for name in (*ENTRIES, "token_ids", "offsets") if name in table.column_names]
    lists = {name: table.column(name).combine_chunks() for name in names}
    lengths = {name: np.diff(own.offsets.to_numpy()) for name, own in lists.items()}
    for name in set(ENTRIES) & set(lists):
        if "entries" in table.column_names and not np.array_equal(lengths[name], table.column("entries").to_numpy()):
            raise ValueError("a passage has another number of entries")
        values = lists[name].values.to_numpy()
        if not (np.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"a {name} that cannot be")
