"""Label a finished result again: with other concepts, another labelling model or other features; no new harvest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.finished import publish_again, with_controls_again
from stratalens.commands.stored_evidence import (
    collect_again,
    complete_lenses,
    covers_exactly,
    evidence_of,
    load_evidence,
)
from stratalens.config.options import RunConfig
from stratalens.config.result_options import LabelConfig
from stratalens.effects.effect_scores import keep_effects
from stratalens.evidence.collect import CollectedEvidence
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.hookpoint import Hookpoint
from stratalens.labels import label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.feature_report import Reports
from stratalens.labels.labelling import LabelSources, open_labeller
from stratalens.optional_parts import FIGURES, LABELLING_MODEL, LABELS, PAGE, OptionalParts, without_parts
from stratalens.progress import NoProgress, Progress
from stratalens.ranking.by_part import with_parts
from stratalens.ranking.feature_list import read_feature_list, require_latents
from stratalens.ranking.rank import reported_features
from stratalens.report import load_result
from stratalens.report.label_tables import stored_label
from stratalens.report.publish import ResultContent
from stratalens.report.saved import Findings, Result, require_result
from stratalens.validation.token_verdicts import keep_token_tests
from stratalens.validation.transfer import keep_validations


def label(directory: Path, options: LabelConfig, progress: Progress | None = None) -> Result:
    """Label the features of a finished result again and rewrite its tables.

    The base model is needed only for a result without examples, and where the harvest kept too little of a feature.

    Args:
        directory: the `output_dir` of a run.
        options: how to label.
        progress: receives the progress reports; None for no reports.

    Raises:
        LabelingError: the labelling model cannot be used, or answered no request; the result is unchanged.
        StratalensError: there is no such result, an option is not usable, or something must be fetched without
            permission.
    """
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work, torch.inference_mode():
        return _label(load_result(directory), options, work, progress or NoProgress())


def _label(result: Result, options: LabelConfig, work: WorkDirectories, progress: Progress) -> Result:
    given = {name: getattr(options, name) for name in LabelConfig.model_fields}
    given["csv_bom"] = options.csv_bom or result.recorded.csv_bom
    config, recorded = (own.model_copy(update=given) for own in (result.config, result.recorded))
    lexicon = load_lexicon(config.domain, config.lexicon)
    listed = None if config.features is None else read_feature_list(config.features)
    findings = result.findings if listed is None else _add_listed(result, listed, config.rank_by)
    labeller = open_labeller(config, progress)
    made = (FIGURES, PAGE) if listed is not None else (FIGURES, PAGE, LABELS, LABELLING_MODEL)
    parts = OptionalParts(progress, without_parts(result.record.missing_parts, *made))
    collected = _evidence(result, config, findings, parts)
    asked_for, sources = OptionalParts(progress, required=True), LabelSources(lexicon, labeller)
    reports = label_features(config, collected, findings.top, sources, asked_for, only=listed)
    record = result.record
    if listed is not None:
        reports = _keep_other_labels(result, reports, listed)
        record = with_controls_again(result, config, findings)
    content = ResultContent(recorded, findings, reports, collected.evidence, record, result.ranking_inputs)
    return publish_again(result, content, work, parts)


def _evidence(result: Result, config: RunConfig, findings: Findings, parts: OptionalParts) -> CollectedEvidence:
    """The evidence of the features, from the result alone where it has it; else the model reads the text again."""
    stored = load_evidence(result)
    if stored is None:
        return collect_again(result, config, findings, parts)
    covered = covers_exactly(stored, findings)
    collected = stored if covered else evidence_of(result, findings.features, stored)
    if collected is None:
        return collect_again(result, config, findings, parts)
    complete_lenses(result, config, collected, parts)
    return collected


def _add_listed(result: Result, listed: Mapping[Hookpoint, Sequence[int]], rank_by: str) -> Findings:
    """Add the listed features to the reported ones."""
    latents, before = result.findings.latents, result.findings.top
    require_latents(listed, {hookpoint: len(table) for hookpoint, table in latents.items()})
    reported = {
        hookpoint: list(dict.fromkeys([*table["feature_number"].tolist(), *listed.get(hookpoint, ())]))
        for hookpoint, table in before.items()
    }
    top = reported_features(latents, reported, rank_by=rank_by, split=result.record.split)
    top = with_parts(top, result.ranking_inputs, split=result.record.split)
    top = keep_token_tests(keep_validations(top, before), before)
    top = keep_effects(top, before)
    return replace(result.findings, top=top)


def _keep_other_labels(result: Result, reports: Reports, listed: Mapping[Hookpoint, Sequence[int]]) -> Reports:
    """Replace the new labels of features that are not listed by the labels that they had before."""
    kept: Reports = {}
    for hookpoint, own in reports.items():
        before = result.findings.top[hookpoint].set_index("feature_number")
        kept[hookpoint] = [
            report
            if report.feature in listed.get(hookpoint, ()) or report.feature not in before.index
            else replace(report, label=stored_label(before.loc[report.feature]))
            for report in own
        ]
    return kept
