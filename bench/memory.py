"""Peak memory of a complete run on some documents and on ten times as many, each in its own process.

python bench/memory.py [--documents 75]
"""

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro

from stratalens.corpus.builtin import text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files

MAX_RATIO = 1.05
"""Allowed ratio of the peak memories."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    documents: int = 75
    """Documents per side in the smaller run."""


def write_documents(source: Path, target: Path, count: int) -> None:
    """Write documents of about a hundred words, each a new random mixture of sentences of the built-in texts."""
    rows = [row for file in find_files([source]) for row in read_rows(file)]
    sentences = [s.strip() + "." for row in rows for s in row.text.split(". ") if len(s.split()) > 5]
    generator = random.Random(0)
    with target.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            stream.write(json.dumps({"text": " ".join(generator.sample(sentences, 5))}) + "\n")


def peak_memory(folder: Path, documents: int) -> int:
    """Run on this many documents per side and return the peak memory in bytes."""
    sides = {}
    for option, name in (("--domain_data", "financial"), ("--general_data", "general")):
        sides[option] = folder / f"{name}-{documents}.jsonl"
        write_documents(text_file(name), sides[option], documents)
    output = folder / f"results-{documents}"
    command = [sys.executable, "-m", "stratalens", "analyze", "--quiet", "--output_dir", str(output)]
    subprocess.run([*command, *(str(word) for pair in sides.items() for word in pair)], check=True)
    record = json.loads((output / "run.json").read_text())
    print(
        f"{record['documents']:,} documents, {record['tokens']:,} tokens: {record['peak_memory_bytes'] / 1e6:,.0f} MB"
    )
    return record["peak_memory_bytes"]


def main(options: Options) -> None:
    with TemporaryDirectory() as name:
        small, large = (peak_memory(Path(name), count) for count in (options.documents, 10 * options.documents))
    print(f"10 times the documents: {large / small:.3f} times the memory; allowed {MAX_RATIO}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
