"""Write `report.html`: all a reader needs to judge a result, in a single file that loads nothing from the network."""

import base64
import gzip
import math
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path

from stratalens.errors import counted
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import FIGURES, without_parts
from stratalens.ranking.layer_details import LayerDetails
from stratalens.report.control_sentences import best_layer_sentence, control_sentences
from stratalens.report.effect_sentences import PROVES
from stratalens.report.evidence_file import StoredEvidence
from stratalens.report.formats import records
from stratalens.report.page.data import page_data, script_json
from stratalens.report.page.effects import effect_sections
from stratalens.report.page.wording import TRANSFER_NOTE
from stratalens.report.run_record import RunRecord
from stratalens.report.table_files import opposed_file
from stratalens.report.tables import Tables, norm_owner, places

PAGE_FILE = "report.html"
_SCRIPTS = ("format.js", "state.js", "table.js", "card.js", "charts.js", "main.js")
"""Joined in this order into one scope; each uses names of those before it."""


def write_page(
    tables: Tables,
    record: RunRecord,
    evidence: Mapping[Hookpoint, Mapping[int, StoredEvidence]],
    details: Mapping[Hookpoint, LayerDetails],
    path: Path,
) -> None:
    """Render the page of a result and write it as UTF-8.

    Args:
        tables: the tables of the run.
        record: of the run.
        evidence: hookpoint -> feature -> its stored evidence.
        details: hookpoint -> histograms and intervals from the harvest, features in the order of `tables.features`.
        path: the file to write.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("stratalens", "data/page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"significant": significant, "counted": counted}
    best = records(tables.consolidated.head(1).assign(hookpoint=places(tables.consolidated.head(1))))
    page = environment.get_template("page.html").render(
        record=record,
        layers=_layer_rows(tables, details),
        best=best[0] if best else None,
        rows=tables.consolidated,
        norm_owner=norm_owner(tables.features),
        transfer_note=TRANSFER_NOTE if "transfer_rank" in tables.consolidated else "",
        claims=tables.claims,
        opposed=_opposed_sentences(tables, record),
        control_sentences=[] if record.controls is None else control_sentences(record.controls),
        best_layer_note=best_layer_sentence(record.controls, places(tables.layers)),
        effects=effect_sections(tables, record),
        effects_prove=PROVES,
        figures_missing=without_parts(record.missing_parts, FIGURES) != record.missing_parts,
        style=_asset("page.css"),
        scripts=[_asset(name) for name in _SCRIPTS],
        data=script_json(page_data(tables, record, evidence, details)),
        charts=charts_library(),
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _layer_rows(tables: Tables, details: Mapping[Hookpoint, LayerDetails]) -> list[dict[str, object]]:
    """The rows of the table of layers."""
    features = zip(places(tables.consolidated), tables.consolidated["feature_number"], strict=True)
    labels = dict(zip(features, tables.consolidated["label"], strict=True))
    rows = []
    for place, row in zip(places(tables.layers), records(tables.layers), strict=True):
        own = details[Hookpoint.parse(place)]
        interval = {"low": own.average_low, "high": own.average_high}
        rows.append(row | interval | {"hookpoint": place, "label": labels.get((place, row["top_feature"]))})
    return rows


def _opposed_sentences(tables: Tables, record: RunRecord) -> list[str]:
    """Of each layer how many features fire less on the domain, and the file that lists them."""
    sentences = []
    for hookpoint, table in sorted(tables.opposed.items()):
        held_out = table["confirmed"].notna().any()
        confirmed = f", {table['confirmed'].sum()} of them confirmed" if held_out else ""
        count, verb = counted(len(table), "feature"), "fires" if len(table) == 1 else "fire"
        name = f"layer_{hookpoint}/{opposed_file(record.resolved_settings)}"
        sentences.append(f"{count} {verb} less on {tables.domain} text{confirmed}: {name}")
    return sentences


def significant(value: float | None, digits: int = 3, factor: float = 1.0) -> str:
    """Format `value * factor` to `digits` significant digits without exponent; a dash if it is None or not finite."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{Decimal(f'{value * factor:#.{digits}g}'):f}".rstrip(".")


@cache
def charts_library() -> str:
    """The Plotly library as gzip in base64, which the browser unpacks; this makes the page 3 MB smaller."""
    packed = gzip.compress((files("plotly") / "package_data" / "plotly.min.js").read_bytes(), 9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _asset(name: str) -> str:
    """Text of a file that ships with the package beside the template."""
    return (files("stratalens") / "data" / "page" / name).read_text(encoding="utf-8")
