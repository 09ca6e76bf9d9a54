"""A finished result read back, so that later stages need no new harvest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stratalens.config import RunConfig, make_config, read_config_file
from stratalens.errors import ConfigError
from stratalens.report.output import RECORD_FILE
from stratalens.report.tables import DOMAIN_COLUMNS, LayerFacts, published_name
from stratalens.store import FORMAT, HarvestFile, harvest_path

FEATURES_FILE = "features.parquet"
"""All reported features with every column in full precision; the other tables are made from it."""
LATENTS_FILE = "all_features.parquet"
EVIDENCE_FOLDER = "evidence"
"""Passages and activations from which labels can be made again; absent after `--no_examples`."""


@dataclass(frozen=True)
class Findings:
    """What the statistics found, before labels."""

    top: dict[int, pd.DataFrame]
    """Layer -> reported features, in the columns of the ranking."""
    latents: dict[int, pd.DataFrame]
    """Layer -> every latent, likewise."""
    facts: Mapping[int, LayerFacts]


@dataclass(frozen=True)
class SavedResult:
    """What a finished run left."""

    directory: Path
    config: RunConfig
    record: dict[str, Any]
    """What `run.json` holds."""
    findings: Findings
    harvest: dict[int, HarvestFile]
    """Layer -> its harvest."""


def write_features(top: Mapping[int, pd.DataFrame], directory: Path) -> None:
    """Write the reported features of all layers."""
    table = pd.concat([table.assign(layer=layer) for layer, table in top.items()], ignore_index=True)
    table.to_parquet(directory / FEATURES_FILE, index=False)


def read_facts(directory: Path) -> dict[str, Any] | None:
    """What the result in a directory was read with; None where there is no result, or one of an older version."""
    try:
        return json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))["harvest"]["facts"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_result(directory: Path) -> SavedResult:
    """Read a finished result.

    Raises:
        ConfigError: there is none in this directory, or it is damaged.
    """
    place = directory / RECORD_FILE
    if not place.is_file():
        raise ConfigError(f"{directory}: no finished result here (no {RECORD_FILE}); name the --output_dir of a run")
    config = make_config(**read_config_file(place))
    record = json.loads(place.read_text(encoding="utf-8"))
    if record.get("format") != FORMAT:
        raise ConfigError(
            f"{directory}: the result is of format {record.get('format', 'none')}, this version of stratalens reads "
            f"format {FORMAT}; run the analysis again, or use the version that made it ({record.get('stratalens')})"
        )
    try:
        features = pd.read_parquet(directory / FEATURES_FILE)
        layers = [int(layer) for layer in record["layers"]]
        latents = {layer: _internal(directory / f"layer_{layer}" / LATENTS_FILE, config.domain) for layer in layers}
        facts = {layer: LayerFacts(**record["layers"][str(layer)]) for layer in layers}
        keys = record["harvest"]["keys"]
        harvest = {layer: HarvestFile(directory / harvest_path(layer), str(keys[str(layer)])) for layer in layers}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{directory}: the result is incomplete or of another version ({' '.join(str(error).split())[:160]}); "
            "run the analysis again"
        ) from None
    top = {layer: features[features["layer"] == layer].drop(columns="layer").reset_index(drop=True) for layer in layers}
    return SavedResult(directory, config, record, Findings(top, latents, facts), harvest)


def _internal(path: Path, domain: str) -> pd.DataFrame:
    """A published table in the column names of the ranking, where the domain is called `domain`."""
    table = pd.read_parquet(path).drop(columns="layer")
    return table.rename(columns={published_name(name, domain): name for name in DOMAIN_COLUMNS})
