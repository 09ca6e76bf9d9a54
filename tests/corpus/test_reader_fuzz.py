"""Whatever bytes a file holds, its reader soon returns rows of valid text or raises a one-line error."""

import csv
import gzip
import io
import json
import re
import tempfile
import unicodedata
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.rows import Row
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError

FUZZED = settings(max_examples=100, deadline=10_000, suppress_health_check=[HealthCheck.too_slow])
NASTY_TEXT = st.text(
    st.one_of(st.characters(), st.sampled_from('\x00\r\n\t\u2028\u2029\x85\x0b\x0c\x1c\ufeff\ud800\udfff",\\{}[]')),
    max_size=30,
)
PIECES = {
    "of encodings": [
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\xe2\x80\xa8",
        b"\xc2\x85",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ],
    "of tables": [b"\r", b"\n", b"\r\n", b'"', b'""', b",", b"\t", b"text", b"id,text\n"],
    "of JSON": [
        b'{"text": ',
        b'{"text": "x"}\n',
        b"}",
        b"\\ud800",
        b"1e999",
        b"9" * 5000,
        b"[" * 3000,
        b'{"text":' * 3000,
    ],
    "of others": [b"NaN", b"-", b"\x1f\x8b\x08", b"PAR1"],
}
NASTY_BYTES = st.lists(
    st.one_of(st.binary(max_size=12), *map(st.sampled_from, PIECES.values())),
    max_size=12,
).map(b"".join)
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), NASTY_TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NASTY_TEXT, inner, max_size=3)),
    max_leaves=5,
)


def outcome(name: str, content: bytes, unit: str = "auto", **options: object) -> list[Row] | str:
    """The rows of a file, or the message of the error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        found = _rows_or_message(path, TextOptions(text_unit=unit, **options))
    if isinstance(found, str):
        assert name in found
        return found
    for row in found:
        row.text.encode("utf-8")
        assert row.text == row.text.strip()
        assert row.identifier is None or isinstance(row.identifier, str)
    return found


def _rows_or_message(path: Path, options: TextOptions) -> list[Row] | str:
    try:
        return [row for file in find_files([path], options) for row in read_rows(file)]
    except CorpusError as error:
        return str(error)


ROWS = [{"id": f"d{number}", "text": f'text {number} "quoted", €\nsecond line ' + "word " * 40} for number in range(30)]


def valid_files() -> dict[str, bytes]:
    rows = ROWS
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, ["id", "text"])
    writer.writeheader()
    writer.writerows(rows)
    parquet = {}
    for name, options in {
        "a.parquet": {},
        "b.parquet": {"use_dictionary": False, "compression": "none"},
        "c.parquet": {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 7},
        "d.parquet": {"compression": "gzip", "data_page_size": 200, "write_page_checksum": True},
    }.items():
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer, **options)
        parquet[name] = buffer.getvalue()
    plain = {
        "a.txt": "\n".join(row["text"] for row in rows).encode(),
        "a.jsonl": lines,
        "a.csv": table.getvalue().encode(),
    }
    return plain | parquet


VALID = valid_files()
VALID |= {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in VALID.items() if name[0] == "a"}


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with bits flipped, pieces cut out, doubled, overwritten, or its end missing."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(0, len(changed)), st.integers(max(0, len(changed) - 400), len(changed))))
        length = draw(st.integers(1, 60))
        match draw(st.sampled_from(["flip", "cut", "double", "overwrite", "end"])):
            case "flip":
                for position in range(at, min(at + 1, len(changed))):
                    changed[position] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del changed[at : at + length]
            case "double":
                changed[at:at] = changed[at : at + length]
            case "overwrite":
                changed[at : at + length] = draw(st.one_of(st.binary(max_size=60), st.just(b"\xff" * length)))
            case "end":
                del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("name", VALID)
def test_a_sound_file_is_read_whole(name):
    found = outcome(name, VALID[name])
    lines = [line.strip() for row in ROWS for line in row["text"].split("\n")]
    if name.startswith("a.txt"):
        assert found == [Row(line, None) for line in lines]
    else:
        assert found == [Row(row["text"].strip(), row["id"]) for row in ROWS]


@pytest.mark.parametrize("name", VALID)
@given(data=st.data())
@FUZZED
def test_a_damaged_file_is_read_or_refused(name, data):
    outcome(name, data.draw(damaged(VALID[name])))


@pytest.mark.parametrize("name", [*VALID, "a.tsv", "a.tsv.gz"])
@given(content=NASTY_BYTES, zipped=st.booleans())
@FUZZED
def test_any_bytes_are_read_or_refused(name, content, zipped):
    outcome(name, gzip.compress(content, mtime=0) if zipped else content)


def cleaned(text: str) -> str:
    """Text as it should come out: line ends alike, no control characters, byte order marks and half characters."""
    text = re.sub("\r\n|[\r\x0b\x0c\x85]", "\n", text)
    kept = [c for c in text if c in "\t\n" or not (unicodedata.category(c) in ("Cc", "Cs") or c == "\ufeff")]
    return "".join(kept).strip()


@given(content=NASTY_BYTES)
@FUZZED
def test_a_whole_text_is_the_decoded_file_and_its_lines_are_those_between_line_ends(content):
    whole, lines = outcome("a.txt", content, "file"), outcome("a.txt", content, "line")
    assert isinstance(whole, list) == isinstance(lines, list)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if re.search(rb"[\x00-\x08\x0e-\x1f\xff]", content):  # it may be in another encoding
        return
    assert whole == [Row(cleaned(text), None)]
    if not text:  # nothing, or a byte order mark alone
        assert lines in ([], [Row("", None)])
        return
    text = re.sub("\r\n?", "\n", text)
    assert lines == [Row(cleaned(line), None) for line in text.removesuffix("\n").split("\n") if content]


@given(text=JSON_VALUES, identifier=JSON_VALUES)
@FUZZED
def test_of_any_json_values_only_text_is_taken(text, identifier):
    found = outcome("a.jsonl", json.dumps({"text": text, "id": identifier}).encode())
    proper = text is None or (isinstance(text, str) and not isinstance(identifier, dict | list))
    assert isinstance(found, list) == proper
    if isinstance(found, list):
        assert [row.text for row in found] == [cleaned(text or "")]


@given(lines=st.lists(st.lists(NASTY_TEXT, min_size=2, max_size=2), max_size=5))
@FUZZED
def test_any_cells_that_a_csv_writer_writes_come_back_clean_or_are_refused_with_the_way_out(lines):
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["id", "text"], *lines])
    try:
        content = stream.getvalue().encode()
    except UnicodeEncodeError:
        return
    expected = [(cleaned(text), bool(identifier)) for identifier, text in lines]
    found = outcome("a.csv", content)
    if isinstance(found, str):
        assert "--csv_quoting" in found or "encoding" in found
        found = outcome("a.csv", content, csv_quoting="standard", encoding="utf-8")
    assert isinstance(found, list)
    assert [(row.text, row.identifier is not None) for row in found] == expected
