"""Rank a finished result again: by another order, with other thresholds; no model, no text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.finished import collect_again, load_evidence, publish_again
from stratalens.config.options import RankConfig, RunConfig
from stratalens.evidence import Evidence
from stratalens.evidence.collect import CollectedEvidence
from stratalens.evidence.logit_lens import FeatureLens
from stratalens.files.output_dir import working_in
from stratalens.labels import FeatureLabel, label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.feature_label import EVIDENCE
from stratalens.labels.labelling import LabelledFeatures
from stratalens.progress import NoProgress, Progress
from stratalens.ranking import rank_features
from stratalens.ranking.estimates import RankingInputs
from stratalens.report import load_result
from stratalens.report.label_tables import stored_label
from stratalens.report.saved import Findings, Result, require_result

UNLABELLED = "Not labelled yet"
NOTE = "reported since the ranking changed; run `stratalens label RESULT_DIR` to label it"


def rank(directory: Path, options: RankConfig, progress: Progress | None = None) -> Result:
    """Rank the features of a finished result again from its harvest and write its tables anew.

    Features that were reported before keep evidence and label; others wait for `label`.

    Args:
        directory: the result.
        options: what to change.
        progress: is told how it gets on.

    Raises:
        StratalensError: there is no such result, or it is damaged.
    """
    progress = progress or NoProgress()
    require_result(directory)  # before anything is made or locked
    with working_in(directory) as work, torch.inference_mode():
        before = load_result(directory)
        given = {name: value for name, value in options.model_dump(exclude={"quiet"}).items() if value is not None}
        config = before.config.model_copy(update=given)
        findings = _ranked(before, config)
        stored = load_evidence(before) or collect_again(before, config, findings, progress)
        collected = _for_features(stored, findings.features)
        lexicon = load_lexicon(config.domain, config.lexicon)
        labelled = label_features(config, collected, findings.top, lexicon, None, progress)
        known = {layer: set(one.features.tolist()) for layer, one in stored.evidence.layers.items()}
        labelled = _keeping_labels(before, labelled, known)
        result = publish_again(before, config, findings, labelled, _only(collected.evidence, known), work)
    waiting = sum(feature not in known[layer] for layer, own in findings.features.items() for feature in own)
    if waiting:
        progress.warn(f"{waiting} features were not reported before: `stratalens label {directory}` labels them")
    return result


def _ranked(before: Result, config: RunConfig) -> Findings:
    norms = {layer: table["decoder_norm"].to_numpy() for layer, table in before.findings.latents.items()}
    ranking = rank_features(
        RankingInputs(before.harvest, norms),
        top_n=config.top_n,
        rank_by=config.rank_by,
        split=before.record["corpus"]["split"],
        listed=before.findings.features if config.features is not None else None,
    )
    return Findings(ranking.top, ranking.latents, before.findings.facts)


def _for_features(stored: CollectedEvidence, features: Mapping[int, Sequence[int]]) -> CollectedEvidence:
    """What is stored of these features; nothing of those that were not reported before."""
    nothing = FeatureLens([], [])
    layers = {layer: stored.evidence.layers[layer].over(own) for layer, own in features.items()}
    lenses = None
    if stored.lenses is not None:
        held = {
            layer: dict(zip(stored.evidence.layers[layer].features.tolist(), own, strict=True))
            for layer, own in stored.lenses.items()
        }
        lenses = {layer: [held[layer].get(feature, nothing) for feature in own] for layer, own in features.items()}
    return CollectedEvidence(Evidence(stored.evidence.passages, layers), lenses)


def _only(evidence: Evidence, known: Mapping[int, set[int]]) -> Evidence:
    """The evidence without the features of which nothing was collected."""
    layers = {
        layer: one.over([feature for feature in one.features.tolist() if feature in known[layer]])
        for layer, one in evidence.layers.items()
    }
    return Evidence(evidence.passages, layers)


def _keeping_labels(before: Result, labelled: LabelledFeatures, known: Mapping[int, set[int]]) -> LabelledFeatures:
    """The labels that features had before; those without evidence wait for theirs."""
    scored = {}
    for layer, rows in labelled.scored.items():
        table = before.findings.top[layer].set_index("feature_number")
        features = labelled.text.evidence.layers[layer].features.tolist()
        scored[layer] = [
            stored_label(table.loc[feature])
            if feature in table.index
            else (row if feature in known[layer] else FeatureLabel(UNLABELLED, EVIDENCE, label_note=NOTE))
            for feature, row in zip(features, rows, strict=True)
        ]
    return replace(labelled, scored=scored)
