"""Speed and memory of the readers on a corpus of several gigabytes, and of the survey at the beginning of a run.

python bench/readers.py [--gigabytes 5]
"""

import csv
import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
import pyarrow
import pyarrow.parquet
import tyro

from stratalens.corpus import Corpus, survey
from stratalens.corpus.builtin import text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files

PART_BYTES = 100_000_000
TABLE_ROWS = 10_000
MIN_DOCUMENT_CHARACTERS, MAX_DOCUMENT_CHARACTERS = 200, 6000
SAMPLE_SECONDS = 0.05


@dataclass(frozen=True)
class Options:
    """What to measure."""

    gigabytes: float = 5
    """Text in all, a fifth of it in each kind of file; written to the temporary directory and deleted."""


class Curve(NamedTuple):
    """Resident memory while something ran, in bytes."""

    before: int
    start: int
    middle: int
    end: int
    peak: int
    seconds: float

    def __str__(self) -> str:
        parts = zip(("before", "start", "middle", "end", "peak"), self[:5], strict=True)
        return ", ".join(f"{name} {value / 1e6:,.0f}" for name, value in parts) + " MB"


def documents(kind: str, total_bytes: int) -> Iterator[str]:
    """Yield documents cut from the built-in texts, each with a number that makes it unique."""
    text = " ".join(row.text for file in find_files([text_file("general")]) for row in read_rows(file))
    text = text.encode("ascii", "ignore").decode().replace("\n", " ")
    generator = random.Random(kind)
    written = number = 0
    while written < total_bytes:
        start = generator.randrange(len(text) - MAX_DOCUMENT_CHARACTERS)
        length = generator.randint(MIN_DOCUMENT_CHARACTERS, MAX_DOCUMENT_CHARACTERS)
        document = f"{kind} {number}: {text[start : start + length]}"
        written, number = written + len(document), number + 1
        yield document


def write_txt(path: Path, texts: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(text + "\n" for text in texts)


def write_jsonl(path: Path, texts: Iterator[str]) -> None:
    with gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else path.open("w") as stream:
        stream.writelines(json.dumps({"text": text}) + "\n" for text in texts)


def write_csv(path: Path, texts: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["text"], *([text] for text in texts)])


def write_parquet(path: Path, texts: Iterator[str]) -> None:
    with pyarrow.parquet.ParquetWriter(path, pyarrow.schema({"text": pyarrow.string()})) as writer:
        while rows := list(islice(texts, TABLE_ROWS)):
            writer.write_table(pyarrow.table({"text": rows}))


KINDS: dict[str, Callable[[Path, Iterator[str]], None]] = {
    "jsonl": write_jsonl,
    "jsonl.gz": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
    "txt": write_txt,
}


@contextmanager
def sampled() -> Iterator[Callable[[], Curve]]:
    """Sample resident memory inside the block; the function that it yields returns the curve so far."""
    process, samples, stop = psutil.Process(), [], threading.Event()
    before, started = process.memory_info().rss, time.perf_counter()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            samples.append(process.memory_info().rss)

    def curve() -> Curve:
        seconds = time.perf_counter() - started
        resident = samples or [process.memory_info().rss]
        return Curve(before, resident[0], resident[len(resident) // 2], resident[-1], max(resident), seconds)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield curve
    finally:
        stop.set()
        thread.join()


def write(kind: str, folder: Path, total_bytes: int) -> None:
    parts = max(1, round(total_bytes / PART_BYTES))
    for part in range(parts):
        KINDS[kind](folder / f"part-{part:03}.{kind}", documents(f"{kind}-{part}", total_bytes // parts))


def read(folder: Path) -> tuple[int, Curve]:
    """Read all files of a folder; return the number of characters and the memory that it took."""
    files = find_files([folder], TextOptions(text_unit="line"))
    with sampled() as curve:
        characters = sum(sum(len(row.text) for row in read_rows(file)) for file in files)
        return characters, curve()


def survey_both(domain: list[Path], general: list[Path]) -> tuple[int, int, Curve]:
    """Survey a corpus; return the rows read, the bytes that the survey holds and the memory that it took."""
    corpus = Corpus.find(domain, general, TextOptions(text_unit="line"))
    with sampled() as curve:
        surveyed = survey(corpus, too_short=lambda text: not text, max_documents=None, seed=0)
        held = surveyed.content.nbytes + surveyed.document.nbytes + surveyed.membership.nbytes
        return sum(counts.rows for counts in surveyed.counts), held, curve()


def main(options: Options) -> None:
    bytes_per_kind = int(options.gigabytes * 1e9 / len(KINDS))
    spawn = get_context("spawn")
    with TemporaryDirectory() as name, ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as pool:
        folders = {kind: Path(name) / kind for kind in KINDS}
        for kind, folder in folders.items():
            folder.mkdir()
            pool.submit(write, kind, folder, bytes_per_kind).result()
            size = sum(path.stat().st_size for path in folder.iterdir())
            characters, curve = pool.submit(read, folder).result()
            print(f"{kind}: {characters / 1e9:.2f} GB of text in {size / 1e9:.2f} GB, ", end="")
            print(f"{characters / 1e6 / curve.seconds:,.0f} MB/s; {curve}", flush=True)
        peaks = []
        for domain, general in ((["parquet"], ["txt"]), (["parquet", "csv", "jsonl.gz"], ["txt", "jsonl"])):
            sides = [[folders[kind] for kind in kinds] for kinds in (domain, general)]
            rows, held, curve = pool.submit(survey_both, *sides).result()
            print(
                f"survey: {rows:,} rows in {curve.seconds:.0f} s, {held / rows:.1f} bytes per row held; {curve}",
                flush=True,
            )
            peaks.append((rows, curve.peak))
        (few_rows, low_peak), (many_rows, high_peak) = peaks
        print(f"survey: the peak grows by {(high_peak - low_peak) / (many_rows - few_rows):.1f} bytes per row")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
