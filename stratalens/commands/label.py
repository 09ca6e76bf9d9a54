"""Label a finished result again: by other concepts, another labelling model, other features; no new harvest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.finished import collect_again, load_evidence, publish_again
from stratalens.config.options import LabelConfig
from stratalens.evidence.collect import CollectedEvidence
from stratalens.files.output_dir import WorkDirectories, working_in
from stratalens.labels import label_features
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import LabelledFeatures, open_labeller
from stratalens.progress import NoProgress, Progress
from stratalens.ranking.feature_list import read_feature_list, require_latents
from stratalens.ranking.rank import reported_features
from stratalens.report import load_result
from stratalens.report.label_tables import stored_label
from stratalens.report.saved import Findings, Result, require_result


def label(directory: Path, options: LabelConfig, progress: Progress | None = None) -> Result:
    """Label the features of a finished result again and write its tables anew.

    The model is needed only for features that the result does not report, and where it was made without examples.

    Args:
        directory: the result.
        options: how to label.
        progress: is told how it gets on.

    Raises:
        StratalensError: there is no such result, or an option or the labelling model is not usable.
    """
    require_result(directory)  # before anything is made or locked
    with working_in(directory) as work, torch.inference_mode():
        return _label(load_result(directory), options, work, progress or NoProgress())


def _label(result: Result, options: LabelConfig, work: WorkDirectories, progress: Progress) -> Result:
    config = result.config.model_copy(update={name: getattr(options, name) for name in LabelConfig.model_fields})
    lexicon = load_lexicon(config.domain, config.lexicon)
    listed = None if config.features is None else read_feature_list(config.features)
    findings = result.findings if listed is None else _with_listed(result, listed, config.rank_by)
    labeller = open_labeller(config, progress)
    collected = load_evidence(result)
    if collected is None or not _holds_all(collected, findings):
        collected = collect_again(result, config, findings, progress)
    labelled = label_features(config, collected, findings.top, lexicon, labeller, progress, only=listed)
    if listed is not None:
        labelled = _keeping_other_labels(result, labelled, listed)
    return publish_again(result, config, findings, labelled, collected.evidence, work)


def _with_listed(result: Result, listed: Mapping[int, Sequence[int]], rank_by: str) -> Findings:
    """The findings with the listed features among the reported ones."""
    latents, before = result.findings.latents, result.findings.top
    require_latents(listed, {layer: len(table) for layer, table in latents.items()})
    picked = {
        layer: list(dict.fromkeys([*table["feature_number"].tolist(), *listed.get(layer, ())]))
        for layer, table in before.items()
    }
    top = reported_features(latents, picked, rank_by=rank_by, split=result.record["corpus"]["split"])
    return replace(result.findings, top=top)


def _keeping_other_labels(
    result: Result, labelled: LabelledFeatures, listed: Mapping[int, Sequence[int]]
) -> LabelledFeatures:
    """The new labels of listed features, and of all others the labels that they had."""
    scored = {}
    for layer, rows in labelled.scored.items():
        before = result.findings.top[layer].set_index("feature_number")
        features = labelled.text.evidence.layers[layer].features
        scored[layer] = [
            row
            if feature in listed.get(layer, ()) or feature not in before.index
            else stored_label(before.loc[feature])
            for feature, row in zip(features.tolist(), rows, strict=True)
        ]
    return replace(labelled, scored=scored)


def _holds_all(collected: CollectedEvidence, findings: Findings) -> bool:
    held = {layer: set(one.features.tolist()) for layer, one in collected.evidence.layers.items()}
    return all(held[layer] == set(own) for layer, own in findings.features.items())
