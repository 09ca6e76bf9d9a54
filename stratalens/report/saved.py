"""Read a finished result back, so that later commands need no new harvest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from stratalens.config.config_file import as_taken, read_config_file
from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config
from stratalens.corpus.sources import NO_SOURCES, DocumentSources
from stratalens.errors import ConfigError
from stratalens.files.damaged import damaged, read_table
from stratalens.files.plain_yaml import read_text
from stratalens.files.result_names import RECORD_FILE
from stratalens.harvest.store import FORMAT, HarvestFile
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.estimates import RankingInputs
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.ranking.rank import feature_numbers
from stratalens.report.columns import COLUMNS_OF_FEATURES, COLUMNS_OF_LATENTS, require_columns, require_measured
from stratalens.report.documents_file import DOCUMENTS_FILE, read_documents
from stratalens.report.run_record import RunRecord
from stratalens.report.tables import (
    DOMAIN_COLUMNS,
    PLACE_COLUMNS,
    Tables,
    build_tables,
    places,
    published_name,
    with_place,
)

FEATURES_FILE = "features.parquet"
"""All reported features of all layers, every column in full precision; the other tables are made from it."""
LATENTS_FILE = "all_features.parquet"


@dataclass(frozen=True)
class Findings:
    """The statistics of all features, those reported and all others, and the facts of each layer."""

    top: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> reported features, in the columns of the ranking."""
    latents: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> every latent, in the same columns."""
    facts: Mapping[Hookpoint, LayerFacts]

    @property
    def features(self) -> dict[Hookpoint, list[int]]:
        """Hookpoint -> numbers of the reported features, in the order of the table."""
        return feature_numbers(self.top)


@dataclass(frozen=True)
class Result:
    """A finished result: its tables as pandas DataFrames, and what later commands need from it."""

    output_dir: Path
    recorded: RunConfig
    """All options of the run: to show and to record again. A command acts upon `config`."""
    record: RunRecord
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

    def all_features(self, hookpoint: Hookpoint | int | str) -> pd.DataFrame:
        """The statistics of every latent at one hookpoint, such as 28 or `28_mlp`, one row per latent.

        Raises:
            KeyError: the run did not analyse it.
            ValueError: it is no hookpoint.
        """
        return self.tables.latents[Hookpoint.given(hookpoint)]

    def opposed_features(self, hookpoint: Hookpoint | int | str) -> pd.DataFrame:
        """The features at one hookpoint that fire less on the domain, best first; `hookpoint` as in `all_features`.

        Raises:
            KeyError: the run did not analyse it, or an earlier version made the result.
            ValueError: it is no hookpoint.
        """
        return self.tables.opposed[Hookpoint.given(hookpoint)]

    @cached_property
    def ranking_inputs(self) -> RankingInputs:
        """What the features are ranked from: the harvest."""
        norms = {hookpoint: table["decoder_norm"].to_numpy() for hookpoint, table in self.findings.latents.items()}
        return RankingInputs(self.harvest, norms, self.record.populations, self.sources)

    @cached_property
    def sources(self) -> DocumentSources:
        """Where the sampled documents are from; results of earlier versions do not say.

        Raises:
            ConfigError: the file that says so is damaged.
        """
        if DOCUMENTS_FILE not in self.record.files:
            return NO_SOURCES
        return read_documents(self.output_dir / DOCUMENTS_FILE, self.record.populations, self.recorded.domain)

    @property
    def harvest(self) -> dict[Hookpoint, HarvestFile]:
        """Hookpoint -> the file of its harvest."""
        return self.record.harvest_files(self.output_dir)


def write_features(top: Mapping[Hookpoint, pd.DataFrame], directory: Path) -> None:
    """Write the reported features of all layers to `FEATURES_FILE`."""
    table = pd.concat([with_place(table, hookpoint) for hookpoint, table in top.items()], ignore_index=True)
    table.to_parquet(directory / FEATURES_FILE, index=False)


def require_result(directory: Path) -> None:
    """Check that a directory holds a finished result.

    Raises:
        ConfigError: there is none.
    """
    if not (directory / RECORD_FILE).is_file():
        raise ConfigError(f"{directory}: no finished result here (no {RECORD_FILE}); name the --output_dir of a run")


def require_feature(result: Result, hookpoint: Hookpoint, feature: int) -> None:
    """Check that a result has a feature.

    Raises:
        ConfigError: it has no such layer or feature.
    """
    latents = result.findings.latents
    if hookpoint not in latents:
        raise ConfigError(
            f"{result.output_dir} has layers {' '.join(map(str, latents))}; layer {hookpoint} was asked for"
        )
    if feature >= len(latents[hookpoint]):
        raise ConfigError(f"layer {hookpoint} has features 0 to {len(latents[hookpoint]) - 1}; {feature} was asked for")


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
        content = json.loads(read_text(path))
        _require_format(directory, content)
        record = RunRecord.model_validate(content)
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    latents = {
        hookpoint: _latents(directory / f"layer_{hookpoint}" / LATENTS_FILE, recorded.domain)
        for hookpoint in record.hookpoints
    }
    findings = Findings(_features(directory, latents), latents, record.facts)
    return Result(directory, recorded, record, findings)


def _require_format(directory: Path, content: object) -> None:
    """Refuse a result of another format instead of misreading it."""
    record = content if isinstance(content, dict) else {}
    if record.get("format") != FORMAT:
        raise ConfigError(
            f"{directory}: the result is of format {str(record.get('format', 'none'))[:20]}, this version of "
            f"stratalens reads format {FORMAT}; run the analysis again, or use the version that made it "
            f"({str(record.get('stratalens', 'unknown'))[:20]})"
        )


def _latents(path: Path, domain: str) -> pd.DataFrame:
    """All latents of a layer, with the column names of the ranking (`domain_...` whatever the domain is called)."""
    table = read_table(path).rename(columns={published_name(name, domain): name for name in DOMAIN_COLUMNS})
    require_columns(path, table, COLUMNS_OF_LATENTS)
    require_measured(path, table)
    if table["feature_number"].tolist() != list(range(len(table))):
        raise damaged(path, "its rows are not one per latent, in order")
    return table.drop(columns=[name for name in PLACE_COLUMNS if name in table])


def _features(directory: Path, latents: Mapping[Hookpoint, pd.DataFrame]) -> dict[Hookpoint, pd.DataFrame]:
    """Hookpoint -> reported features."""
    path = directory / FEATURES_FILE
    table = read_table(path)
    require_columns(path, table, COLUMNS_OF_FEATURES)
    try:
        table["place"] = places(table)
    except (TypeError, ValueError) as error:
        raise damaged(path, error) from None
    of_features = [name for name in table if name not in (*PLACE_COLUMNS, "place")]
    top = {
        hookpoint: table.loc[table["place"] == str(hookpoint), of_features].reset_index(drop=True)
        for hookpoint in latents
    }
    all_known = all(
        set(own["feature_number"]) <= set(latents[hookpoint]["feature_number"]) for hookpoint, own in top.items()
    )
    if not all_known or table.duplicated(["place", "feature_number"]).any() or sum(map(len, top.values())) < len(table):
        raise damaged(path, f"its features do not match the layers and latents of {RECORD_FILE}")
    return top
