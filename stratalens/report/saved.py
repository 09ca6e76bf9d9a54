"""Read a finished result back, so that later commands need no new harvest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from stratalens.config.config_file import as_taken, read_config_file
from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.corpus import Populations
from stratalens.errors import ConfigError
from stratalens.files.damaged import damaged, read_table
from stratalens.files.plain_yaml import read_text
from stratalens.files.record import MAX_RECORDED_FILES
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.store import FORMAT, HarvestFile, harvest_path
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.ranking.rank import feature_numbers
from stratalens.report.columns import COLUMNS_OF_FEATURES, COLUMNS_OF_LATENTS, require_columns, require_measured
from stratalens.report.run_record import RunFacts
from stratalens.report.tables import (
    DOMAIN_COLUMNS,
    Tables,
    build_tables,
    published_name,
)

FEATURES_FILE = "features.parquet"
"""All reported features of all layers, every column in full precision; the other tables are made from it."""
LATENTS_FILE = "all_features.parquet"
EVIDENCE_FOLDER = "evidence"
"""Folder of passages and activations from which features can be labelled again; absent after `--no_examples`."""


@dataclass(frozen=True)
class Findings:
    """The statistics of all features, those reported and all others, and the facts of each layer."""

    top: dict[int, pd.DataFrame]
    """Layer -> reported features, in the columns of the ranking."""
    latents: dict[int, pd.DataFrame]
    """Layer -> every latent, in the same columns."""
    facts: Mapping[int, LayerFacts]

    @property
    def features(self) -> dict[int, list[int]]:
        """Layer -> numbers of the reported features, in the order of the table."""
        return feature_numbers(self.top)


@dataclass(frozen=True)
class Result:
    """A finished result: its tables as pandas DataFrames, and what later commands need from it."""

    output_dir: Path
    recorded: RunConfig
    """All options of the run: to show and to record again. A command acts upon `config`."""
    record: dict[str, Any]
    """The content of `run.json`."""
    findings: Findings
    """Their reported features have labels."""

    @cached_property
    def config(self) -> RunConfig:
        """The options of the run, without those that no record sets."""
        return as_taken(self.recorded)

    @cached_property
    def tables(self) -> Tables:
        """All tables, in the names and order of their files."""
        return build_tables(self.recorded, self.findings.top, self.findings.latents, self.findings.facts)

    @property
    def top_features(self) -> pd.DataFrame:
        """The reported features of all layers, best first across layers."""
        return self.tables.consolidated

    @property
    def best_features(self) -> pd.DataFrame:
        """The best features across layers that reach `min_specialization`."""
        return self.tables.best

    @property
    def layers(self) -> pd.DataFrame:
        """The layer comparison, best layer first."""
        return self.tables.layers

    def all_features(self, layer: int) -> pd.DataFrame:
        """The statistics of every latent of one layer, one row per latent.

        Raises:
            KeyError: the run did not analyse this layer.
        """
        return self.tables.latents[layer]

    @property
    def populations(self) -> Populations:
        """The populations of its documents."""
        return Populations()

    @property
    def harvest(self) -> dict[int, HarvestFile]:
        """Layer -> the file of its harvest."""
        keys = self.record["harvest"]["keys"]
        return {int(layer): HarvestFile(self.output_dir / harvest_path(int(layer)), keys[layer]) for layer in keys}


def write_features(top: Mapping[int, pd.DataFrame], directory: Path) -> None:
    """Write the reported features of all layers to `FEATURES_FILE`."""
    table = pd.concat([table.assign(layer=layer) for layer, table in top.items()], ignore_index=True)
    table.to_parquet(directory / FEATURES_FILE, index=False)


def require_result(directory: Path) -> None:
    """Check that a directory holds a finished result.

    Raises:
        ConfigError: there is none.
    """
    if not (directory / RECORD_FILE).is_file():
        raise ConfigError(f"{directory}: no finished result here (no {RECORD_FILE}); name the --output_dir of a run")


def load_result(directory: str | Path) -> Result:
    """Read a finished result.

    Args:
        directory: the `output_dir` of a run.

    Raises:
        ConfigError: there is none in this directory, or it is damaged.
    """
    directory = Path(directory)
    require_result(directory)
    path = directory / RECORD_FILE
    recorded = make_config(**read_config_file(path).options)
    try:
        record = json.loads(read_text(path))
        _require_format(directory, record)
        layers = [int(layer) for layer in _Record.model_validate(record).layers]
        RunFacts.of(record, recorded.domain)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    latents = {layer: _latents(directory / f"layer_{layer}" / LATENTS_FILE, recorded.domain) for layer in layers}
    facts = {
        layer: LayerFacts(**{name: record["layers"][str(layer)][name] for name in LayerFacts._fields})
        for layer in layers
    }
    return Result(directory, recorded, record, Findings(_features(directory, latents), latents, facts))


def _require_format(directory: Path, content: object) -> None:
    """Refuse a result of another format instead of misreading it."""
    record = content if isinstance(content, dict) else {}
    if record.get("format") != FORMAT:
        raise ConfigError(
            f"{directory}: the result is of format {str(record.get('format', 'none'))[:20]}, this version of "
            f"stratalens reads format {FORMAT}; run the analysis again, or use the version that made it "
            f"({str(record.get('stratalens', 'unknown'))[:20]})"
        )


class _RecordPart(BaseModel):
    """A part of `run.json`, checked strictly; entries that are not named here are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _RecordedFacts(_RecordPart):
    fvu: float | None
    mean_hookpoint_norm: float | None
    dropped_share: float | None


class _RecordedSae(_RecordPart):
    hookpoint: str


class _RecordedModel(_RecordPart):
    name: str
    digest: str


class _RecordedCorpus(_RecordPart):
    digest: str
    split: bool


_LayerKey = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,4})$")]


class _RecordedHarvest(_RecordPart):
    keys: dict[_LayerKey, str]


class _Record(_RecordPart):
    """What later commands read from `run.json`."""

    settings: dict[str, Any]
    model: _RecordedModel
    corpus: _RecordedCorpus
    saes: dict[_LayerKey, _RecordedSae]
    layers: Annotated[dict[_LayerKey, _RecordedFacts], Field(min_length=1)]
    files: Annotated[list[str], Field(max_length=MAX_RECORDED_FILES), FailFast()]
    harvest: _RecordedHarvest

    @model_validator(mode="after")
    def _same_layers(self) -> "_Record":
        if not set(self.layers) == set(self.saes) == set(self.harvest.keys):
            raise ValueError("`layers`, `saes` and `harvest` name different layers")
        return self


def _latents(path: Path, domain: str) -> pd.DataFrame:
    """All latents of a layer, with the column names of the ranking (`domain_...` whatever the domain is called)."""
    table = read_table(path).rename(columns={published_name(name, domain): name for name in DOMAIN_COLUMNS})
    require_columns(path, table, COLUMNS_OF_LATENTS)
    require_measured(path, table)
    if table["feature_number"].tolist() != list(range(len(table))):
        raise damaged(path, "its rows are not one per latent, in order")
    return table.drop(columns="layer")


def _features(directory: Path, latents: Mapping[int, pd.DataFrame]) -> dict[int, pd.DataFrame]:
    """Layer -> reported features."""
    path = directory / FEATURES_FILE
    table = read_table(path)
    require_columns(path, table, COLUMNS_OF_FEATURES)
    top = {layer: table[table["layer"] == layer].drop(columns="layer").reset_index(drop=True) for layer in latents}
    all_known = all(set(own["feature_number"]) <= set(latents[layer]["feature_number"]) for layer, own in top.items())
    if not all_known or table.duplicated(["layer", "feature_number"]).any() or sum(map(len, top.values())) < len(table):
        raise damaged(path, f"its features do not match the layers and latents of {RECORD_FILE}")
    return top
