"""Write every file of a result from its findings and reports."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.evidence import Evidence
from stratalens.files.result_names import EVIDENCE_FOLDER
from stratalens.harvest.store import harvest_path
from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureReport
from stratalens.labels.feature_report import LexiconShares, Reports
from stratalens.optional_parts import PAGE, OptionalParts
from stratalens.ranking.estimates import RankingInput, RankingInputs
from stratalens.ranking.layer_details import layer_details
from stratalens.report.documents_file import DOCUMENTS_FILE, write_documents
from stratalens.report.effects_file import write_effect_tables
from stratalens.report.evidence_file import EVIDENCE_FILE, StoredEvidence, write_evidence_file
from stratalens.report.figures.write import write_figures
from stratalens.report.label_tables import LABEL_COLUMNS
from stratalens.report.page.write import PAGE_FILE, write_page
from stratalens.report.run_record import RunRecord, result_files
from stratalens.report.saved import Findings, write_features
from stratalens.report.table_files import write_tables
from stratalens.report.tables import Tables, build_tables
from stratalens.report.token_test_file import write_token_test


class ResultContent(NamedTuple):
    """What the files of a result are made from."""

    config: RunConfig
    """The options of the run."""
    findings: Findings
    """The ranked features, with labels."""
    reports: Reports
    evidence: Evidence
    """The evidence to store, so that features can be labelled again later."""
    record: RunRecord
    inputs: RankingInputs
    """What the features were ranked from."""


def publish(content: ResultContent, directory: Path, parts: OptionalParts) -> RunRecord:
    """Write tables, evidence, figures and page; `write_record` writes the record.

    Args:
        content: of the result.
        directory: where the files go.
        parts: figures and page are optional; the page names the parts that are missing before it is written.

    Returns:
        The record, with the parts that are missing.
    """
    config, findings, reports, evidence, record, inputs = content
    tables = build_tables(config, findings.top, findings.latents, findings.facts)
    write_tables(tables, reports, record.resolved_settings, directory)
    modules, stored = record.modules, {}
    for hookpoint in findings.top:
        own = [StoredEvidence.of(report, config.domain) for report in reports[hookpoint]]
        path = directory / f"layer_{hookpoint}" / EVIDENCE_FILE
        write_evidence_file(own, path, domain=config.domain, layer=hookpoint.block, hookpoint=modules[hookpoint])
        stored[hookpoint] = {feature.feature_number: feature for feature in own}
    write_features(findings.top, directory)
    if record.token_test is not None:
        write_token_test(tables, directory)
    write_effect_tables(tables, record.effects, directory)
    write_documents(inputs.sources, record.populations, config.domain, directory / DOCUMENTS_FILE)
    if config.no_examples:
        record = record.model_copy(update={"codes": {}})
    else:
        evidence.write(directory / EVIDENCE_FOLDER)
    return write_views(tables, record, inputs, stored, directory, parts)


def write_views(
    tables: Tables,
    record: RunRecord,
    inputs: Mapping[Hookpoint, RankingInput],
    evidence: Mapping[Hookpoint, Mapping[int, StoredEvidence]],
    directory: Path,
    parts: OptionalParts,
) -> RunRecord:
    """Write the figures and the page.

    Args:
        tables: the tables of the result.
        record: of the run.
        inputs: hookpoint -> what its features were ranked from.
        evidence: hookpoint -> feature -> its evidence.
        directory: where the files go.
        parts: figures and page are optional; the page names the parts that are missing before it is written.

    Returns:
        The record, with the parts that are missing.
    """
    write_figures(tables, directory, parts, record.effects)
    with parts.part(PAGE):
        missing_so_far = record.model_copy(update={"missing_parts": dict(parts.missing)})
        _write_result_page(tables, missing_so_far, inputs, evidence, directory)
    return record.model_copy(update={"missing_parts": dict(parts.missing)})


def _write_result_page(
    tables: Tables,
    record: RunRecord,
    inputs: Mapping[Hookpoint, RankingInput],
    evidence: Mapping[Hookpoint, Mapping[int, StoredEvidence]],
    directory: Path,
) -> None:
    """Write `report.html`; the arguments are those of `write_views`."""
    details = {
        hookpoint: layer_details(inputs[hookpoint], table, split=record.split)
        for hookpoint, table in tables.features.items()
    }
    write_page(tables, record, evidence, details, directory / PAGE_FILE)


def write_record(
    record: RunRecord, hookpoints: Iterable[Hookpoint], directory: Path, others: Iterable[str] = ()
) -> RunRecord:
    """Write `run.json`, with the names of all files of the result, after all of them have been written.

    Args:
        record: of the run, without those names.
        hookpoints: those whose harvests belong to the result.
        directory: where the files of the result are.
        others: names of files of the result that are not below `directory`.

    Returns:
        The record as written.
    """
    kept = [name for validation in record.validations for name in validation.file_names]
    kept += [name for effect in record.effects for name in effect.file_names]
    if record.controls is not None:
        kept += [str(file.path) for file in record.controls.random_files(Path()).values()]
    kept += [] if record.token_test is None else record.token_test.file_names
    kept += [str(path) for path in record.code_files(Path()).values()]
    names = {*result_files(directory), *(str(harvest_path(hookpoint)) for hookpoint in hookpoints), *kept, *others}
    record = record.model_copy(update={"files": sorted(names)})
    record.write(directory)
    return record


def with_labels(findings: Findings, reports: Reports) -> Findings:
    """The findings with the label, its scores and the shares of the lexicon in the row of each reported feature."""
    top = {hookpoint: _with_layer_labels(table, reports[hookpoint]) for hookpoint, table in findings.top.items()}
    return replace(findings, top=top)


def _with_layer_labels(table: pd.DataFrame, reports: Sequence[FeatureReport]) -> pd.DataFrame:
    features = pd.Index([report.feature for report in reports], dtype="int64")
    labels = pd.DataFrame([report.label for report in reports], columns=list(LABEL_COLUMNS), index=features)
    shares = pd.DataFrame([report.lexicon for report in reports], columns=list(LexiconShares._fields), index=features)
    both = pd.concat([shares.astype(np.float64), labels], axis=1)
    own = both.loc[table["feature_number"]].reset_index(drop=True)
    return pd.concat([table.drop(columns=[name for name in own if name in table]), own], axis=1)
