"""`token_test.csv`: one row for each reported feature, how it does in the token test."""

from pathlib import Path
from typing import Any

import pandas as pd

from stratalens.hookpoint import Hookpoint
from stratalens.report.formats import write_csv
from stratalens.report.tables import PLACE_COLUMNS, Tables, places
from stratalens.report.token_test_record import TOKEN_TEST_FILE
from stratalens.validation.token_verdicts import TokenTestScore

COLUMNS = tuple(name for name in TokenTestScore._fields if name != "verdict")


def write_token_test(tables: Tables, directory: Path) -> None:
    """Write the table of the token test into a directory."""
    write_csv(token_test_table(tables), directory / TOKEN_TEST_FILE, bom=tables.csv_bom)


def token_test_table(tables: Tables) -> pd.DataFrame:
    """One row for each reported feature, in the order of the result."""
    rows = tables.consolidated
    keys = zip(map(Hookpoint.parse, places(rows)), rows["feature_number"].tolist(), strict=True)
    scores = [tables.token_tests[place].get(number) for place, number in keys]
    table = rows[["feature_number", *PLACE_COLUMNS, "rank", "label"]].copy()
    table["token_test"] = [None if score is None else score.verdict for score in scores]
    for name in COLUMNS:
        table[name] = _column(name, [None if score is None else getattr(score, name) for score in scores])
    return table


def _column(name: str, values: list[Any]) -> object:
    if name == "ngrams":
        return [None if ngrams is None else " | ".join(map(repr, ngrams)) for ngrams in values]
    return pd.array(values, dtype="Int64") if name.startswith("pairs") else pd.array(values, dtype=float)
