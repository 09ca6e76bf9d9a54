"""Peak memory of a complete run, watched from outside, on documents of many rows and on three times as many rows.

python bench/memory.py [--documents 40] [--rows 8]
"""

import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import psutil
import tyro

from stratalens.corpus.builtin import text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files

MAX_RATIO = 1.05
"""Allowed ratio of the peak memories."""
MAX_ERROR = 0.25
"""Allowed distance of the announced memory from the peak, as a share of the peak."""
TIMES = 3
"""The larger run has so many times the rows, and then so many times the documents."""
MAX_SENTENCES = 12
"""Rows have one to so many sentences, so that they have many lengths."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    documents: int = 40
    """Documents per side in the smaller run."""
    rows: int = 8
    """Rows of a document in the smaller run."""


class Peak(NamedTuple):
    """The memory of a run."""

    announced: float
    """In bytes, as the run said before it read the text."""
    measured: int
    """Largest resident size in bytes."""


def write_documents(source: Path, target: Path, documents: int, rows: int) -> None:
    """Write documents of many rows, each row a new random mixture of sentences of the built-in texts."""
    texts = [row.text for file in find_files([source]) for row in read_rows(file)]
    sentences = [s.strip() + "." for text in texts for s in text.split(". ") if len(s.split()) > 5]
    generator = random.Random(0)
    with target.open("w", encoding="utf-8") as stream:
        for number in range(documents):
            for row in range(rows):
                chosen = generator.sample(sentences, generator.randint(1, MAX_SENTENCES))
                stream.write(json.dumps({"id": f"{target.stem}{number}#{row}", "text": " ".join(chosen)}) + "\n")


def watched(command: list[str]) -> Iterator[tuple[str, int]]:
    """Run a command; yield each line that it prints with the largest resident size so far, in bytes."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        peak, watcher = 0, psutil.Process(process.pid)
        while process.poll() is None:
            try:
                peak = max(peak, watcher.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
        for line in process.stdout:
            yield line, peak
        if process.wait():
            raise SystemExit(f"the run ended with {process.returncode}")


def peak_memory(folder: Path, documents: int, rows: int) -> Peak:
    """Run on this many documents per side; return the announced and the largest memory."""
    sides = {}
    for option, name in (("--domain_data", "financial"), ("--general_data", "general")):
        sides[option] = folder / f"{name}-{documents}-{rows}.jsonl"
        write_documents(text_file(name), sides[option], documents, rows)
    output = folder / f"results-{documents}-{rows}"
    command = [sys.executable, "-m", "stratalens", "analyze", "--keep_near_duplicates", "--output_dir", str(output)]
    announced, peak = 0.0, 0
    for line, resident in watched([*command, *(str(word) for pair in sides.items() for word in pair)]):
        peak = resident
        if found := re.search(r"Memory: about ([0-9.]+) GB", line):
            announced = 1e9 * float(found[1])
    record = json.loads((output / "run.json").read_text())
    print(
        f"{record['documents']:,} documents of {rows} rows, {record['tokens']:,} tokens: {peak / 1e6:,.0f} MB; "
        f"announced {announced / 1e6:,.0f} MB ({announced / peak - 1:+.0%}); "
        + ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in record["seconds"].items()),
        flush=True,
    )
    return Peak(announced, peak)


def main(options: Options) -> None:
    documents, rows = options.documents, options.rows
    with TemporaryDirectory() as name:
        small = peak_memory(Path(name), documents, rows)
        more_rows = peak_memory(Path(name), documents, TIMES * rows)
        more_documents = peak_memory(Path(name), TIMES * documents, rows)
    for what, large in (("rows", more_rows), ("documents", more_documents)):
        print(f"{TIMES} times the {what}: {large.measured / small.measured:.3f} times the memory; allowed {MAX_RATIO}")
    furthest = max(abs(peak.announced / peak.measured - 1) for peak in (small, more_rows, more_documents))
    print(f"announced memory is {furthest:.0%} off at most; allowed {MAX_ERROR:.0%}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
