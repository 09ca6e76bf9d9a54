"""`report.html`: everything a reader needs to judge a result, in one file that asks nothing of a network."""

import base64
import gzip
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path

from stratalens.ranking.layer_details import LayerDetails
from stratalens.report.evidence_file import StoredEvidence
from stratalens.report.formats import records
from stratalens.report.page.data import page_data, script_json
from stratalens.report.run_record import RunFacts
from stratalens.report.tables import Tables

PAGE_FILE = "report.html"
SCRIPTS = ("format.js", "state.js", "table.js", "card.js", "charts.js", "main.js")


def write_page(
    tables: Tables,
    facts: RunFacts,
    evidence: Mapping[int, Mapping[int, StoredEvidence]],
    details: Mapping[int, LayerDetails],
    path: Path,
) -> None:
    """Write the page.

    Args:
        tables: of the run.
        facts: of the run.
        evidence: layer -> feature -> what fires it.
        details: layer -> what the harvest tells, features in the order of `tables.features`.
        path: where it goes.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stratalens", "data/page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["significant"] = significant
    labels = tables.consolidated.set_index(["layer", "feature_number"])["label"].to_dict()
    layers = [
        row
        | {
            "low": details[row["layer"]].average_low,
            "high": details[row["layer"]].average_high,
            "label": labels.get((row["layer"], row["top_feature"])),
        }
        for row in records(tables.layers)
    ]
    best = records(tables.consolidated.head(1))
    page = environment.get_template("page.html").render(
        facts=facts,
        layers=layers,
        best=best[0] if best else None,
        rows=tables.consolidated,
        confirmed=_confirmed(tables),
        style=_asset("page.css"),
        scripts=[_asset(name) for name in SCRIPTS],
        data=script_json(page_data(tables, facts, evidence, details)),
        charts=charts_library(),
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def significant(value: float | None, digits: int = 3, factor: float = 1.0) -> str:
    """A number, times a factor, to so many significant digits, without exponent; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{Decimal(f'{value * factor:#.{digits}g}'):f}".rstrip(".")


@cache
def charts_library() -> str:
    """The chart library as gzip in base64; browsers unpack it themselves, and the file is 3 MB smaller."""
    packed = gzip.compress((files("plotly") / "package_data" / "plotly.min.js").read_bytes(), 9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _confirmed(tables: Tables) -> int | None:
    column = tables.consolidated["confirmed"]
    return int(column.sum()) if column.notna().any() else None


def _asset(name: str) -> str:
    return (files("stratalens") / "data" / "page" / name).read_text(encoding="utf-8")
