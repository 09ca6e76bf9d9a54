"""Write the files of a result that new scores change; labels, evidence and harvest stay as they are."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from stratalens.files.damaged import damaged
from stratalens.files.plain_yaml import read_yaml
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import OptionalParts
from stratalens.report.evidence_file import EVIDENCE_FILE, read_evidence_file
from stratalens.report.formats import records, write_csv, write_json
from stratalens.report.publish import write_record, write_views
from stratalens.report.run_record import RunRecord, ValidationRecord
from stratalens.report.saved import Findings, Result, write_features
from stratalens.report.table_files import layer_stem, write_comparison
from stratalens.report.tables import PLACE_COLUMNS, Tables, places
from stratalens.validation.transfer import TransferScore

MEASURES_THERE = tuple(name for name in TransferScore._fields if name != "name")


def with_record(record: RunRecord, validation: ValidationRecord) -> RunRecord:
    """The record of a run with that of a validation, which takes the place of an earlier one of its name."""
    own = {one.name: one for one in record.validations} | {validation.name: validation}
    return record.model_copy(update={"validations": list(own.values())})


def publish_validation(
    result: Result, findings: Findings, validation: ValidationRecord, staging: Path, parts: OptionalParts
) -> Result:
    """Write the tables, the page and the record of a result with a validation that was added.

    Args:
        result: as it was before.
        findings: with the new scores.
        validation: its record.
        staging: where the files are written.
        parts: figures and page are optional.

    Returns:
        The result as it is now.
    """
    now = replace(result, findings=findings, record=with_record(result.record, validation))
    table = validation_table(now.tables, validation.name)
    write_csv(table, staging / f"{validation.folder}.csv", bom=now.tables.csv_bom)
    return publish_scores(result, now, staging, parts)


def publish_scores(result: Result, now: Result, staging: Path, parts: OptionalParts) -> Result:
    """Write the tables, the page and the record of a result whose features have new scores.

    Args:
        result: as it was before.
        now: with the new scores and record.
        staging: where the files are written; other new files of the result are there already.
        parts: figures and page are optional.

    Returns:
        The result as it is now.
    """
    tables, settings = now.tables, now.record.resolved_settings
    for hookpoint, table in tables.features.items():
        _write_layer(table, Path(f"layer_{hookpoint}") / layer_stem(settings), result, staging)
    write_comparison(tables, settings, staging)
    write_features(now.findings.top, staging)
    folder = result.output_dir
    evidence = {place: read_evidence_file(folder / f"layer_{place}" / EVIDENCE_FILE) for place in result.harvest}
    record = write_views(tables, now.record, result.ranking_inputs, evidence, staging, parts)
    record = write_record(record, result.harvest, staging, others=result.record.files)
    return replace(now, record=record)


def _write_layer(table: pd.DataFrame, stem: Path, result: Result, staging: Path) -> None:
    """Write the tables of the reported features of a layer; its JSON file keeps all else that it holds."""
    path = result.output_dir / stem.with_suffix(".json")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise damaged(path, "not a table")
    (staging / stem).parent.mkdir(exist_ok=True)
    write_csv(table, staging / stem.with_suffix(".csv"), bom=result.recorded.csv_bom)
    write_json(content | {"top_features": records(table)}, staging / stem.with_suffix(".json"))


def validation_table(tables: Tables, name: str) -> pd.DataFrame:
    """One row for each reported feature, in the order of the result: how it did in a validation.

    Args:
        tables: of the result.
        name: of the validation.
    """
    rows = tables.consolidated
    scores = [_score(tables, *key, name) for key in zip(places(rows), rows["feature_number"], strict=True)]
    lead = rows[["feature_number", *PLACE_COLUMNS, "rank", "label"]]
    here = {
        "specialization_in_the_run": rows["specialization"],
        "auroc_in_the_run": rows["auroc"],
    }
    there: Mapping[str, pd.Series] = {
        measure: pd.Series([None if own is None else getattr(own, measure) for own in scores], index=rows.index)
        for measure in MEASURES_THERE
    }
    return lead.assign(**here, **there)


def _score(tables: Tables, place: str, feature: int, name: str) -> TransferScore | None:
    own = tables.validations[Hookpoint.parse(place)].get(int(feature), [])
    return next((score for score in own if score.name == name), None)
