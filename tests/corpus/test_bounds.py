"""A corpus may be of any size; what is held at once is bounded, and no packed file fills memory or disk."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from special_files import made_special
from text_files import FILES, ROWS

from stratalens.corpus.reading import csv_table, formats, lines, packing, parquet
from stratalens.corpus.reading.formats import TextFile
from stratalens.corpus.reading.parquet_pages import pages_of
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CapacityError, CorpusError

LIMIT = 2**12


@pytest.fixture(autouse=True)
def low_limits(monkeypatch):
    monkeypatch.setattr(parquet, "MAX_ROW_BYTES", LIMIT)
    monkeypatch.setattr(lines, "MAX_ROW_CHARACTERS", LIMIT)
    monkeypatch.setattr(parquet, "MAX_PAGE_BYTES", 16 * LIMIT)
    monkeypatch.setattr(packing, "MAX_FREE_COPY_BYTES", 2**20)
    monkeypatch.setattr(csv_table, "MAX_CSV_FIELD_CHARACTERS", LIMIT)
    monkeypatch.setattr(csv_table, "MAX_CSV_ROW_CHARACTERS", 4 * LIMIT)


def rows_of(path: Path, text_unit: str = "auto") -> list[Row]:
    return [row for file in find_files([path], TextOptions(text_unit=text_unit)) for row in read_rows(file)]


def refused(path: Path, text_unit: str = "auto") -> str:
    with pytest.raises(CorpusError) as error:
        rows_of(path, text_unit)
    return str(error.value)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.jsonl.gz"])
def test_a_line_without_end_is_refused_with_its_number(tmp_path, documented, name):
    line = '{"text": "%s"}' if "jsonl" in name else "%s"
    sound, endless = (line % ("x" * size) for size in (LIMIT - 100, 100 * LIMIT))
    message = refused(written(tmp_path / name, f"{sound}\n{endless}".encode()))
    assert message.endswith(f"{name}:2: a line of more than 4,096 characters; cut such long documents into several")
    if name == "a.txt":
        documented("Texts", "a line without end", message.replace("4,096", f"{64 * 2**20:,}"))
    assert len(rows_of(written(tmp_path / name, f"{sound}\n{sound}".encode()))) == 2


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_a_document_without_end_is_refused(tmp_path, documented, name):
    message = refused(written(tmp_path / name, b"x y\n" * LIMIT), "file")
    assert (
        f"{name}: a document of more than 4,096 characters; give --text_unit line if each line is a document" in message
    )
    if name == "a.txt":
        documented("Texts", "a file without end that is one document", message.replace("4,096", f"{64 * 2**20:,}"))
    assert len(rows_of(written(tmp_path / name, b"x y\n" * LIMIT), "line")) == LIMIT
    assert len(rows_of(written(tmp_path / name, b"x" * LIMIT), "file")) == 1


def test_a_packed_corpus_may_become_a_thousand_times_larger(tmp_path):
    path = written(tmp_path / "a.txt.gz", b"a line of text\n" * 20_000)
    assert path.stat().st_size * 300 < 15 * 20_000
    assert len(rows_of(path)) == 20_000


def test_a_csv_row_of_many_cells_is_bounded_as_a_whole(tmp_path, documented):
    cell = '"' + "word\n" * 200 + '"'
    message = refused(written(tmp_path / "a.csv", b"text,b\nx,y\n" + b",".join([cell.encode()] * 100)))
    assert "a row of more than 16,384 characters; close its quote, or store such long texts" in message
    documented("Texts", "a row of CSV without end", message.replace("16,384", "40,000,000").replace(":3219:", ":4711:"))
    several = b"text,b\n" + b"".join(cell.encode() + b",x\n" for _ in range(100))
    assert len(rows_of(written(tmp_path / "a.csv", several))) == 100


def test_a_packed_table_that_becomes_far_larger_is_not_unpacked_to_the_end(tmp_path, documented):
    message = refused(written(tmp_path / "a.parquet.gz", bytes(20 * 2**20)))
    assert "unpacked it is more than 50 times as large; unpack it yourself if it is what it should be" in message
    documented("Texts", "a gzipped parquet file that becomes far larger", message)
    assert rows_of(written(tmp_path / "a.parquet.gz", FILES["a.parquet"]))[0].text == ROWS[0]["text"]


def table(path: Path, texts: list[str], **options: object) -> Path:
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "id": list(range(len(texts)))}), path, **options)
    return path


def test_a_page_that_becomes_far_larger_is_refused(tmp_path, documented):
    message = refused(table(tmp_path / "a.parquet", ["x" * 20 * LIMIT], compression="zstd", use_dictionary=False))
    assert "a page of the column `text` is larger than 64 KiB when it is unpacked, or more than 50 times" in message
    documented("Texts", "a page of a parquet file that fills the memory", message.replace("64 KiB", "1 GiB"))


def test_a_page_larger_than_any_is_refused_even_if_it_is_not_packed(tmp_path):
    path = table(tmp_path / "a.parquet", ["x" * 1000] * 100, compression="none", use_dictionary=False)
    assert "a page of the column `text`" in refused(path)
    table(path, ["x" * 1000] * 100, compression="none", use_dictionary=False, data_page_size=LIMIT, write_batch_size=1)
    assert len(rows_of(path)) == 100


def test_a_text_that_is_stored_once_and_stands_in_many_rows_is_held_once(tmp_path):
    text = "word " * 500
    assert rows_of(table(tmp_path / "a.parquet", [text] * 2000))[1999].text == text.strip()


def test_a_row_without_end_is_refused(tmp_path, documented):
    text = "".join(map(chr, np.random.default_rng(0).integers(97, 123, 2 * LIMIT)))
    message = refused(table(tmp_path / "a.parquet", [text]))
    assert message.endswith("a.parquet: a row of more than 4 KiB; cut such long documents into several")
    documented("Texts", "a row of parquet without end", message.replace("4 KiB", "64 MiB"))


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False], ids=["dictionary", "plain"])
def test_the_pages_that_are_found_fill_their_column_chunk(tmp_path, compression, version, use_dictionary):
    texts = [f"{number} " * (number % 7) for number in range(3000)]
    path = table(
        tmp_path / "a.parquet",
        texts,
        **{"compression": compression, "data_page_version": version, "use_dictionary": use_dictionary},
        **{
            "row_group_size": 1000,
            "data_page_size": 1000,
            "write_batch_size": 100,
            "write_page_checksum": True,
            "write_page_index": True,
        },
    )
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    with path.open("rb") as stream:
        for group in range(metadata.num_row_groups):
            for column in range(2):
                chunk = metadata.row_group(group).column(column)
                pages = list(pages_of(stream.fileno(), chunk))
                starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
                assert pages[-1].end == min(filter(None, starts)) + chunk.total_compressed_size
                assert len(pages) > 1
                assert sum(page.unpacked_bytes for page in pages) <= chunk.total_uncompressed_size


LISTS = {
    "of nulls": ({"text": [[None] * 3_000_000]}, "text"),
    "of texts as id": ({"text": ["one"], "id": [["x"] * 1_000_000]}, "id"),
    "in a table": ({"text": [{"part": [1] * 1_000_000}]}, "text"),
    "of lists": ({"text": [[[None] * 1_000_000]]}, "text"),
}


@pytest.mark.parametrize("case", LISTS)
def test_a_list_in_a_row_of_parquet_is_refused_before_it_is_read(tmp_path, monkeypatch, case):
    rows, column = LISTS[case]
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 2**16
    monkeypatch.delattr(pyarrow.parquet.ParquetFile, "iter_batches")
    message = refused(tmp_path / "a.parquet")
    assert message.endswith(f"a.parquet: the column `{column}` holds lists; expected a text or an id in each row")


def test_a_list_in_another_column_of_parquet_is_not_read(tmp_path):
    rows = {"text": ["one"], "texts": [[1, 2]], "id": [7]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [Row("one", "7")]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.txt.gz", "a.parquet.gz"])
@pytest.mark.parametrize("kind", ["a named pipe", "a device without end"])
def test_what_is_no_regular_file_is_refused_by_its_name_and_skipped_in_a_directory(tmp_path, documented, name, kind):
    (tmp_path / "folder").mkdir()
    path = made_special(kind, tmp_path / "folder" / name)
    message = refused(path)
    assert "cannot be read: a regular file was expected, this is a" in message
    if name == "a.txt":
        documented("Texts", kind, message)
    (tmp_path / "folder" / "b.txt").write_text("sound")
    assert [row.text for row in rows_of(tmp_path / "folder")] == ["sound"]


def test_a_file_that_becomes_a_pipe_after_it_was_found_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    files: list[TextFile] = find_files([tmp_path / "a.txt"])
    made_special("a named pipe", tmp_path / "a.txt")
    with pytest.raises(CorpusError, match="this is a named pipe"):
        list(read_rows(files[0]))


def test_an_error_of_memory_names_the_file(tmp_path, monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    (tmp_path / "a.jsonl").write_text('{"text": "x"}')
    monkeypatch.setattr(formats, "_JSON", SimpleNamespace(decode=no_memory))
    with pytest.raises(CapacityError, match=r"a\.jsonl: out of memory while it was read"):
        rows_of(tmp_path / "a.jsonl")


def test_an_error_of_memory_of_whoever_takes_the_rows_is_not_blamed_on_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("x\ny\n")
    rows = read_rows(find_files([tmp_path / "a.txt"])[0])
    with pytest.raises(MemoryError):
        take_without_memory(rows)


def take_without_memory(rows: Iterator[Row]) -> None:
    for _ in rows:
        raise MemoryError
