"""The text of a validation: read once, without the documents that the run of the result has read."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from stratalens.commands.sources import require_allowed_sources
from stratalens.config.options import RunConfig
from stratalens.corpus import Corpus, Side
from stratalens.corpus.describe import TextFindings, describe_files, describe_survey, examine_text
from stratalens.corpus.overlap import Overlap, drop_known, rows_that_count
from stratalens.corpus.populations import side_name
from stratalens.corpus.side_rows import SideRows, read_side
from stratalens.corpus.survey import MIN_DOCUMENTS, Survey, compare_sides
from stratalens.errors import CorpusError, StratalensError, counted
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.inputs import ModelInputs, RunInputs
from stratalens.models import PassageCutter
from stratalens.progress import Progress
from stratalens.report.run_record import CHECKED
from stratalens.report.saved import Result

TEXTS = ("domain_data", "general_data", "pair")
"""Options that name texts."""


class ValidationText(NamedTuple):
    """The documents of other text that count."""

    corpus: Corpus
    survey: Survey
    overlap: str
    """`CHECKED`, or why documents that were in the run could not all be found."""
    sides: dict[str, dict[str, int]]
    """Name of a side -> its counts of rows and documents."""
    warnings: tuple[str, ...]

    def inputs(self, found: ModelInputs) -> RunInputs:
        """The inputs of a run that reads this text with a model and SAEs."""
        return RunInputs(
            source=found.source,
            saes=found.saes,
            cutter=found.cutter,
            warnings=found.warnings,
            corpus=self.corpus,
            survey=self.survey,
            text=TextFindings(None, self.warnings),
            loaded=None,
        )


def read_validation_text(
    config: RunConfig, result: Result, cutter: PassageCutter, progress: Progress
) -> ValidationText:
    """Read other text once and decide which of its documents count, all in one half.

    Args:
        config: options of the run, with those of the other text.
        result: whose documents are dropped from it.
        cutter: cuts texts as the run did.
        progress: receives messages, warnings and counts of rows.

    Raises:
        CorpusError: the text cannot be read, or too few documents are left.
    """
    corpus = Corpus.of_run(config)
    for message in describe_files(config.domain, corpus):
        progress.say(message)
    corpus.check_first_rows()
    sides = _read_sides(corpus, cutter, config.keep_near_duplicates, progress)
    known, problem = _rows_of_run(config, result, cutter, progress)
    dropped = [Overlap(0, 0)] * len(sides)
    if known is not None:
        sides, dropped = drop_known(sides, known, keep_near_duplicates=config.keep_near_duplicates)
    _require_documents(config.domain, sides, dropped)
    survey = compare_sides(
        sides,
        max_documents=config.max_documents,
        seed=config.seed,
        keep_near_duplicates=config.keep_near_duplicates,
        halves=False,
    )
    progress.say(describe_survey(config.domain, survey))
    warnings = _warnings(config.domain, dropped, problem)
    warnings += examine_text(config, corpus, survey, halves=False).warnings
    names = [side_name(config.domain, side) for side in Side]
    counts = {
        name: asdict(own) | asdict(overlap) for name, own, overlap in zip(names, survey.counts, dropped, strict=True)
    }
    return ValidationText(corpus, survey, problem or CHECKED, counts, tuple(warnings))


def _read_sides(corpus: Corpus, cutter: PassageCutter, without_signatures: bool, progress: Progress) -> list[SideRows]:
    progress.stage("scan")
    with progress.track("Scanning text", None) as advance:
        return [read_side(corpus, side, cutter.too_short, lambda: advance(1, 0), without_signatures) for side in Side]


def _rows_of_run(
    config: RunConfig, result: Result, cutter: PassageCutter, progress: Progress
) -> tuple[list[SideRows] | None, str]:
    """The rows that counted in the run, read again; None where that is not possible, and what is wrong with them."""
    run = result.config.model_copy(update={"output_dir": config.output_dir})
    allowed = run.model_copy(update={"allow_fetch": config.allow_fetch})
    try:
        require_allowed_sources(_record(result), allowed, TEXTS, is_record=True)
        progress.say("Reading the text of the run again, to leave out documents that were in it")
        without_signatures = run.keep_near_duplicates and config.keep_near_duplicates
        sides = _read_sides(Corpus.of_run(run), cutter, without_signatures, progress)
        limits = {"max_documents": run.max_documents, "seed": run.seed}
        survey = compare_sides(sides, keep_near_duplicates=run.keep_near_duplicates, **limits)
    except StratalensError as error:
        return None, f"the text of the run cannot be read again: {error}"
    changed = f"{survey.digest:016x}" != result.record.corpus.digest
    return rows_that_count(sides, survey), "the text of the run has changed since" if changed else ""


def _record(result: Result) -> Path:
    return result.output_dir / RECORD_FILE


def _require_documents(domain: str, sides: Sequence[SideRows], dropped: Sequence[Overlap]) -> None:
    """Check that enough documents are left of those that were there.

    Raises:
        CorpusError: nearly all of a side were in the run.
    """
    for side, rows, overlap in zip(Side, sides, dropped, strict=True):
        left, out = len(rows.documents().document), overlap.in_the_run + overlap.nearly_in_the_run
        if out and left < MIN_DOCUMENTS:
            raise CorpusError(
                f"{counted(left, 'document')} on the {side_name(domain, side)} side {'is' if left == 1 else 'are'} "
                f"left: {out:,} were in the run; at least {MIN_DOCUMENTS} of each side must be new"
            )


def _warnings(domain: str, dropped: Sequence[Overlap], problem: str) -> list[str]:
    warnings = []
    for side, own in zip(Side, dropped, strict=True):
        counts = {"were in the run": own.in_the_run, "say nearly the same as one": own.nearly_in_the_run}
        found = [f"{count:,} {what}" for what, count in counts.items() if count]
        if found:
            warnings.append(f"{side_name(domain, side)} documents dropped: {'; '.join(found)}")
    if problem:
        warnings.append(f"documents that were in the run could not all be found and dropped: {problem}")
    return warnings
