"""Ranking again, for a finished result: another order, other thresholds; no model, no text."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from stratalens.commands.analyze import RankingInputs, Result, features_of
from stratalens.commands.label import gather_again, load_evidence, publish_again
from stratalens.config import RankConfig, RunConfig
from stratalens.evidence.collect import Gathered
from stratalens.evidence.evidence import Evidence
from stratalens.evidence.logit_lens import TokenLens
from stratalens.files.output_dir import workplace
from stratalens.labels.concepts.lexicon import load_lexicon
from stratalens.labels.feature_label import EVIDENCE, FeatureLabel
from stratalens.labels.labelling import Meaning, find_meaning
from stratalens.progress import Listener, Silence
from stratalens.ranking import rank as ranking
from stratalens.report.label_tables import stored_label
from stratalens.report.saved import Findings, SavedResult, load_result

UNLABELLED = "Not labelled yet"
NOTE = "reported since the ranking changed; run `stratalens label RESULT_DIR` to label it"


def rerank(directory: Path, options: RankConfig, listener: Listener | None = None) -> Result:
    """Rank the features of a finished result again from its harvest and write its tables anew.

    Features that were reported before keep evidence and label; others wait for `label`.

    Args:
        directory: the result.
        options: what to change.
        listener: hears of the progress.

    Raises:
        StratalensError: there is no such result, or it is damaged.
    """
    listener = listener or Silence()
    load_result(directory)  # before anything is locked or made where no result is
    with workplace(directory) as place, torch.inference_mode():
        saved = load_result(directory)
        given = {name: value for name, value in options.model_dump(exclude={"quiet"}).items() if value is not None}
        config = saved.config.model_copy(update=given)
        findings = _ranked(saved, config)
        stored = load_evidence(saved) or gather_again(saved, config, findings, listener)
        gathered = _for_features(stored, features_of(findings.top))
        lexicon = load_lexicon(config.domain, config.lexicon)
        meaning = find_meaning(config, gathered.evidence, findings.top, gathered.lenses, lexicon, None, listener)
        known = {layer: set(one.features.tolist()) for layer, one in stored.evidence.layers.items()}
        meaning = keeping_labels(saved, meaning, known)
        result = publish_again(saved, config, findings, meaning, _only(gathered.evidence, known), place)
    waiting = sum(feature not in known[layer] for layer, own in features_of(findings.top).items() for feature in own)
    if waiting:
        listener.warn(f"{waiting} features were not reported before: `stratalens label {directory}` labels them")
    return result


def _ranked(saved: SavedResult, config: RunConfig) -> Findings:
    norms = {layer: table["decoder_norm"].to_numpy() for layer, table in saved.findings.latents.items()}
    ranked = ranking.rank(
        RankingInputs(saved.harvest, norms),
        top_n=config.top_n,
        rank_by=config.rank_by,
        split=saved.record["corpus"]["split"],
        listed=features_of(saved.findings.top) if config.features is not None else None,
    )
    return Findings(ranked.top, ranked.latents, saved.findings.facts)


def _for_features(stored: Gathered, features: Mapping[int, Sequence[int]]) -> Gathered:
    """What is stored of these features; nothing of those that were not reported before."""
    nothing = TokenLens([], [])
    layers = {layer: stored.evidence.layers[layer].over(own) for layer, own in features.items()}
    lenses = None
    if stored.lenses is not None:
        held = {
            layer: dict(zip(stored.evidence.layers[layer].features.tolist(), own, strict=True))
            for layer, own in stored.lenses.items()
        }
        lenses = {layer: [held[layer].get(feature, nothing) for feature in own] for layer, own in features.items()}
    return Gathered(Evidence(stored.evidence.passages, layers), lenses)


def _only(evidence: Evidence, known: Mapping[int, set[int]]) -> Evidence:
    """The evidence without the features of which nothing was gathered."""
    layers = {
        layer: one.over([feature for feature in one.features.tolist() if feature in known[layer]])
        for layer, one in evidence.layers.items()
    }
    return Evidence(evidence.passages, layers)


def keeping_labels(saved: SavedResult, meaning: Meaning, known: Mapping[int, set[int]]) -> Meaning:
    """The labels that features had before; those without evidence wait for theirs."""
    scored = {}
    for layer, rows in meaning.scored.items():
        before = saved.findings.top[layer].set_index("feature_number")
        features = meaning.text.evidence.layers[layer].features.tolist()
        scored[layer] = [
            stored_label(before.loc[feature])
            if feature in before.index
            else (row if feature in known[layer] else FeatureLabel(UNLABELLED, EVIDENCE, label_note=NOTE))
            for feature, row in zip(features, rows, strict=True)
        ]
    return replace(meaning, scored=scored)
