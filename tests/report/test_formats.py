"""Numbers and tables as they are written."""

import csv

import pandas as pd
import pytest

from stratalens.report.formats import json_value, plain_number, write_csv


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.0, "1"), (-0.000012345678912, "-0.000012345679"), (1e10, "10000000000"), (float("nan"), "")],
)
def test_numbers_are_plain_decimals(value, written):
    assert plain_number(value) == written


def test_text_that_a_spreadsheet_would_run_is_defused_and_numbers_are_not(tmp_path):
    texts = ["=1+1", "+cmd", "-2", "@sum", "\tx", "plain = text", ""]
    table = pd.DataFrame({"label": texts, "value": [-1.5] * len(texts), "sure": [True] * len(texts)})
    write_csv(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == ["'=1+1", "'+cmd", "'-2", "'@sum", "'\tx", "plain = text", ""]
    assert {row["value"] for row in rows} == {"-1.5"}
    assert {row["sure"] for row in rows} == {"true"}
    assert list(table["label"]) == texts


def test_json_holds_no_nan():
    assert json_value({"a": [float("inf"), float("nan"), 0.5]}) == {"a": [None, None, 0.5]}
