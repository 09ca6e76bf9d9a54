"""The steps of `analyze`: from text, model and SAEs to ranked and labelled features."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from stratalens.commands.effect import effect
from stratalens.commands.listed import listed_features
from stratalens.commands.make_token_test import FinishedTokenTest, TestedRun, make_token_test, run_to_test
from stratalens.commands.ranked import ranked
from stratalens.config.effect_options import EffectConfig
from stratalens.config.options import RunConfig
from stratalens.corpus.sense_pairs import load_sense_pairs
from stratalens.errors import StratalensError, counted
from stratalens.evidence import collect_evidence
from stratalens.evidence.collect import EvidenceSource, load_and_try_all, summarise_harvest
from stratalens.files.locations import user_path
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.files.record import read_record
from stratalens.files.result_names import RANDOM_FOLDER, result_names
from stratalens.harvest import read_corpus
from stratalens.harvest.batch_size import with_batch_tokens
from stratalens.harvest.harvest import Harvest
from stratalens.harvest.inputs import RunInputs, find_inputs
from stratalens.harvest.open_model import OpenModel, open_model
from stratalens.harvest.other_text import OtherText, read_other_text
from stratalens.harvest.store import HarvestFile
from stratalens.hookpoint import Hookpoint
from stratalens.labels import label_features
from stratalens.labels.concepts.domain_speech import domain_speech_warnings
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import LabelSources, open_labeller
from stratalens.models.memory import peak_memory_bytes
from stratalens.optional_parts import TOKEN_TEST, OptionalParts
from stratalens.progress import NoProgress, Progress, TimedProgress
from stratalens.ranking import Ranking
from stratalens.ranking.by_part import with_parts
from stratalens.ranking.estimates import RankingInputs
from stratalens.ranking.feature_list import require_latents
from stratalens.ranking.rank import feature_numbers
from stratalens.report import publish
from stratalens.report.publish import ResultContent, with_labels, write_record
from stratalens.report.recording import build_record, run_warnings, with_controls
from stratalens.report.saved import Findings, Result
from stratalens.report.tables import Tables, build_tables
from stratalens.saes.random_directions import random_directions
from stratalens.validation import Controls, control_warnings, make_controls
from stratalens.validation.probes import words_ceiling
from stratalens.validation.token_verdicts import with_token_tests
from stratalens.validation.transfer import with_validations


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
    config = with_batch_tokens(config)
    directory = user_path(config.output_dir)
    writes = result_names(config.domain, config.top_n, config.top_features_n)
    working = working_in(directory, writes=writes, overwrite=config.overwrite)
    with working as work, _threads(config.threads), torch.inference_mode():
        load_sense_pairs(config.domain, config.senses)  # a file without any is told before the work
        _warn_of_tests(config, work, timed)
        result = _analyze(config, work, timed)
    return _with_effects(result, config, timed) if config.effect else result


def _with_effects(result: Result, config: RunConfig, progress: Progress) -> Result:
    """The result with effects; as it is where these cannot be measured."""
    names = ("memory_gb", "trust_remote_code", "quiet")
    options = EffectConfig(allow_fetch=True, **{name: getattr(config, name) for name in names})
    try:
        with _threads(config.threads):
            return effect(result.output_dir, options, progress)
    except StratalensError as error:
        progress.warn(f"effects: left out ({error})")
        return result


def _warn_of_tests(config: RunConfig, work: WorkDirectories, progress: Progress) -> None:
    """Tell before the work begins which tests of the result that it replaces the new one will not have."""
    record = read_record(work.result)
    if record.get("token_test") is not None and not config.token_test:
        progress.warn(
            "the result in this directory has a token test, which the new one will not have; add --token_test"
        )
    if record.get("effects") and not config.effect:
        progress.warn("the result in this directory has effects, which the new one will not have; add --effect")
    validations = record.get("validations")
    if isinstance(validations, list) and validations:
        progress.warn(
            f"the result in this directory has {counted(len(validations), 'validation')}, which the new one will not "
            "have; choose another --output_dir to keep them, or change the ranking with `stratalens rank`"
        )


def _analyze(config: RunConfig, work: WorkDirectories, progress: TimedProgress) -> Result:
    listed, parts = listed_features(config), OptionalParts(progress)
    labels = LabelSources(load_lexicon(config.domain, config.lexicon), open_labeller(config, progress))
    inputs = find_inputs(config, progress, listed, lambda _, found: load_and_try_all(config, found, parts))
    if listed is not None:
        require_latents(listed, {hookpoint: sae.num_latents for hookpoint, sae in inputs.saes.items()})
    opened = open_model(config, inputs, progress)
    harvest = read_corpus(config, inputs, opened, work, progress)
    progress.stage("ranking")
    source = _ranking_inputs(inputs, harvest)
    split = inputs.survey.split
    digests = {hookpoint: sae.digest for hookpoint, sae in inputs.saes.items()}
    ranking = ranked(config, source, listed, split=split, digests=digests)
    random = _read_random_directions(config, inputs, opened, work, progress)
    progress.stage("controls")
    controls = _controls(config, inputs, source, ranking, random)
    fvu = {hookpoint: check.own.fvu for hookpoint, check in opened.checks.items()}
    features = feature_numbers(ranking.top)
    summary, locations = summarise_harvest(harvest.files, fvu, features, inputs.survey.populations)
    source_of_evidence = EvidenceSource(locations, harvest.codes)
    collected = collect_evidence(config, inputs, opened, source_of_evidence, features, parts)
    reports = label_features(config, collected, ranking.top, labels, parts)
    run = partial(run_to_test, config, inputs, opened, harvest, collected.evidence)
    tested = _token_test(run, work, parts) if config.token_test else None
    top = with_validations(with_parts(ranking.top, source, split=split), {})
    top = with_token_tests(top, {} if tested is None else tested.scores)
    findings = with_labels(Findings(top, ranking.latents, summary.layers), reports)
    progress.stage("report")
    warnings = run_warnings(config, opened.checks, summary, _tables(config, findings))
    warnings += [*domain_speech_warnings(inputs.survey.samples, labels.lexicon), *control_warnings(controls)]
    random_keys = {hookpoint: file.key for hookpoint, file in random.items()}
    record = build_record(config, inputs, opened.checks, summary, harvest, warnings)
    record = with_controls(record, controls, random_keys)
    record = record.model_copy(update={"token_test": None if tested is None else tested.record})
    content = ResultContent(config, findings, reports, collected.evidence, record, source)
    return _publish(content, warnings, work, parts, progress)


def _token_test(run: Callable[[], TestedRun], work: WorkDirectories, parts: OptionalParts) -> FinishedTokenTest | None:
    """The token test of a run; None where it failed."""
    with parts.part(TOKEN_TEST):
        return make_token_test(run(), work, parts.progress)
    return None


def _ranking_inputs(inputs: RunInputs, harvest: Harvest) -> RankingInputs:
    norms = {hookpoint: sae.decoder().norms().double().numpy() for hookpoint, sae in inputs.saes.items()}
    return RankingInputs(harvest.files, norms, inputs.survey.populations, inputs.survey.sources)


def _tables(config: RunConfig, findings: Findings) -> Tables:
    return build_tables(config, findings.top, findings.latents, findings.facts)


def _publish(
    content: ResultContent, warnings: list[str], work: WorkDirectories, parts: OptionalParts, progress: TimedProgress
) -> Result:
    """Tell the warnings, and write every file of the result."""
    for warning in warnings:
        progress.warn(warning)
    record = publish(content, work.staging, parts)
    used = {"seconds": progress.seconds(), "peak_memory_bytes": peak_memory_bytes()}
    record = write_record(record.model_copy(update=used), content.inputs, work.staging)
    return Result(work.result, content.config, record, content.findings)


def _read_random_directions(
    config: RunConfig, inputs: RunInputs, opened: OpenModel, work: WorkDirectories, progress: Progress
) -> dict[Hookpoint, HarvestFile]:
    """Read the text with SAEs of random directions; nothing without `--controls full`, or where no documents wait."""
    if config.controls != "full" or not inputs.survey.split:
        return {}
    saes = {hookpoint: random_directions(sae, config.seed) for hookpoint, sae in inputs.saes.items()}
    text = OtherText(
        config, replace(inputs, saes=saes), opened.norm_limits, RANDOM_FOLDER, {}, replace(opened, saes=saes)
    )
    return dict(read_other_text(text, work, progress).files)


def _controls(
    config: RunConfig,
    inputs: RunInputs,
    source: RankingInputs,
    ranking: Ranking,
    random: Mapping[Hookpoint, HarvestFile],
) -> Controls | None:
    """The controls of a run; None where no documents were held out."""
    if not inputs.survey.split:
        return None
    return make_controls(
        config, source, ranking.top, words_ceiling(inputs.survey), source.of_other_files(random) if random else None
    )


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
