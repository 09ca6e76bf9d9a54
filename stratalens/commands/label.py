"""Labels again, for a finished result: other concepts, another labelling model, other features; no new harvest."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.analyze import Result, features_of, leafed_through
from stratalens.config import LabelConfig, RunConfig
from stratalens.errors import ConfigError
from stratalens.evidence.collect import Gathered, gather
from stratalens.evidence.evidence import Evidence
from stratalens.files.output_dir import Workplace, workplace
from stratalens.harvest.open_model import open_model, prepare
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.labelling import Meaning, find_meaning, open_labeller
from stratalens.progress import Listener, Silence
from stratalens.ranking import rank as ranking
from stratalens.ranking.feature_list import read_feature_list, require_latents
from stratalens.report import run_record as record
from stratalens.report.evidence_file import EVIDENCE_FILE, read_lenses
from stratalens.report.label_tables import stored_label
from stratalens.report.publish import present, publish
from stratalens.report.saved import (
    EVIDENCE_FOLDER,
    Findings,
    SavedResult,
    load_result,
)


def relabel(directory: Path, options: LabelConfig, listener: Listener | None = None) -> Result:
    """Label the features of a finished result again and write its tables anew.

    The model is needed only for features that the result does not report, and where it was made without examples.

    Args:
        directory: the result.
        options: how to label.
        listener: hears of the progress.

    Raises:
        StratalensError: there is no such result, or an option or the labelling model is not usable.
    """
    listener = listener or Silence()
    load_result(directory)  # before anything is locked or made where no result is
    with workplace(directory) as place, torch.inference_mode():
        return _relabel(load_result(directory), options, place, listener)


def _relabel(saved: SavedResult, options: LabelConfig, place: Workplace, listener: Listener) -> Result:
    config = saved.config.model_copy(update={name: getattr(options, name) for name in LabelConfig.model_fields})
    lexicon = load_lexicon(config.domain, config.lexicon)
    listed = None if config.features is None else read_feature_list(config.features)
    findings = saved.findings if listed is None else _with_list(saved, listed, config.rank_by)
    labeller = open_labeller(config, listener)
    gathered = load_evidence(saved)
    if gathered is None or not _holds_all(gathered, findings):
        gathered = gather_again(saved, config, findings, listener)
    meaning = find_meaning(
        config, gathered.evidence, findings.top, gathered.lenses, lexicon, labeller, listener, only=listed
    )
    if listed is not None:
        meaning = _keeping_others(saved, meaning, listed)
    return publish_again(saved, config, findings, meaning, gathered.evidence, place)


def publish_again(
    saved: SavedResult, config: RunConfig, findings: Findings, meaning: Meaning, evidence: Evidence, place: Workplace
) -> Result:
    """Write the files of a finished result anew, with the evidence to keep; its harvest stays."""
    hookpoints = {int(layer): sae["hookpoint"] for layer, sae in saved.record["saes"].items()}
    settings = record.settings(config, saved.record["model"]["name"])
    arranged = publish(config, findings, meaning, evidence, hookpoints, settings, place.staging)
    content = saved.record | {"settings": record.recorded_settings(config)}
    content = present(arranged, content, saved.harvest, place.staging, place.staging)
    return Result(place.directory, arranged, content)


def _with_list(saved: SavedResult, listed: Mapping[int, Sequence[int]], rank_by: str) -> Findings:
    """The findings with the listed features among the reported ones; what had a label keeps it for now."""
    latents, before = saved.findings.latents, saved.findings.top
    require_latents(listed, {layer: len(table) for layer, table in latents.items()})
    picked = {
        layer: list(dict.fromkeys([*table["feature_number"].tolist(), *listed.get(layer, ())]))
        for layer, table in before.items()
    }
    top = ranking.report(latents, picked, rank_by=rank_by, split=saved.record["corpus"]["split"])
    return Findings(top, latents, saved.findings.facts)


def _keeping_others(saved: SavedResult, meaning: Meaning, listed: Mapping[int, Sequence[int]]) -> Meaning:
    """The new labels of listed features, and of all others the labels that they had."""
    scored = {}
    for layer, rows in meaning.scored.items():
        before = saved.findings.top[layer].set_index("feature_number")
        features = meaning.text.evidence.layers[layer].features
        scored[layer] = [
            row
            if feature in listed.get(layer, ()) or feature not in before.index
            else stored_label(before.loc[feature])
            for feature, row in zip(features.tolist(), rows, strict=True)
        ]
    return replace(meaning, scored=scored)


def load_evidence(saved: SavedResult) -> Gathered | None:
    """The evidence kept with the result; None where it was made without examples."""
    folder = saved.directory / EVIDENCE_FOLDER
    layers = list(saved.findings.top)
    if not all((folder / f"layer_{layer}.npz").is_file() for layer in layers):
        return None
    evidence = Evidence.load(folder, layers)
    found = {
        layer: read_lenses(saved.directory / f"layer_{layer}" / EVIDENCE_FILE, one.features.tolist())
        for layer, one in evidence.layers.items()
    }
    lenses = {layer: one for layer, one in found.items() if one is not None}
    return Gathered(evidence, lenses if len(lenses) == len(layers) else None)


def _holds_all(gathered: Gathered, findings: Findings) -> bool:
    held = {layer: set(one.features.tolist()) for layer, one in gathered.evidence.layers.items()}
    return all(held[layer] == set(own) for layer, own in features_of(findings.top).items())


def gather_again(saved: SavedResult, config: RunConfig, findings: Findings, listener: Listener) -> Gathered:
    """Read the text and run the model again, over the passages that evidence takes."""
    layers = tuple(str(layer) for layer in sorted(findings.top))
    config = config.model_copy(update={"layers": layers, "features": None})
    ready = prepare(config, listener)
    if f"{ready.survey.digest:016x}" != saved.record["corpus"]["digest"]:
        raise ConfigError(f"{saved.directory}: its text has changed since; run the analysis again")
    if ready.source.digest != saved.record["model"]["digest"]:
        raise ConfigError(f"{saved.directory}: its model has changed since; run the analysis again")
    opened = open_model(config, ready, listener)
    features = features_of(findings.top)
    fvu = {layer: facts.fvu for layer, facts in findings.facts.items()}
    _, places = leafed_through(saved.harvest, fvu, features)
    return gather(config, ready, opened, features, places, listener)
