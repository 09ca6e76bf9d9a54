"""Rewrite the report page and the figures of a finished result; nothing is ranked or labelled again."""

from dataclasses import replace
from pathlib import Path

from stratalens.files.output_dir import working_in
from stratalens.report import load_result
from stratalens.report.evidence_file import EVIDENCE_FILE, read_evidence_file
from stratalens.report.figures.write import write_figures
from stratalens.report.publish import write_record, write_result_page
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
        write_figures(result.tables, work.staging)
        evidence = {place: read_evidence_file(directory / f"layer_{place}" / EVIDENCE_FILE) for place in result.harvest}
        write_result_page(result.tables, result.record, result.harvest, evidence, work.staging)
        record = write_record(result.record, result.harvest, work.staging, others=result.record.files)
    return replace(result, record=record)
