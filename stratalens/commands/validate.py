"""Score the reported features of a finished result again on other text: do they transfer?"""

from datetime import UTC, datetime
from pathlib import Path

import torch

from stratalens.commands.finished import recorded_norm_limits, require_same_models
from stratalens.commands.sources import require_allowed_sources
from stratalens.commands.validation_text import ValidationText, read_validation_text
from stratalens.config.options import RunConfig
from stratalens.config.text_config import TextConfig
from stratalens.config.validate_options import ValidateConfig
from stratalens.corpus import Side
from stratalens.corpus.populations import side_name
from stratalens.errors import ConfigError
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.files.redaction import as_printed, redacted_settings
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import ModelInputs, find_model_inputs
from stratalens.harvest.other_text import OtherText, read_other_text
from stratalens.hookpoint import Hookpoint
from stratalens.optional_parts import FIGURES, PAGE, OptionalParts, without_parts
from stratalens.progress import NoProgress, Progress
from stratalens.report import load_result
from stratalens.report.formats import json_value
from stratalens.report.run_record import RunRecord, ValidationRecord, validation_folder
from stratalens.report.saved import Findings, Result, require_result
from stratalens.report.tables import places
from stratalens.report.validations import publish_validation
from stratalens.validation.transfer import (
    MAX_VALIDATIONS,
    Scores,
    add_scores,
    estimates_elsewhere,
    rank_correlation,
    transfer_scores,
)

MODELS = ("base_model", "revision", "sae_model", "sae_revision")
"""Options that name model and SAEs."""


def validate(directory: Path, options: ValidateConfig, progress: Progress | None = None) -> Result:
    """Score the reported features of a finished result on other text, and rewrite its tables.

    Args:
        directory: the `output_dir` of a run.
        options: the text, and its name.
        progress: receives the progress reports; None for no reports.

    Raises:
        StratalensError: there is no such result, the name stands for other text, the text is not usable, or something
            must be fetched without permission; the result is then unchanged.
    """
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work, torch.inference_mode():
        return _validate(load_result(directory), options, work, progress or NoProgress())


def _validate(result: Result, options: ValidateConfig, work: WorkDirectories, progress: Progress) -> Result:
    _require_place(result.record, options.name)
    config = _with_other_text(result, options)
    require_allowed_sources(result.output_dir / RECORD_FILE, config, MODELS, is_record=True)
    found = find_model_inputs(config, progress, result.findings.top)
    require_same_models(result, found)
    text = read_validation_text(config, result, found.cutter, progress)
    for warning in text.warnings:
        progress.warn(warning)
    _require_same_text(result.record, options.name, text)
    harvest = read_other_text(_other_text(result, config, found, text, options.name), work, progress)
    scores = _score(result, harvest, text, options.name)
    top = add_scores(result.findings.top, options.name, scores)
    findings = Findings(top, result.findings.latents, result.findings.facts)
    validation = _record(result, options, text, harvest, scores)
    parts = OptionalParts(progress, without_parts(result.record.missing_parts, FIGURES, PAGE))
    return publish_validation(result, findings, validation, work.staging, parts)


def _require_place(record: RunRecord, name: str) -> None:
    """Check that a result may have one more validation.

    Raises:
        ConfigError: it has too many.
    """
    names = {own.name for own in record.validations}
    if name not in names and len(names) >= MAX_VALIDATIONS:
        raise ConfigError(f"name: the result has {MAX_VALIDATIONS} validations, and keeps them all; no more fit")


def _with_other_text(result: Result, options: ValidateConfig) -> RunConfig:
    """The options of the run with those of the other text, and how it is read."""
    given: dict[str, object] = {name: getattr(options, name) for name in TextConfig.model_fields}
    given |= {name: getattr(options, name) for name in ("memory_gb", "trust_remote_code", "allow_fetch")}
    given["output_dir"] = str(result.output_dir)
    if options.device is not None:
        given["device"] = options.device
    return result.config.model_copy(update=given)


def _digest(text: ValidationText) -> str:
    return f"{text.survey.digest:016x}"


def _require_same_text(record: RunRecord, name: str, text: ValidationText) -> None:
    """Check that a name stands for one text for good, so that no failure is replaced by a success elsewhere.

    Raises:
        ConfigError: an earlier validation of this name was on other text.
    """
    before = next((own for own in record.validations if own.name == name), None)
    if before is not None and before.digest != _digest(text):
        raise ConfigError(
            f"name: the validation `{name}` of this result is on other text, and every validation is kept; choose "
            "another --name"
        )


def _other_text(result: Result, config: RunConfig, found: ModelInputs, text: ValidationText, name: str) -> OtherText:
    limits = recorded_norm_limits(result.record)
    before = next((own.facts for own in result.record.validations if own.name == name), {})
    return OtherText(config, text.inputs(found), limits, validation_folder(name), before)


def _score(result: Result, harvest: Harvest, text: ValidationText, name: str) -> Scores:
    populations = text.survey.populations
    measured = {}
    for hookpoint, features in result.findings.features.items():
        width = len(result.findings.latents[hookpoint])
        documents = harvest.files[hookpoint].state(width).documents.matrix(width)
        measured[hookpoint] = estimates_elsewhere(documents, populations, features)
    return transfer_scores(name, measured, result.findings.top)


def _record(
    result: Result, options: ValidateConfig, text: ValidationText, harvest: Harvest, scores: Scores
) -> ValidationRecord:
    rows = result.tables.consolidated
    keys = zip(map(Hookpoint.parse, places(rows)), rows["feature_number"].tolist(), strict=True)
    names = [side_name(result.recorded.domain, side) for side in Side]
    verdicts = [score.transfers for own in scores.values() for score in own.values()]
    record: dict[str, object] = {
        "name": options.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": _digest(text),
        "settings": redacted_settings(options.model_dump(mode="json", include=set(TextConfig.model_fields))),
        "overlap": as_printed(text.overlap),
        "sides": text.sides,
        "kinds": list(text.survey.populations.strata),
        "files": {
            name: [as_printed(str(file.path)) for file in own]
            for name, own in zip(names, text.corpus.files, strict=True)
        },
        "features": len(verdicts),
        "transferring": sum(verdicts),
        "rank_correlation": rank_correlation([scores[place][number].auroc for place, number in keys]),
        "rank_correlation_by_layer": {
            hookpoint: rank_correlation([scores[hookpoint][number].auroc for number in features])
            for hookpoint, features in result.findings.features.items()
        },
        "keys": {hookpoint: file.key for hookpoint, file in harvest.files.items()},
        "facts": harvest.facts,
        "warnings": [as_printed(warning) for warning in text.warnings],
    }
    return ValidationRecord.model_validate(json_value(redacted_settings(record)))
