"""The same three rows as a file of every tabular kind."""

import csv
import io
import json

import pandas as pd

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
