"""Measure what the model loses without the features of a finished result."""

from pathlib import Path

import torch

from stratalens.commands.finished import find_inputs_again, require_same_models
from stratalens.commands.make_effect import EffectRun, load_items, make_effect
from stratalens.commands.sources import MODEL_SOURCES, require_allowed_sources
from stratalens.commands.validation_text import read_validation_text
from stratalens.config.effect_options import EffectConfig
from stratalens.config.options import RunConfig
from stratalens.config.text_config import TextConfig
from stratalens.errors import ConfigError
from stratalens.files.output_dir import working_in
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.inputs import RunInputs, find_model_inputs
from stratalens.optional_parts import FIGURES, PAGE, OptionalParts, without_parts
from stratalens.progress import NoProgress, Progress
from stratalens.report import load_result
from stratalens.report.publish_effects import publish_effects
from stratalens.report.run_record import RunRecord
from stratalens.report.saved import Result, require_result


def effect(directory: Path, options: EffectConfig, progress: Progress | None = None) -> Result:
    """Measure what the model loses without features of a finished result, and rewrite its tables.

    Args:
        directory: the `output_dir` of a run.
        options: the text, and what is removed.
        progress: receives the progress reports; None for no reports.

    Raises:
        StratalensError: there is no such result, its text, model or SAEs have changed, there is too little text, or
            something must be fetched without permission; the result is then unchanged.
    """
    progress = progress or NoProgress()
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work, torch.no_grad():  # weights of inference mode would be of no use for gradients
        result = load_result(directory)
        run = _run(result, options, progress)
        for warning in run.warnings:
            progress.warn(warning)
        _require_same_text(result.record, options.name, run.text_digest)
        measured = make_effect(run, work, progress)
        parts = OptionalParts(progress, without_parts(result.record.missing_parts, FIGURES, PAGE))
        return publish_effects(result, measured, work.staging, parts)


def _require_same_text(record: RunRecord, name: str, digest: str) -> None:
    """Check that a name stands for one text for good.

    Raises:
        ConfigError: earlier effects of this name are of other text.
    """
    before = next((own for own in record.effects if own.name == name), None)
    if before is not None and before.text_digest != digest:
        raise ConfigError(
            f"name: the effects `{name}` of this result are of other text, and all are kept; choose another --name"
        )


def _run(result: Result, options: EffectConfig, progress: Progress) -> EffectRun:
    """The result with its inputs, or with text of other sources."""
    items = load_items(result.config.domain, options)  # a file that cannot be used is told before the work
    given: dict[str, object] = {
        name: getattr(options, name) for name in ("memory_gb", "trust_remote_code", "allow_fetch")
    }
    given |= {name: value for name in ("lexicon", "device") if (value := getattr(options, name))}
    given["output_dir"] = str(result.output_dir)
    if not options.on_other_text:
        config = with_batch_tokens(result.config.model_copy(update=given))
        return EffectRun(result, config, options, find_inputs_again(result, config, progress), items, ())
    given |= {name: getattr(options, name) for name in TextConfig.model_fields}
    config = with_batch_tokens(result.config.model_copy(update=given))
    inputs, warnings = _on_other_text(result, config, progress)
    return EffectRun(result, config, options, inputs, items, warnings)


def _on_other_text(result: Result, config: RunConfig, progress: Progress) -> tuple[RunInputs, tuple[str, ...]]:
    """Inputs with the text of other sources, without the documents of the run, and what limits them."""
    require_allowed_sources(result.output_dir / RECORD_FILE, config, MODEL_SOURCES, is_record=True)
    found = find_model_inputs(config, progress, result.findings.top)
    require_same_models(result, found)
    text = read_validation_text(config, result, found.cutter, progress)
    return text.inputs(found), text.warnings
