"""Rewrite the report page and the figures of a finished result; nothing is ranked or labelled again."""

from dataclasses import replace
from pathlib import Path

from stratalens.files.output_dir import working_in
from stratalens.optional_parts import FIGURES, PAGE, OptionalParts, without_parts
from stratalens.progress import NoProgress
from stratalens.report import load_result
from stratalens.report.evidence_file import EVIDENCE_FILE, read_evidence_file
from stratalens.report.publish import write_record, write_views
from stratalens.report.saved import Result, require_result


def report(directory: Path) -> Result:
    """Rewrite the report page and the figures of a finished result.

    Args:
        directory: the `output_dir` of a run.

    Raises:
        StratalensError: there is no such result, or it is damaged.
    """
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work:
        result = load_result(directory)
        evidence = {place: read_evidence_file(directory / f"layer_{place}" / EVIDENCE_FILE) for place in result.harvest}
        missing = without_parts(result.record.missing_parts, FIGURES, PAGE)
        parts = OptionalParts(NoProgress(), missing, required=True)
        record = write_views(result.tables, result.record, result.ranking_inputs, evidence, work.staging, parts)
        record = write_record(record, result.harvest, work.staging, others=record.files)
    return replace(result, record=record)
