"""Write numbers and tables: decimals that people can read, CSV that spreadsheets can open safely, valid JSON."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from stratalens.errors import CONTROL_CHARACTERS

SIGNIFICANT_DIGITS = 8
"""Of every number in CSV and JSON files."""
PROBABILITY_COLUMNS = ("p_value", "q_value")
"""Columns whose small numbers are written with an exponent, as a p-value can have a hundred leading zeros."""
MIN_PLAIN_PROBABILITY = 1e-4
"""The smallest probability that is written without an exponent."""
FORMULA_BEGINNINGS = tuple("=+-@＝＋－＠﹦﹢﹣﹫\t\n")
"""Characters, full-width and small forms among them, after which a spreadsheet may read a cell as a formula. `csvCell`
in `data/page/format.js` has the same."""


def plain_number(value: float) -> str:
    """Format a number as a decimal without exponent, to eight significant digits; empty if it is not finite."""
    if not math.isfinite(value):
        return ""
    return np.format_float_positional(value, precision=SIGNIFICANT_DIGITS, unique=False, fractional=False, trim="-")


def probability(value: float) -> str:
    """Format a p- or q-value: as a plain decimal, or like `1.28e-76` below `MIN_PLAIN_PROBABILITY`."""
    return f"{value:.2e}" if 0 < value < MIN_PLAIN_PROBABILITY else plain_number(value)


def plain_cell(text: str) -> str:
    """Text of a cell that no spreadsheet runs as a formula and that no terminal obeys.

    Control characters are left out, but for tabs and line ends; an apostrophe is put before `FORMULA_BEGINNINGS`.
    """
    text = CONTROL_CHARACTERS.sub("", text)
    return "'" + text if text.startswith(FORMULA_BEGINNINGS) else text


def write_csv(table: pd.DataFrame, path: Path, *, bom: bool = False) -> None:
    """Write a table as UTF-8 CSV, with `true` and `false` in lower case and unknown values empty.

    Args:
        table: what is written.
        path: of the file.
        bom: whether it begins with a byte order mark, without which Excel takes it for text in an older encoding.
    """
    table = table.copy()
    for name, column in table.items():
        if pd.api.types.is_bool_dtype(column):
            table[name] = ["" if pd.isna(value) else str(bool(value)).lower() for value in column]
        elif pd.api.types.is_float_dtype(column):
            formatted = probability if name in PROBABILITY_COLUMNS else plain_number
            table[name] = [formatted(value) for value in column]
        elif not pd.api.types.is_numeric_dtype(column):
            table[name] = [plain_cell(value) if isinstance(value, str) else value for value in column]
    table.to_csv(path, index=False, lineterminator="\n", encoding="utf-8-sig" if bom else "utf-8")


def json_value(value: object) -> object:
    """Convert a value to what JSON can hold: no numpy types, None for NaN and infinity, text for other objects."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(plain_number(float(value))) if math.isfinite(value) else None
    return str(value)


def write_json(content: object, path: Path) -> None:
    """Write valid, indented JSON in UTF-8; bytes in file names that are not UTF-8 become backslash escapes."""
    text = json.dumps(json_value(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table as dictionaries of JSON values."""
    return [{str(k): json_value(v) for k, v in row.items()} for row in table.to_dict("records")]
