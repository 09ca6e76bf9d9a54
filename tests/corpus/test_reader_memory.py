"""The memory of a reader is bounded by a constant and twice the largest document, however many there are.

Peaks are read from /proc: that of `getrusage` begins with the memory of the process that started this one.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratalens.corpus.reading import csv_table
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError
from stratalens.files import hashing
from stratalens.files.hashing import hash64

CHARACTERS = 40_000_000
DOCUMENTS = 3
ALLOWANCE_BYTES = 10_000_000
PARQUET_ALLOWANCE_BYTES = 24_000_000
CSV_ALLOWANCE_BYTES = 100_000_000
"""Python's CSV reader takes four bytes for each character of a cell, and the cell is bounded."""

reads_peaks = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")

MEASURE = """
import re, sys
import pyarrow.dataset, pyarrow.parquet
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.files.hashing import hash64

def read(path):
    corpus = Corpus.find([path], [], TextOptions(text_unit=sys.argv[3]))
    lengths = map(lambda row: len(row.text) + 0 * hash64(row.text, row.identity), corpus.rows())
    longest = max(lengths)
    return longest, 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

print(read(sys.argv[1])[1], *read(sys.argv[2]))
"""


def documents(characters: int) -> Iterator[str]:
    """Different ASCII texts with characters that JSON and CSV escape."""
    words = np.random.default_rng(0).integers(97, 123, 999_990, dtype=np.uint8).tobytes().decode()
    for number in range(DOCUMENTS):
        yield f"{number} " + (words + ' "q"\tx \\') * (characters // 1_000_000)


def write_lines(path: Path, texts: Iterator[str]) -> None:
    with _opened(path) as stream:
        stream.writelines(text + "\n" for text in texts)


def write_jsonl(path: Path, texts: Iterator[str]) -> None:
    with _opened(path) as stream:
        stream.writelines(json.dumps({"text": f" {text}\n", "id": text[0], "other": [1]}) + "\n" for text in texts)


def write_whole(path: Path, texts: Iterator[str]) -> None:
    with _opened(path) as stream:
        stream.write("\ufeff" + next(texts))


def write_csv(path: Path, texts: Iterator[str]) -> None:
    with _opened(path) as stream:
        stream.write("id,text\n")
        for text in texts:
            cell = text[: csv_table.MAX_CSV_FIELD_CHARACTERS // 2].replace('"', '""')
            stream.write(f'{text[0]},"{cell}"\n')


def write_parquet(path: Path, texts: Iterator[str]) -> None:
    """A document a page, as no larger unit can be left unread."""
    schema = pyarrow.schema({"id": pyarrow.string(), "text": pyarrow.string()})
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for text in texts:
            writer.write_table(pyarrow.table({"id": [text[0]], "text": [text]}, schema=schema))


def _opened(path: Path):
    return gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w", encoding="utf-8")


class Kind:
    def __init__(self, name: str, write: Callable, unit: str = "line", copies: float = 2, allowance=ALLOWANCE_BYTES):
        self.name, self.write, self.unit, self.copies, self.allowance = name, write, unit, copies, allowance


KINDS = [
    Kind("a.txt", write_lines),
    Kind("a.txt.gz", write_lines),
    Kind("a.jsonl", write_jsonl),
    Kind("a.jsonl.gz", write_jsonl),
    Kind("a.txt", write_whole, "file"),
    Kind("a.txt.gz", write_whole, "file"),
    Kind("a.csv", write_csv, copies=0, allowance=CSV_ALLOWANCE_BYTES),
    Kind("a.csv.gz", write_csv, copies=0, allowance=CSV_ALLOWANCE_BYTES),
    Kind("a.parquet", write_parquet, copies=4, allowance=PARQUET_ALLOWANCE_BYTES),
]


@pytest.mark.serial
@reads_peaks
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}-{kind.unit}")
def test_the_peak_grows_by_no_more_than_copies_of_one_document(tmp_path, kind):
    sizes = {"small": 1_000_000, "large": CHARACTERS}
    paths = [tmp_path / f"{name}-{kind.name}" for name in sizes]
    for path, characters in zip(paths, sizes.values(), strict=True):
        kind.write(path, documents(characters))
    command = [sys.executable, "-c", MEASURE, *map(str, paths), kind.unit]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, longest, large = map(int, done.stdout.split())
    assert longest > 0.99 * (csv_table.MAX_CSV_FIELD_CHARACTERS // 2 if "csv" in kind.name else CHARACTERS)
    grown = large - small
    print(f"{kind.name}: {grown / 1e6:.0f} MB for documents of {longest / 1e6:.0f} MB")
    assert grown <= kind.copies * longest + kind.allowance


@pytest.mark.serial
@reads_peaks
def test_a_thousand_documents_take_no_more_than_ten(tmp_path):
    """One parquet row group of all documents, which no reader may take at once."""
    paths = [tmp_path / "small.parquet", tmp_path / "large.parquet"]
    letters = np.random.default_rng(0).integers(97, 123, 100_000, dtype=np.uint8).tobytes().decode()
    for path, count in zip(paths, (10, 2000), strict=True):
        texts = [f"{number} {letters[number:]}" for number in range(count)]
        table = pyarrow.table({"text": texts})
        pyarrow.parquet.write_table(table, path, use_dictionary=False, row_group_size=count, write_batch_size=1)
    command = [sys.executable, "-c", MEASURE, *map(str, paths), "line"]
    small, _, large = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert large - small < 16_000_000


@pytest.mark.parametrize("quote", ['"', ""], ids=["an open quote", "a line without end"])
def test_a_cell_beyond_the_bound_is_refused_with_what_to_do(tmp_path, monkeypatch, quote):
    monkeypatch.setattr(csv_table, "MAX_CSV_FIELD_CHARACTERS", 1000)
    lines = f"{quote}never closed" + (" word\n" if quote else " word") * 500
    (tmp_path / "a.csv").write_text('text\n"x"\n' + lines)
    with pytest.raises(CorpusError, match=r"a\.csv.*close its quote, or store such long texts as jsonl or parquet"):
        list(read_rows(find_files([tmp_path / "a.csv"])[0]))


def test_a_cell_within_the_bound_is_read_whole_in_one_line_or_many(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_CSV_FIELD_CHARACTERS", 1000)
    texts = ["word " * 190 + "end", "word\n" * 190 + "end"]
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    assert [row.text for row in read_rows(find_files([tmp_path / "a.csv"])[0])] == texts


@given(st.text(st.characters(), max_size=60), st.integers(1, 9))
def test_the_hash_of_a_long_text_is_the_hash_of_its_bytes(text, piece):
    whole = hash64(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "PIECE_CHARACTERS", piece)
        assert hash64(text) == hash64(text.encode("utf-8", "surrogatepass")) == whole
