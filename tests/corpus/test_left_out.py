"""What is not read is counted and told; packed files and pages are read whatever their names say."""

import bz2
import gzip
import lzma
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest

from stratalens.config.validation import make_config
from stratalens.corpus.corpus import Corpus
from stratalens.corpus.reading import packing
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError
from stratalens.files.result_names import RECORD_FILE

LINES = b"one line of text\nanother line\n"


def zstandard(content: bytes) -> bytes:
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as packed:
        packed.write(content)
    return stream.getvalue().to_pybytes()


PACKED = {".gz": gzip.compress, ".zst": zstandard, ".xz": lzma.compress, ".bz2": bz2.compress}


def read(*paths: Path | str) -> tuple[list[str], list[str]]:
    """Texts of some paths, and what is told about them."""
    told: list[str] = []
    files = find_files(paths, warn=told.append)
    return [row.text for file in files for row in read_rows(file)], told


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("named", [True, False], ids=["by name", "without the ending"])
def test_packed_files_are_read_whatever_their_names(tmp_path, ending, named):
    path = tmp_path / ("a.txt" + ending * named)
    path.write_bytes(PACKED[ending](LINES * 1000))
    assert read(path)[0] == LINES.decode().splitlines() * 1000


@pytest.mark.parametrize("ending", PACKED)
def test_packed_parts_one_after_the_other_are_one_text(tmp_path, ending):
    (tmp_path / f"a.txt{ending}").write_bytes(PACKED[ending](LINES) + PACKED[ending](LINES))
    assert read(tmp_path / f"a.txt{ending}")[0] == LINES.decode().splitlines() * 2


@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_file_that_ends_too_early_is_refused(tmp_path, ending):
    import random

    noise = "\n".join(str(random.Random(1).random()) for _ in range(20_000)).encode()
    (tmp_path / f"a.txt{ending}").write_bytes(PACKED[ending](noise)[:-40])
    with pytest.raises(CorpusError, match=r"cannot be read"):
        read(tmp_path / f"a.txt{ending}")


def test_a_file_that_is_not_packed_although_its_name_says_so_is_read(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(LINES)
    assert read(tmp_path / "a.txt.gz")[0] == LINES.decode().splitlines()


def test_xz_that_takes_too_much_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "MAX_XZ_MEMORY_BYTES", 2**20)
    (tmp_path / "a.txt.xz").write_bytes(lzma.compress(LINES, preset=9))
    with pytest.raises(CorpusError, match=r"a\.txt\.xz: cannot be read: .*[Mm]emory"):
        read(tmp_path / "a.txt.xz")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.serial
@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_file_that_becomes_a_thousand_times_larger_takes_no_more_memory(tmp_path, ending):
    (tmp_path / f"a.txt{ending}").write_bytes(PACKED[ending]((b"x" * 999 + b"\n") * 300_000))
    program = f"""
import re
from stratalens.corpus.text_files import find_files
from stratalens.corpus.reading.readers import read_rows
import pyarrow
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
count = sum(1 for file in find_files([{str(tmp_path / f"a.txt{ending}")!r}]) for row in read_rows(file))
print(count, peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    assert count == 300_000
    assert grown < 60_000


def test_pages_are_read_as_a_browser_shows_them(tmp_path):
    page = (
        "<!DOCTYPE html><html><head><title>T</title><style>p {color: red}</style><script>var bank = 1;</script></head>"
        "<body><p>in<b>fla</b>tion rose &amp; fell</p><!-- hidden -->"
        "<table><tr><td>Revenue</td><td>12</td></tr></table><ul><li>one<li>two</ul></body></html>"
    )
    for name in ("a.htm", "b.html", "c.html.gz"):
        (tmp_path / name).write_bytes(gzip.compress(page.encode()) if name.endswith("gz") else page.encode())
    texts, told = read(tmp_path)
    assert told == []
    assert len(set(texts)) == 1
    assert texts[0].startswith("inflation rose & fell")
    assert "Revenue\t" in texts[0]
    assert all(word not in texts[0] for word in ("bank", "color", "hidden"))


@pytest.mark.parametrize("page", ["<div>" * 100_000 + "deep", "<p>" + "word " * 3_000_000 + "deep", "plain deep"])
def test_a_page_of_any_shape_keeps_its_text(tmp_path, page):
    (tmp_path / "a.html").write_text(page)
    assert read(tmp_path / "a.html")[0][0].endswith("deep")


def test_files_of_unknown_endings_are_counted_and_told(tmp_path):
    (tmp_path / "README.md").write_text("about these")
    for number in range(40):
        (tmp_path / f"{number}.pdf").write_bytes(b"%PDF")
    (tmp_path / "LICENSE").write_text("none")
    texts, told = read(tmp_path)
    assert texts == ["about these"]
    assert told == [f"{tmp_path}: not read for their endings: 40 .pdf, 1 without an ending, such as {tmp_path}/0.pdf"]


def test_hidden_files_and_linked_folders_that_are_not_read_are_told(tmp_path):
    (tmp_path / "in" / ".store").mkdir(parents=True)
    for name in ("a.txt", ".b.txt", ".store/c.txt"):
        (tmp_path / "in" / name).write_text(name)
    (tmp_path / "in" / "linked").symlink_to(".store")
    texts, told = read(tmp_path / "in")
    assert texts == ["a.txt"]
    assert "hidden files are not read: 2" in told[0]
    assert "linked directories are not entered: 1, such as" in told[0]


def test_the_results_of_runs_are_never_read(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "mine"}\n')
    for name in ("results", "older"):
        for inner in (RECORD_FILE, "report.html", "layer_4/evidence.json", "layer_4/notes.txt"):
            (tmp_path / name / inner).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / inner).write_text("a note of the user")
    config = make_config(domain_data=str(tmp_path), output_dir=str(tmp_path / "results"))
    corpus = Corpus.of_run(config)
    names = [str(file.path) for file in corpus.files[0]]
    assert names == [
        f"{tmp_path}/{name}" for name in ("older/layer_4/notes.txt", "results/layer_4/notes.txt", "texts.jsonl")
    ]
    assert "files of a result of stratalens are not read: 6, such as" in corpus.warnings[0]


def test_a_result_of_the_run_that_is_named_is_refused(tmp_path, documented):
    (tmp_path / "report.html").write_text("<p>old</p>")
    with pytest.raises(CorpusError) as error:
        Corpus.of_run(make_config(domain_data=str(tmp_path / "report.html"), output_dir=str(tmp_path)))
    documented("Texts", "a file of the run's own result", str(error.value))
