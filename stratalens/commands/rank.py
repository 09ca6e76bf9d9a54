"""Rank a finished result again by another statistic or with other thresholds, without model and text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.finished import publish_again, with_controls_again
from stratalens.commands.ranked import ranked
from stratalens.commands.stored_evidence import NO_LENS, collect_again, covers_exactly, evidence_of, load_evidence
from stratalens.config.options import RunConfig
from stratalens.config.result_options import RankConfig
from stratalens.effects.effect_scores import keep_effects
from stratalens.errors import counted
from stratalens.evidence import Evidence
from stratalens.evidence.collect import CollectedEvidence
from stratalens.files.output_dir import working_in
from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureLabel, label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.feature_label import EVIDENCE
from stratalens.labels.feature_report import Reports
from stratalens.labels.labelling import LabelSources
from stratalens.optional_parts import FIGURES, PAGE, OptionalParts, without_parts
from stratalens.progress import NoProgress, Progress
from stratalens.ranking.by_part import with_parts
from stratalens.report import load_result
from stratalens.report.label_tables import stored_label
from stratalens.report.publish import ResultContent
from stratalens.report.saved import Findings, Result, require_result
from stratalens.validation.token_verdicts import keep_token_tests
from stratalens.validation.transfer import keep_validations

UNLABELLED = "Not labelled yet"
NOTE = "reported since the ranking changed; run `stratalens label RESULT_DIR` to label it"


def rank(directory: Path, options: RankConfig, progress: Progress | None = None) -> Result:
    """Rank the features of a finished result again from its harvest and rewrite its tables.

    Features that were reported before keep their labels. Others are labelled from the codes that the harvest kept, or
    stay unlabelled until `label` is run where it kept too little.

    Args:
        directory: the `output_dir` of a run.
        options: what to change; options that are None keep their values.
        progress: receives the progress reports; None for no reports.

    Raises:
        StratalensError: there is no such result, it is damaged, or something must be fetched without permission.
    """
    progress = progress or NoProgress()
    require_result(directory)  # before any file is created or locked
    with working_in(directory) as work, torch.inference_mode():
        before = load_result(directory)
        changed = {name: value for name, value in options.model_dump(exclude={"quiet"}).items() if value is not None}
        changed["csv_bom"] = options.csv_bom or before.recorded.csv_bom
        config, recorded = (own.model_copy(update=changed) for own in (before.config, before.recorded))
        findings = _rank_again(before, config)
        parts = OptionalParts(progress, without_parts(before.record.missing_parts, FIGURES, PAGE))
        stored = load_evidence(before) or collect_again(before, config, findings, parts)
        read = stored if covers_exactly(stored, findings) else evidence_of(before, findings.features, stored) or stored
        collected = _select_features(read, findings.features)
        lexicon = load_lexicon(config.domain, config.lexicon)
        own_labels = OptionalParts(progress)  # apart: what was missing of the labels that are kept stays missing
        reports = label_features(config, collected, findings.top, LabelSources(lexicon), own_labels)
        parts.missing.update(own_labels.missing)
        known = {hookpoint: set(evidence.features.tolist()) for hookpoint, evidence in read.evidence.layers.items()}
        reports = _keep_labels(before, reports, known)
        evidence = _drop_without_evidence(collected.evidence, known)
        record = with_controls_again(before, config, findings)
        content = ResultContent(recorded, findings, reports, evidence, record, before.ranking_inputs)
        result = publish_again(before, content, work, parts)
    reported = [(hookpoint, feature) for hookpoint, features in findings.features.items() for feature in features]
    unlabelled = sum(feature not in known[hookpoint] for hookpoint, feature in reported)
    if unlabelled:
        progress.warn(
            f"new in the result: {counted(unlabelled, 'feature')}; run `stratalens label {directory}` for labels"
        )
    return result


def _rank_again(before: Result, config: RunConfig) -> Findings:
    source, split = before.ranking_inputs, before.record.split
    listed = before.findings.features if config.features is not None else None
    digests = {place: before.record.saes[str(place)].sha256 for place in before.findings.top}
    ranking = ranked(config, source, listed, split=split, digests=digests)
    top = with_parts(ranking.top, source, split=split)
    top = keep_token_tests(keep_validations(top, before.findings.top), before.findings.top)
    top = keep_effects(top, before.findings.top)
    return Findings(top, ranking.latents, before.findings.facts)


def _select_features(stored: CollectedEvidence, features: Mapping[Hookpoint, Sequence[int]]) -> CollectedEvidence:
    """Select the stored evidence of these features; it is empty for features that were not reported before."""
    hookpoints = {
        hookpoint: stored.evidence.layers[hookpoint].for_features(wanted) for hookpoint, wanted in features.items()
    }
    lens_of = {
        hookpoint: dict(zip(stored.evidence.layers[hookpoint].features.tolist(), lenses_of_layer, strict=True))
        for hookpoint, lenses_of_layer in stored.lenses.items()
    }
    lenses = {
        hookpoint: [own.get(feature, NO_LENS) for feature in features[hookpoint]] for hookpoint, own in lens_of.items()
    }
    return CollectedEvidence(Evidence(stored.evidence.passages, hookpoints), lenses)


def _drop_without_evidence(evidence: Evidence, known: Mapping[Hookpoint, set[int]]) -> Evidence:
    """Remove the features without stored evidence."""
    hookpoints = {
        hookpoint: layer_evidence.for_features(
            [feature for feature in layer_evidence.features.tolist() if feature in known[hookpoint]]
        )
        for hookpoint, layer_evidence in evidence.layers.items()
    }
    return Evidence(evidence.passages, hookpoints)


def _keep_labels(before: Result, reports: Reports, known: Mapping[Hookpoint, set[int]]) -> Reports:
    """Give features the labels that they had before; those without evidence get the note that they are unlabelled."""
    unlabelled = FeatureLabel(UNLABELLED, EVIDENCE, label_note=NOTE)
    kept: Reports = {}
    for hookpoint, own in reports.items():
        table = before.findings.top[hookpoint].set_index("feature_number")
        kept[hookpoint] = [
            replace(report, label=stored_label(table.loc[report.feature]))
            if report.feature in table.index
            else (report if report.feature in known[hookpoint] else replace(report, label=unlabelled))
            for report in own
        ]
    return kept
