"""Write every file of a result from its findings and labels."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.evidence import Evidence
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.store import HarvestFile, harvest_path
from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureLabel
from stratalens.labels.labelling import LabelledFeatures
from stratalens.ranking.layer_details import layer_details
from stratalens.report.evidence_file import (
    EVIDENCE_FILE,
    FeatureEvidence,
    read_evidence_file,
    write_evidence_file,
)
from stratalens.report.figures.write import write_figures
from stratalens.report.formats import json_value, write_json
from stratalens.report.label_tables import LABEL_COLUMNS
from stratalens.report.page.write import PAGE_FILE, write_page
from stratalens.report.run_record import RunFacts, result_files
from stratalens.report.saved import EVIDENCE_FOLDER, Findings, write_features
from stratalens.report.tables import Tables, build_tables, write_tables


def publish(
    config: RunConfig,
    findings: Findings,
    labelled: LabelledFeatures,
    evidence_to_keep: Evidence,
    modules: Mapping[Hookpoint, str],
    settings: Mapping[str, object],
    directory: Path,
) -> Tables:
    """Write tables, evidence and figures; `write_result_page` and `write_record` write the rest.

    Args:
        config: the options of the run.
        findings: the ranked features, with labels.
        labelled: evidence and labels, features of each layer in the order of the evidence.
        evidence_to_keep: the evidence to store, so that features can be labelled again later.
        modules: hookpoint -> name of the module that was read.
        settings: the content of `config` in the JSON file of each layer.
        directory: where the files go.

    Returns:
        The tables that were written.
    """
    evidence = labelled.annotated_evidence.evidence
    tables = build_tables(config, findings.top, findings.latents, findings.facts)
    examples = {
        hookpoint: dict(zip(evidence.layers[hookpoint].features.tolist(), labelled.examples[hookpoint], strict=True))
        for hookpoint in findings.top
    }
    write_tables(
        tables,
        directory,
        top_n=config.top_n,
        top_features_n=config.top_features_n,
        examples=examples,
        settings=settings,
    )
    for hookpoint in findings.top:
        path = directory / f"layer_{hookpoint}" / EVIDENCE_FILE
        layer_evidence = _layer_evidence(labelled, hookpoint)
        write_evidence_file(
            layer_evidence, path, domain=config.domain, layer=hookpoint.block, hookpoint=modules[hookpoint]
        )
    write_features(findings.top, directory)
    if not config.no_examples:
        evidence_to_keep.write(directory / EVIDENCE_FOLDER)
    write_figures(tables, directory)
    return tables


def write_result_page(
    tables: Tables, record: Mapping[str, Any], harvest: Mapping[Hookpoint, HarvestFile], evidence: Path, directory: Path
) -> None:
    """Write `report.html`.

    Args:
        tables: the tables of the result.
        record: the content of `run.json`.
        harvest: hookpoint -> the file of its harvest.
        evidence: the directory that holds the evidence files.
        directory: where the page goes.

    Raises:
        ConfigError: an evidence file is missing or damaged.
        ValueError: the record lacks something that the page shows.
    """
    facts = RunFacts.of(json_value(record), tables.domain)  # pyright: ignore[reportArgumentType]
    stored = {
        hookpoint: read_evidence_file(evidence / f"layer_{hookpoint}" / EVIDENCE_FILE) for hookpoint in tables.features
    }
    width = {hookpoint: len(table) for hookpoint, table in tables.latents.items()}
    details = {
        hookpoint: layer_details(
            harvest[hookpoint].state(width[hookpoint]),
            table,
            facts.populations,
            num_latents=width[hookpoint],
            split=facts.split,
        )
        for hookpoint, table in tables.features.items()
    }
    write_page(tables, facts, stored, details, directory / PAGE_FILE)


def write_record(
    record: Mapping[str, Any], hookpoints: Iterable[Hookpoint], directory: Path, others: Iterable[str] = ()
) -> dict[str, Any]:
    """Write `run.json`, with the names of all files of the result, after all of them have been written.

    Args:
        record: the content of `run.json` without those names.
        hookpoints: those whose harvests belong to the result.
        directory: where the files of the result are.
        others: names of files of the result that are not below `directory`.

    Returns:
        The record as written.
    """
    names = {*result_files(directory), *(str(harvest_path(hookpoint)) for hookpoint in hookpoints), *others}
    record = {**record, "files": sorted(names)}
    write_json(record, directory / RECORD_FILE)
    return record


def with_labels(findings: Findings, labelled: LabelledFeatures) -> Findings:
    """The findings with the label and the label's scores in the row of each reported feature."""
    evidence = labelled.annotated_evidence.evidence
    return replace(
        findings,
        top={
            hookpoint: _with_layer_labels(table, evidence, hookpoint, labelled.scored[hookpoint])
            for hookpoint, table in findings.top.items()
        },
    )


def _with_layer_labels(
    table: pd.DataFrame, evidence: Evidence, hookpoint: Hookpoint, scored: list[FeatureLabel]
) -> pd.DataFrame:
    labels = pd.DataFrame(scored, columns=list(LABEL_COLUMNS), index=pd.Index(evidence.layers[hookpoint].features))
    own = labels.loc[table["feature_number"]].reset_index(drop=True)
    return pd.concat([table.drop(columns=[name for name in LABEL_COLUMNS if name in table]), own], axis=1)


def _layer_evidence(labelled: LabelledFeatures, hookpoint: Hookpoint) -> list[FeatureEvidence]:
    return [
        FeatureEvidence(
            feature=int(feature),
            top_tokens=labelled.tokens[hookpoint][column],
            support=labelled.labels[hookpoint].support[column],
            lens=labelled.lenses[hookpoint][column] if hookpoint in labelled.lenses else None,
            examples=labelled.examples[hookpoint][column],
        )
        for column, feature in enumerate(labelled.annotated_evidence.evidence.layers[hookpoint].features)
    ]
