"""The steps of `analyze`: from text, model and SAEs to ranked and labelled features."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stratalens.config.layer_numbers import parse_layers
from stratalens.config.options import RunConfig
from stratalens.errors import ConfigError
from stratalens.evidence import collect_evidence
from stratalens.evidence.collect import summarise_harvest
from stratalens.files.locations import user_path
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.files.result_names import result_names
from stratalens.harvest import read_corpus
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.open_model import open_model
from stratalens.labels import label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import open_labeller
from stratalens.models.memory import peak_memory_bytes
from stratalens.progress import NoProgress, Progress, TimedProgress
from stratalens.ranking import rank_features
from stratalens.ranking.estimates import RankingInputs
from stratalens.ranking.feature_list import read_feature_list, require_latents
from stratalens.ranking.rank import feature_numbers
from stratalens.report import publish
from stratalens.report.publish import with_labels, write_record, write_result_page
from stratalens.report.run_record import build_record, run_warnings, shown_settings
from stratalens.report.saved import Findings, Result


def analyze(config: RunConfig, progress: Progress | None = None, *, started: float | None = None) -> Result:
    """Run the complete analysis and write its results to `config.output_dir`.

    Args:
        config: all options.
        progress: receives the progress reports; None for no reports.
        started: `time.perf_counter()` at the beginning of the work; None for the time of this call.

    Raises:
        StratalensError: the input or the output directory is not usable; an earlier result is then unchanged.
    """
    timed = TimedProgress(progress or NoProgress(), started)
    directory = user_path(config.output_dir)
    writes = result_names(config.domain, config.top_n, config.top_features_n)
    working = working_in(directory, writes=writes, overwrite=config.overwrite)
    with working as work, _threads(config.threads), torch.inference_mode():
        return _analyze(config, work, timed)


def _analyze(config: RunConfig, work: WorkDirectories, progress: TimedProgress) -> Result:
    config, listed = _with_listed_layers(config)
    lexicon = load_lexicon(config.domain, config.lexicon)
    labeller = open_labeller(config, progress)
    inputs = find_inputs(config, progress)
    if listed is not None:
        require_latents(listed, {layer: sae.num_latents for layer, sae in inputs.saes.items()})
    opened = open_model(config, inputs, progress)
    harvest = read_corpus(config, inputs, opened, work, progress)
    progress.stage("ranking")
    decoder_norms = {layer: sae.load().decoder_norms().double().numpy() for layer, sae in inputs.saes.items()}
    ranking = rank_features(
        RankingInputs(harvest.files, decoder_norms, inputs.survey.populations),
        top_n=config.top_n,
        rank_by=config.rank_by,
        split=inputs.survey.split,
        listed=listed,
    )
    fvu = {layer: check.own.fvu for layer, check in opened.checks.items()}
    features = feature_numbers(ranking.top)
    summary, locations = summarise_harvest(harvest.files, fvu, features, inputs.survey.populations)
    collected = collect_evidence(config, inputs, opened, features, locations, progress)
    labelled = label_features(config, collected, ranking.top, lexicon, labeller, progress)
    findings = with_labels(Findings(ranking.top, ranking.latents, summary.layers), labelled)
    progress.stage("report")
    hookpoints = {layer: sae.hookpoint for layer, sae in inputs.saes.items()}
    settings = shown_settings(config, inputs.source.name)
    tables = publish(config, findings, labelled, collected.evidence, hookpoints, settings, work.staging)
    warnings = run_warnings(config, opened.checks, summary, tables)
    for warning in warnings:
        progress.warn(warning)
    record = build_record(config, inputs, opened.checks, summary, harvest, warnings)
    write_result_page(tables, record, harvest.files, work.staging, work.staging)
    record |= {"seconds": progress.seconds(), "peak_memory_bytes": peak_memory_bytes()}
    record = write_record(record, harvest.files, work.staging)
    return Result(work.result, config, record, findings)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Let PyTorch use this number of CPU threads inside the block; None for its own choice."""
    number_before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(number_before)


def _with_listed_layers(config: RunConfig) -> tuple[RunConfig, dict[int, list[int]] | None]:
    """Read `--features`, if it is given: the configuration with its layers, and its latents by layer."""
    if config.features is None:
        return config, None
    listed = read_feature_list(config.features)
    layers = parse_layers(config.layers)
    if layers is not None and layers != tuple(sorted(listed)):
        raise ConfigError(
            f"--features names layers {' '.join(map(str, sorted(listed)))}, --layers others; leave out --layers"
        )
    return config.model_copy(update={"layers": tuple(str(layer) for layer in sorted(listed))}), listed
