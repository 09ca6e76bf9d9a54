"""A table or an archive of a result that would fill the memory is refused before it is unpacked."""

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from special_files import SPECIAL, made_special

from stratalens.errors import CapacityError, ConfigError
from stratalens.files import damaged
from stratalens.files.damaged import read_table

TABLE = pd.DataFrame(
    {
        "document": np.arange(5, dtype=np.uint64),
        "label": ["x", None, "y", "x", "ürgent"],
        "confirmed": [True, False, None, True, True],
        "token_ids": [np.arange(size) for size in range(5)],
        "auroc": [0.5, np.nan, 1.0, 0.0, 0.25],
        "flags": [""] * 5,
    }
)


def same_value(value: object, rows: int) -> pyarrow.DictionaryArray:
    """One value in many rows, which a parquet file stores once."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(rows, np.int32)), pyarrow.array([value]))


def test_a_sound_table_is_read_as_pandas_reads_it(tmp_path):
    for table in (TABLE, TABLE.head(0)):
        table.to_parquet(tmp_path / "a.parquet", index=False)
        pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), pd.read_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize("value", ["x" * 1000, 1.0], ids=["texts", "numbers"])
def test_a_small_file_of_a_huge_table_is_refused(tmp_path, monkeypatch, value):
    monkeypatch.setattr(damaged, "MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"a": same_value(value, 200_000)}), path, row_group_size=200_000)
    assert path.stat().st_size < 30_000
    with pytest.raises(ConfigError, match=r"a\.parquet: damaged.*unpacked it would take more than 1 MiB"):
        read_table(path)
    pyarrow.parquet.write_table(pyarrow.table({"a": same_value(value, 500)}), path)
    assert len(read_table(path)) == 500


def test_texts_in_lists_are_refused_as_their_size_is_not_known(tmp_path):
    pd.DataFrame({"a": [["x"]]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="a column of texts in lists"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", SPECIAL)
def test_a_table_that_is_no_regular_file_is_refused(tmp_path, kind):
    with pytest.raises(ConfigError, match=SPECIAL[kind]):
        read_table(made_special(kind, tmp_path / "a.parquet"))


def test_a_table_for_which_there_is_no_memory_is_named(tmp_path, monkeypatch):
    def no_memory(*_: object) -> None:
        raise MemoryError

    TABLE.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(pd, "read_parquet", no_memory)
    with pytest.raises(CapacityError, match=r"a\.parquet: out of memory while it was read"):
        read_table(tmp_path / "a.parquet")
