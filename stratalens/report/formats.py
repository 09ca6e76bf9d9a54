"""How numbers and tables are written: decimals that people can read, valid JSON."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

SIGNIFICANT_DIGITS = 8
PROBABILITIES = ("p_value", "q_value")
"""Columns whose small numbers are written with an exponent: a p-value may begin with a hundred zeros."""
MIN_PLAIN_PROBABILITY = 1e-4


def plain_number(value: float) -> str:
    """A plain decimal without exponent, to eight significant digits; empty where there is no finite number."""
    if not math.isfinite(value):
        return ""
    return np.format_float_positional(value, precision=SIGNIFICANT_DIGITS, unique=False, fractional=False, trim="-")


def probability(value: float) -> str:
    """A p- or q-value: a plain decimal, below 1e-4 like `1.28e-76`."""
    return f"{value:.2e}" if 0 < value < MIN_PLAIN_PROBABILITY else plain_number(value)


def defused(text: str) -> str:
    """Text as a spreadsheet shows it: what it would run as a formula begins with an apostrophe instead."""
    return "'" + text if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as UTF-8 CSV; true and false in lower case, unknown values empty."""
    table = table.copy()
    for name, column in table.items():
        if pd.api.types.is_bool_dtype(column):
            table[name] = ["" if pd.isna(value) else str(bool(value)).lower() for value in column]
        elif pd.api.types.is_float_dtype(column):
            written = probability if name in PROBABILITIES else plain_number
            table[name] = [written(value) for value in column]
        elif not pd.api.types.is_numeric_dtype(column):
            table[name] = [defused(value) if isinstance(value, str) else value for value in column]
    table.to_csv(path, index=False, lineterminator="\n")


def json_value(value: object) -> object:
    """The value as JSON can hold it: no NaN, no numpy types."""
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
    """Write valid JSON, UTF-8, one value a line; bytes of file names that are not UTF-8 as JSON's own escapes."""
    text = json.dumps(json_value(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table, as JSON holds them."""
    return [{str(k): json_value(v) for k, v in row.items()} for row in table.to_dict("records")]
