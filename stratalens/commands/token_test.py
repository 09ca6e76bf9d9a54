"""Test whether the tokens on which the features of a finished result fire switch them on in unrelated text."""

from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.finished import find_inputs_again, recorded_norm_limits, recorded_speed
from stratalens.commands.make_token_test import ModelToRead, TestedRun, make_token_test
from stratalens.commands.stored_evidence import collect_from, covers_exactly, load_evidence
from stratalens.config.options import RunConfig
from stratalens.config.token_test_options import TokenTestConfig
from stratalens.evidence import Evidence
from stratalens.files.output_dir import working_in
from stratalens.harvest.inputs import RunInputs
from stratalens.harvest.memory_plan import estimate_memory, memory_limits, plan_passes
from stratalens.harvest.open_model import OpenModel, open_checked, open_model
from stratalens.harvest.workers import kind_of
from stratalens.models.loading import choose_device, choose_dtype
from stratalens.optional_parts import FIGURES, PAGE, TOKEN_TEST, OptionalParts, without_parts
from stratalens.progress import NoProgress, Progress
from stratalens.report import load_result
from stratalens.report.saved import Result, require_result
from stratalens.report.token_test_file import write_token_test
from stratalens.report.validations import publish_scores
from stratalens.validation.token_verdicts import with_token_tests


def token_test(directory: Path, options: TokenTestConfig, progress: Progress | None = None) -> Result:
    """Test the reported features of a finished result, and rewrite its tables.

    Args:
        directory: the `output_dir` of a run.
        options: where to read.
        progress: receives the progress reports; None for no reports.

    Raises:
        StratalensError: there is no such result, its text or model have changed, there is too little general text, or
            something must be fetched without permission; the result is then unchanged.
    """
    progress = progress or NoProgress()
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work, torch.inference_mode():
        result = load_result(directory)
        parts = OptionalParts(progress, without_parts(result.record.missing_parts, FIGURES, PAGE, TOKEN_TEST))
        made = make_token_test(_finished_run(result, options, parts), work, progress)
        findings = replace(result.findings, top=with_token_tests(result.findings.top, made.scores))
        now = replace(result, findings=findings, record=result.record.model_copy(update={"token_test": made.record}))
        write_token_test(now.tables, work.staging)
        return publish_scores(result, now, work.staging, parts)


def _finished_run(result: Result, options: TokenTestConfig, parts: OptionalParts) -> TestedRun:
    """The run of a result; its model is loaded only where evidence must be collected again, or something read."""
    given: dict[str, object] = {
        name: getattr(options, name) for name in ("memory_gb", "trust_remote_code", "allow_fetch")
    }
    given |= {name: value for name in ("lexicon", "senses", "device") if (value := getattr(options, name))}
    config = result.config.model_copy(update=given | {"output_dir": str(result.output_dir)})
    inputs = find_inputs_again(result, config, parts.progress)
    collected, opened = load_evidence(result), None
    if collected is None or not covers_exactly(collected, result.findings):
        opened = open_model(config, inputs, parts.progress)
        collected = collect_from(result, config, result.findings, (inputs, opened), parts)
    features, layers = result.findings.features, collected.evidence.layers
    ordered = {place: layers[place].for_features(numbers) for place, numbers in features.items()}
    evidence = Evidence(collected.evidence.passages, ordered)
    return TestedRun(
        config, inputs, evidence, _model(result, config, inputs, opened, parts.progress), recorded_speed(result.record)
    )


def _model(
    result: Result, config: RunConfig, inputs: RunInputs, opened: OpenModel | None, progress: Progress
) -> ModelToRead:
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    estimate = estimate_memory(config, inputs, device, dtype)
    groups = plan_passes(estimate, memory_limits(config, estimate, device))
    limits = recorded_norm_limits(result.record)

    def load() -> OpenModel:
        if opened is not None:
            return replace(opened, norm_limits=limits)
        return open_checked(config, inputs, limits, progress)

    return ModelToRead(load, groups, limits, kind_of(device, dtype))
