"""The page and the figures again, for a finished result: no model, no text, nothing ranked or labelled anew."""

from pathlib import Path

from stratalens.commands.analyze import Result
from stratalens.files.output_dir import workplace
from stratalens.report import tables
from stratalens.report.figures import write as figures
from stratalens.report.publish import present
from stratalens.report.saved import load_result


def redraw(directory: Path) -> Result:
    """Write page and figures of a finished result anew.

    Raises:
        StratalensError: there is no such result, or it is damaged.
    """
    load_result(directory)  # before anything is locked or made where no result is
    with workplace(directory) as place:
        saved = load_result(directory)
        arranged = tables.build(
            saved.config.domain,
            saved.findings.top,
            saved.findings.latents,
            saved.findings.facts,
            compare_by=saved.config.compare_layers_by,
            min_specialization=saved.config.min_specialization,
            top_features_n=saved.config.top_features_n,
        )
        figures.write_figures(arranged, place.staging)
        content = present(arranged, saved.record, saved.harvest, directory, place.staging, others=saved.record["files"])
    return Result(directory, arranged, content)
