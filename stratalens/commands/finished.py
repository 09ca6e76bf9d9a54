"""Steps shared by the commands on a finished result: find its inputs again, publish it again."""

from dataclasses import replace

from stratalens.commands.sources import SOURCES, require_allowed_sources
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.files.output_dir import WorkDirectories
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.inputs import ModelInputs, RunInputs, find_inputs
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import OptionalParts
from stratalens.progress import Progress
from stratalens.report import publish
from stratalens.report.publish import ResultContent, with_labels, write_record
from stratalens.report.recording import recorded_settings, with_controls
from stratalens.report.run_record import RunRecord
from stratalens.report.saved import Findings, Result
from stratalens.saes.fit_check import SINK_RATIO
from stratalens.validation import make_controls


def find_inputs_again(result: Result, config: RunConfig, progress: Progress) -> RunInputs:
    """Find text, model and SAEs of a finished result, and check that they are those of the run.

    Raises:
        ConfigError: one has changed since the result was made, or must be fetched and `allow_fetch` is not set.
    """
    require_allowed_sources(result.output_dir / RECORD_FILE, config, SOURCES, is_record=True)
    inputs = find_inputs(config, progress, result.findings.top)
    if f"{inputs.survey.digest:016x}" != result.record.corpus.digest:
        raise ConfigError(f"{result.output_dir}: its text has changed since; run the analysis again")
    require_same_models(result, inputs)
    return inputs


def require_same_models(result: Result, found: ModelInputs) -> None:
    """Check that model and SAEs are those of the run.

    Raises:
        ConfigError: one has changed.
    """
    if found.source.digest != result.record.model.digest:
        raise ConfigError(f"{result.output_dir}: its model has changed since; run the analysis again")
    for hookpoint, sae in found.saes.items():
        if sae.digest != result.record.saes[str(hookpoint)].sha256:
            raise ConfigError(
                f"{result.output_dir}: the SAE of layer {hookpoint} has changed since; run the analysis again"
            )


def recorded_norm_limits(record: RunRecord) -> dict[Hookpoint, float]:
    """Hookpoint -> norm above which a position is a sink, as the run measured it and `run.json` holds it."""
    return {Hookpoint.parse(place): SINK_RATIO * check.median_norm for place, check in record.self_check.items()}


def recorded_speed(record: RunRecord) -> float | None:
    """Tokens per second of the harvest, if the record of the run says so."""
    speed = (record.model_extra or {}).get("tokens_per_second")
    return float(speed) if isinstance(speed, int | float) and speed > 0 else None


def with_controls_again(before: Result, config: RunConfig, findings: Findings) -> RunRecord:
    """The record of a result with the controls of other reported features; that of the words stays."""
    if not before.record.split:
        return before.record
    known, source = before.record.controls, before.ranking_inputs
    files = {} if known is None else known.random_files(before.output_dir)
    random = source.of_other_files(files) if files else None
    controls = make_controls(config, source, findings.top, words=None, random=random)
    record = with_controls(before.record, controls, {place: file.key for place, file in files.items()})
    if known is None or record.controls is None:
        return record
    kept = record.controls.model_copy(update={"words": known.words})
    return record.model_copy(update={"controls": kept})


def publish_again(result: Result, content: ResultContent, work: WorkDirectories, parts: OptionalParts) -> Result:
    """Rewrite the files of a finished result with new findings, labels and evidence; its harvest stays.

    Args:
        result: as it was before.
        content: the new one, with the findings before they have the new labels, and with the record as it was.
        work: where the files are written.
        parts: figures and page are optional.

    Returns:
        the result with its new options, record and findings.
    """
    findings = with_labels(content.findings, content.reports)
    record = content.record.model_copy(update={"settings": recorded_settings(content.config)})
    record = publish(content._replace(findings=findings, record=record), work.staging, parts)
    record = write_record(record, result.harvest, work.staging)
    return replace(result, recorded=content.config, record=record, findings=findings)
