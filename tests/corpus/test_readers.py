"""Every kind of file gives the texts that were written into it, in a stable order, whatever wraps it."""

import gzip
import importlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_files import FILES, ROWS, TEXTS, jsonl, parquet, table

from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=40)


def read(*paths: Path | str, **options: object) -> list[Row]:
    return [row for file in find_files(paths, TextOptions(**options)) for row in read_rows(file)]


def texts(*paths: Path | str, **options: object) -> list[str]:
    return [row.text for row in read(*paths, **options)]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_table_gives_its_texts_and_ids_plain_and_zipped(tmp_path, name, zipped):
    path = tmp_path / (name + ".gz" if zipped else name)
    path.write_bytes(gzip.compress(FILES[name]) if zipped else FILES[name])
    assert read(path) == [Row(row["text"], row["id"]) for row in ROWS]


@pytest.mark.parametrize("name", ["A.JSONL", "A.TSV", "A.CSV", "A.JSONL.GZ", "a.csv.Gz"])
def test_the_case_of_a_file_name_does_not_matter(tmp_path, name):
    content = FILES[name.lower().removesuffix(".gz")]
    (tmp_path / name).write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    assert texts(tmp_path / name) == TEXTS


def test_a_kind_in_the_middle_of_a_name_does_not_count(tmp_path):
    (tmp_path / "export.tsv.csv").write_bytes(FILES["a.csv"])
    assert texts(tmp_path / "export.tsv.csv") == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.txt.gz"])
def test_plain_text_is_read_by_lines_when_named_and_as_a_whole_inside_a_directory(tmp_path, name):
    content = b"one\ntwo\n\nthree\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    lines, whole = ["one", "two", "", "three"], ["one\ntwo\n\nthree"]
    assert texts(tmp_path / name) == texts(tmp_path / "*.*") == lines
    assert texts(tmp_path) == whole
    assert texts(tmp_path / name, text_unit="file") == whole
    assert texts(tmp_path, text_unit="line") == lines


def test_what_a_document_is_stands_in_the_list_of_files(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.csv").write_text("text\nx\n")
    assert [file.unit for file in find_files([tmp_path])] == ["row", "file"]
    assert [file.unit for file in find_files([tmp_path / "a.txt", tmp_path / "a.csv"])] == ["line", "row"]
    assert [file.unit for file in find_files([tmp_path], TextOptions(text_unit="line"))] == ["row", "line"]


BOM = "\ufeff".encode()


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_a_byte_order_mark_is_no_part_of_a_table(tmp_path, name):
    (tmp_path / name).write_bytes(BOM + FILES[name])
    assert read(tmp_path / name) == [Row(row["text"], row["id"]) for row in ROWS]


@pytest.mark.parametrize("text_unit", ["line", "file"])
def test_a_byte_order_mark_is_no_part_of_a_plain_text(tmp_path, text_unit):
    (tmp_path / "a.txt").write_bytes(BOM + b"only")
    assert texts(tmp_path / "a.txt", text_unit=text_unit) == ["only"]


WINDOWS = {
    "a.txt": b"one\r\ntwo\r\n",
    "a.jsonl": b'{"text": "one"}\r\n{"text": "two"}\r\n',
    "a.csv": b"id,text\r\n1,one\r\n2,two\r\n",
    "a.tsv": b"id\ttext\r\n1\tone\r\n2\ttwo\r\n",
}


@pytest.mark.parametrize(("name", "content"), WINDOWS.items(), ids=WINDOWS)
def test_windows_line_ends_are_no_part_of_the_text(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert texts(tmp_path / name) == ["one", "two"]


def test_blank_lines_between_json_lines_are_skipped_and_blank_texts_kept(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n  \n{"text": " "}\n{"text": null}\n')
    assert texts(tmp_path / "a.jsonl") == ["one", "", ""]


def test_words_that_mean_nothing_in_pandas_are_texts(tmp_path):
    (tmp_path / "a.csv").write_text("text\nNA\nnull\n12.50\n")
    assert texts(tmp_path / "a.csv") == ["NA", "null", "12.50"]


def test_an_id_is_a_word_and_a_missing_one_is_none(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "id": 7}\n{"text": "x", "id": ""}\n{"text": "x"}\n')
    (tmp_path / "a.csv").write_text("id,text\n007,x\n,x\n")
    assert [row.identifier for row in read(tmp_path / "a.jsonl")] == ["7", None, None]
    assert [row.identifier for row in read(tmp_path / "a.csv")] == ["007", None]


def test_the_text_column_is_the_one_that_was_named(tmp_path):
    for name, content in (("a.jsonl", b'{"text": "no", "body": "yes"}'), ("a.csv", b"text,body\nno,yes\n")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.parquet").write_bytes(parquet([{"text": "no", "body": "yes"}]))
    assert texts(tmp_path, text_column=("body",)) == ["yes", "yes", "yes"]


@pytest.mark.parametrize("lines", ["1,all good\n2,Rates rose, bonds fell\n", "1,Rates rose, bonds fell\n"])
def test_a_csv_row_with_a_comma_too_many_is_an_error_and_not_a_shortened_text(tmp_path, lines):
    (tmp_path / "a.csv").write_text("id,text\n" + lines)
    with pytest.raises(CorpusError, match=r"a\.csv"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_text_of_any_length_is_read_whole(tmp_path, name):
    long = "word " * 60_000 + "end"
    (tmp_path / name).write_bytes(table([{"id": "1", "text": long}]) if name == "a.csv" else jsonl([{"text": long}]))
    assert texts(tmp_path / name) == [long]


def test_directories_are_read_to_any_depth_in_the_order_of_their_names(tmp_path):
    for name in ("b/z.txt", "b/a.jsonl", "a/deep/er/x.csv", "c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "json"}' if name.endswith("jsonl") else f"text\n{name}")
    for ignored in (".hidden.txt", "b/picture.png", "b/LICENSE"):
        (tmp_path / ignored).write_text("not read")
    found = [str(file.path.relative_to(tmp_path)) for file in find_files([tmp_path])]
    assert found == ["a/deep/er/x.csv", "b/a.jsonl", "b/z.txt", "c.md"]
    assert texts(tmp_path) == ["a/deep/er/x.csv", "json", "text\nb/z.txt", "text\nc.md"]


def test_a_glob_finds_its_files_in_the_order_of_their_names_to_any_depth(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "*.txt") == ["a.txt", "b.txt"]
    assert texts(tmp_path / "**" / "*.txt") == ["a.txt", "b.txt", "deep/c.txt"]
    assert texts(tmp_path / "[b].txt") == ["b.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_read_as_itself(tmp_path):
    (tmp_path / "a[1].txt").write_text("itself")
    (tmp_path / "a1.txt").write_text("another")
    assert texts(tmp_path / "a[1].txt") == ["itself"]


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text('{"text": "once"}')
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert texts("a.jsonl", tmp_path / "a.jsonl", "*.jsonl", tmp_path, "../" + tmp_path.name + "/a.jsonl") == ["once"]


def test_a_file_named_itself_and_by_its_directory_is_read_alike_in_either_order(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo")
    assert texts(tmp_path, tmp_path / "a.txt") == texts(tmp_path / "a.txt", tmp_path)


def test_files_keep_the_order_they_were_named_in(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(name)
    assert texts(tmp_path / "b.txt", tmp_path / "a.txt") == ["b", "a"]
    assert texts(tmp_path / "a.txt", tmp_path / "b.txt") == ["a", "b"]


@given(written=st.lists(ANY_TEXT, max_size=8))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv"])
def test_any_texts_come_back_as_they_were_written_save_white_space_around_them(name, written):
    rows = [{"id": f"{number}", "text": text} for number, text in enumerate(written)]
    content = jsonl(rows) if name == "a.jsonl" else table(rows, "\t" if name == "a.tsv" else ",")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        assert read(path) == [Row(text.strip(), f"{number}") for number, text in enumerate(written)]


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma"])
def test_a_packed_file_of_nothing_has_no_rows(tmp_path, name):
    (tmp_path / "a.jsonl").write_bytes(importlib.import_module(name).compress(b""))
    assert texts(tmp_path / "a.jsonl") == []
