"""From findings and labels to every file of a result."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stratalens.config import RunConfig
from stratalens.evidence.evidence import Evidence
from stratalens.files.output_dir import RECORD_FILE
from stratalens.harvest.store import HarvestFile, harvest_path
from stratalens.labels.feature_label import FeatureLabel
from stratalens.labels.labelling import Meaning
from stratalens.ranking.layer_details import layer_details
from stratalens.report import run_record as record
from stratalens.report import tables
from stratalens.report.evidence_file import (
    EVIDENCE_FILE,
    FeatureEvidence,
    read_evidence_file,
    write_evidence_file,
)
from stratalens.report.figures import write as figures
from stratalens.report.formats import json_value, write_json
from stratalens.report.label_tables import LABEL_COLUMNS
from stratalens.report.page.write import PAGE_FILE, write_page
from stratalens.report.run_facts import RunFacts
from stratalens.report.saved import EVIDENCE_FOLDER, Findings, write_features


def publish(
    config: RunConfig,
    findings: Findings,
    meaning: Meaning,
    evidence_to_keep: Evidence,
    hookpoints: Mapping[int, str],
    settings: Mapping[str, object],
    directory: Path,
) -> tables.Tables:
    """Write tables, evidence and figures below a directory; the page and the record of the run are left to `present`.

    Args:
        config: of the run.
        findings: ranked features, all latents, facts of the layers.
        meaning: labels and evidence, features of each layer in the order of the evidence.
        evidence_to_keep: what labels can be made from again.
        hookpoints: layer -> name of the module that was read.
        settings: what `config` in the brief's JSON files says.
        directory: where the files go.
    """
    evidence = meaning.text.evidence
    top = {layer: with_labels(table, evidence, layer, meaning.scored[layer]) for layer, table in findings.top.items()}
    arranged = tables.build(
        config.domain,
        top,
        findings.latents,
        findings.facts,
        compare_by=config.compare_layers_by,
        min_specialization=config.min_specialization,
        top_features_n=config.top_features_n,
    )
    numbers = {layer: evidence.layers[layer].features.tolist() for layer in findings.top}
    shown = {layer: dict(zip(numbers[layer], meaning.shown[layer], strict=True)) for layer in findings.top}
    tables.write(
        arranged,
        directory,
        top_n=config.top_n,
        top_features_n=config.top_features_n,
        shown=shown,
        settings=settings,
    )
    for layer in findings.top:
        path = directory / f"layer_{layer}" / EVIDENCE_FILE
        found = _evidence(meaning, layer)
        write_evidence_file(found, path, domain=config.domain, layer=layer, hookpoint=hookpoints[layer])
    write_features(top, directory)
    if not config.no_examples:
        evidence_to_keep.write(directory / EVIDENCE_FOLDER)
    figures.write_figures(arranged, directory)
    return arranged


def present(
    arranged: tables.Tables,
    content: Mapping[str, Any],
    harvest: Mapping[int, HarvestFile],
    evidence: Path,
    directory: Path,
    others: Iterable[str] = (),
) -> dict[str, Any]:
    """Write the page and, with the names of all files, the record of the run.

    Args:
        arranged: the tables.
        content: of the record.
        harvest: layer -> its harvest.
        evidence: the directory that the evidence files lie below.
        directory: where the files go.
        others: files of the result that are not below `directory`.
    """
    facts = RunFacts.of(json_value(content), arranged.domain)  # pyright: ignore[reportArgumentType]
    stored = {layer: read_evidence_file(evidence / f"layer_{layer}" / EVIDENCE_FILE) for layer in arranged.features}
    details = {
        layer: layer_details(harvest[layer].state(), table, num_latents=len(arranged.latents[layer]), split=facts.split)
        for layer, table in arranged.features.items()
    }
    write_page(arranged, facts, stored, details, directory / PAGE_FILE)
    names = {*record.files(directory), *(str(harvest_path(layer)) for layer in harvest), *others}
    content = {**content, "files": sorted(names)}
    write_json(content, directory / RECORD_FILE)
    return content


def with_labels(table: pd.DataFrame, evidence: Evidence, layer: int, scored: list[FeatureLabel]) -> pd.DataFrame:
    """One layer's reported features with their labels and scores."""
    labels = pd.DataFrame(scored, columns=list(LABEL_COLUMNS), index=pd.Index(evidence.layers[layer].features))
    own = labels.loc[table["feature_number"]].reset_index(drop=True)
    return pd.concat([table.drop(columns=[name for name in LABEL_COLUMNS if name in table]), own], axis=1)


def _evidence(meaning: Meaning, layer: int) -> list[FeatureEvidence]:
    return [
        FeatureEvidence(
            feature=int(feature),
            top_tokens=meaning.tokens[layer][column],
            support=meaning.labels[layer].support[column],
            lens=meaning.lenses[layer][column] if meaning.lenses else None,
            shown=meaning.shown[layer][column],
        )
        for column, feature in enumerate(meaning.text.evidence.layers[layer].features)
    ]
