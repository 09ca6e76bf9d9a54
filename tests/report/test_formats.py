"""Numbers and tables as they are written."""

import csv

import pandas as pd
import pytest

from stratalens.report.formats import json_value, plain_number, probability, write_csv


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((1.0, "1"), (1e10, "10000000000"), (123456789.0, "123456790")),
        *((-0.000012345678912, "-0.000012345679"), (float("nan"), "")),
    ],
)
def test_numbers_are_plain_decimals(value, written):
    assert plain_number(value) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.2812345e-76, "1.28e-76"), (9.9e-5, "9.90e-05"), (1e-4, "0.0001"), (0.031234567891, "0.031234568"), (0.0, "0")],
)
def test_small_probabilities_have_an_exponent(tmp_path, value, written):
    assert probability(value) == written
    table = pd.DataFrame({"p_value": [value], "q_value": [value], "auroc": [1e-7], "specialization_low": [-1e-7]})
    write_csv(table, tmp_path / "table.csv")
    row = (tmp_path / "table.csv").read_text().splitlines()[1]
    assert row == f"{written},{written},0.0000001,-0.0000001"


def test_formulas_in_text_are_escaped_and_numbers_are_not(tmp_path):
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
