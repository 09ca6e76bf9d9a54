"""The same three rows as a file of every tabular kind, files of both sides of a corpus, and ways to read a file."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from stratalens.corpus.corpus import Corpus
from stratalens.corpus.reading.notes import ReadingNotes
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.reading.text_options import TextOptions
from stratalens.corpus.text_files import find_files
from stratalens.errors import CorpusError

TEXTS = ["first text", 'second, with "quotes", a comma\nand a second line', "third, ürgent € 12 漢字"]


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[dict], separator: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, ["id", "text"], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def parquet(rows: list[dict]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer)
    return buffer.getvalue()


ROWS = [{"id": f"doc{number}#a", "text": text} for number, text in enumerate(TEXTS)]
FILES = {
    "a.jsonl": jsonl(ROWS),
    "a.ndjson": jsonl(ROWS),
    "a.csv": table(ROWS),
    "a.tsv": table(ROWS, "\t"),
    "a.parquet": parquet(ROWS),
}


def read_and_told(path: Path, **options: object) -> tuple[list[str], list[str]]:
    """Texts of a file, and what is told about it."""
    notes = ReadingNotes()
    [file] = find_files([path], TextOptions(**options))
    return [row.text for row in read_rows(file, notes)], notes.warnings()


def refusal_of(path: Path, **options: object) -> str:
    """The message with which a file is refused."""
    with pytest.raises(CorpusError) as error:
        read_and_told(path, **options)
    return str(error.value)


def corpus_of(folder: Path, domain: list, general: list, files: int = 1) -> Corpus:
    """A corpus of texts or rows, whose sides are cut into so many files."""
    folders = []
    for side, given in (("domain", domain), ("general", general)):
        side_folder = folder / f"{side}-{len(list(folder.iterdir()))}"
        side_folder.mkdir(parents=True)
        for number in range(files):
            rows = [row if isinstance(row, dict) else {"text": row} for row in given[number::files]]
            (side_folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        folders.append(side_folder)
    return Corpus.find(folders[:1], folders[1:])
