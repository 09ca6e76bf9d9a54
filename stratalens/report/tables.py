"""The tables of a run: their columns, their order, and their files."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

SIGNIFICANT_DIGITS = 8
MEASURES = (
    "specialization_low",
    "specialization_high",
    "p_value",
    "q_value",
    "confirmed",
    "auroc",
    "auroc_low",
    "auroc_high",
    "normalised_specialization",
    "normalised_low",
    "normalised_high",
    "hedges_g",
    "domain_share",
    "domain_score",
    "log_ratio",
    "firing_rate_difference",
    "domain_firing_rate",
    "general_firing_rate",
    "domain_density",
    "general_density",
    "domain_max_activation",
    "general_max_activation",
    "decoder_norm",
    "discovery_specialization",
    "discovery_auroc",
    "flags",
)
"""Columns after the five that readers of the original reports rely on."""


class Example(NamedTuple):
    """A passage on which a feature is strong."""

    sentence: str
    activation: float
    """Maximum activation over the passage."""
    domain_side: bool
    peak_token: str


class LayerFacts(NamedTuple):
    """What the layer comparison says of a layer besides its features."""

    fvu: float
    mean_hookpoint_norm: float
    dropped_share: float
    """Share of countable positions dropped as sinks."""


@dataclass(frozen=True)
class Tables:
    """All tables of a run, in the names and order of their files."""

    domain: str
    features: dict[int, pd.DataFrame]
    """Layer -> reported features."""
    latents: dict[int, pd.DataFrame]
    """Layer -> every latent."""
    consolidated: pd.DataFrame
    layers: pd.DataFrame
    best: pd.DataFrame
    below_threshold: int
    """Reported features whose specialization is below the threshold of `best`."""


def build(
    domain: str,
    top: Mapping[int, pd.DataFrame],
    latents: Mapping[int, pd.DataFrame],
    facts: Mapping[int, LayerFacts],
    *,
    compare_by: str,
    min_specialization: float,
    top_features_n: int,
) -> Tables:
    """Arrange ranked features into the tables that are published."""
    features = {layer: _published(table, domain, ["rank"]) for layer, table in top.items()}
    everything = {
        layer: _published(table, domain, ["live", "selected"]).assign(layer=layer) for layer, table in latents.items()
    }
    comparable = "normalised_specialization" if compare_by == "normalised" else "specialization"
    rows = pd.concat([table.assign(layer=layer) for layer, table in features.items()], ignore_index=True)
    lead = [f"{domain}_activation", "general_activation", "specialization"]
    rows = rows[
        [
            "feature_number",
            *lead,
            "rank",
            "layer",
            *(c for c in rows if c not in ("feature_number", *lead, "rank", "layer")),
        ]
    ]
    consolidated = rows.sort_values(
        [comparable, "layer", "feature_number"], ascending=[False, True, True], ignore_index=True
    )
    passed = consolidated[consolidated["specialization"] >= min_specialization]
    layers = pd.DataFrame([_layer_row(layer, features[layer], everything[layer], facts[layer]) for layer in features])
    layers = layers.sort_values([f"avg_{comparable}", "layer"], ascending=[False, True], ignore_index=True)
    return Tables(
        domain=domain,
        features=features,
        latents=everything,
        consolidated=consolidated,
        layers=layers,
        best=passed.head(top_features_n).reset_index(drop=True),
        below_threshold=len(consolidated) - len(passed),
    )


def _published(table: pd.DataFrame, domain: str, extra: list[str]) -> pd.DataFrame:
    measures = [name for name in MEASURES if name in table]
    lead = ["feature_number", "domain_activation", "general_activation", "specialization"]
    labels = [name for name in ("label",) if name in table]
    chosen = table[[*lead, *extra, *measures, *labels]]
    kept = ("domain_share", "domain_score")
    return chosen.rename(
        columns={c: c.replace("domain_", f"{domain}_") for c in chosen if c.startswith("domain_") and c not in kept}
    )


def _layer_row(layer: int, features: pd.DataFrame, latents: pd.DataFrame, facts: LayerFacts) -> dict[str, object]:
    raw, normalised = features["specialization"], features["normalised_specialization"]
    live = latents[latents["live"]]
    best = raw.idxmax() if len(features) else None
    return {
        "layer": layer,
        "total_features": len(features),
        "avg_specialization": raw.mean(),
        "max_specialization": raw.max(),
        "min_specialization": raw.min(),
        "std_specialization": raw.std(ddof=0),
        "top_feature": features["feature_number"].iloc[best] if best is not None else None,
        "top_specialization": raw.max(),
        "avg_normalised_specialization": normalised.mean(),
        "max_normalised_specialization": normalised.max(),
        "confirmed_features": int(features["confirmed"].sum()) if features["confirmed"].notna().any() else None,
        "avg_auroc": features["auroc"].mean(),
        "live_latents": len(live),
        "avg_specialization_live_latents": live["specialization"].mean(),
        "avg_normalised_specialization_live_latents": live["normalised_specialization"].mean(),
        "fvu": facts.fvu,
        "mean_hookpoint_norm": facts.mean_hookpoint_norm,
        "dropped_positions_share": facts.dropped_share,
    }


def plain_number(value: float) -> str:
    """A plain decimal without exponent, to eight significant digits; empty where there is no finite number."""
    if not math.isfinite(value):
        return ""
    return np.format_float_positional(value, precision=SIGNIFICANT_DIGITS, unique=False, fractional=False, trim="-")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table as UTF-8 CSV with plain decimals; true and false in lower case, unknown values empty."""
    table = table.copy()
    for name, column in table.items():
        if pd.api.types.is_bool_dtype(column):
            table[name] = ["" if pd.isna(value) else str(bool(value)).lower() for value in column]
        elif pd.api.types.is_float_dtype(column):
            table[name] = [plain_number(value) for value in column]
    table.to_csv(path, index=False, lineterminator="\n")


def json_value(value: object) -> object:
    """The value as JSON can hold it: no NaN, no numpy types."""
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(plain_number(float(value))) if math.isfinite(value) else None
    return str(value)


def write_json(content: object, path: Path) -> None:
    """Write valid JSON, UTF-8, one value a line."""
    path.write_text(
        json.dumps(json_value(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
    )


def records(table: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table, as JSON holds them."""
    return [{str(k): json_value(v) for k, v in row.items()} for row in table.to_dict("records")]


def write(
    tables: Tables,
    directory: Path,
    *,
    top_n: int,
    top_features_n: int,
    examples: Mapping[int, Mapping[int, list[Example]]],
    settings: Mapping[str, object],
) -> None:
    """Write every table file of a run below `directory`."""
    domain = tables.domain
    for layer, table in tables.features.items():
        folder = directory / f"layer_{layer}"
        folder.mkdir()
        _write_layer(table, folder, domain, layer, top_n, examples[layer], settings)
        tables.latents[layer].to_parquet(folder / "all_features.parquet", index=False)
    write_csv(tables.consolidated, directory / "consolidated_top_features_all_layers.csv")
    write_csv(tables.layers, directory / "layer_comparison_report.csv")
    write_csv(tables.best, directory / f"top_{top_features_n}_{domain}_features.csv")
    write_json(summary(tables), directory / f"{domain}_feature_summary.json")


def _write_layer(
    table: pd.DataFrame,
    folder: Path,
    domain: str,
    layer: int,
    top_n: int,
    examples: Mapping[int, list[Example]],
    settings: Mapping[str, object],
) -> None:
    write_csv(table, folder / f"top_{top_n}_features_analysis.csv")
    sentences = {
        feature: [
            {
                "sentence": example.sentence,
                "activation": example.activation,
                "type": domain if example.domain_side else "general",
                "peak_token": example.peak_token,
            }
            for example in shown
        ]
        for feature, shown in examples.items()
    }
    config = {
        "base_model": settings["base_model"],
        "sae_model": settings["sae_model"],
        "top_n": top_n,
        "layer_idx": layer,
    }
    write_json(
        {"top_features": records(table), "feature_sentences": sentences, "config": config | dict(settings)},
        folder / f"top_{top_n}_features_analysis.json",
    )
    write_csv(table[["feature_number", "label"]], folder / f"feature_labels_clean_{domain}.csv")
    detailed = table[["feature_number", "label", f"{domain}_activation", "general_activation", "specialization"]].copy()
    for name, side in ((domain, True), ("general", False)):
        detailed[f"num_{name}_examples"] = [
            sum(example.domain_side == side for example in examples[feature]) for feature in table["feature_number"]
        ]
    write_csv(detailed, folder / f"feature_labels_detailed_{domain}.csv")


def summary(tables: Tables) -> dict[str, object]:
    """The summary that the brief names, best layer and best feature first."""
    domain, rows = tables.domain, tables.consolidated
    layer_rows = records(tables.layers)
    best_layer, best = layer_rows[0] if layer_rows else {}, records(rows.head(1))
    feature_keys = ("feature_number", "layer", "specialization", f"{domain}_activation", "general_activation")
    more_keys = (
        "specialization_low",
        "specialization_high",
        "normalised_specialization",
        "q_value",
        "confirmed",
        "label",
    )
    return {
        "analysis_summary": {
            "total_features_analyzed": len(rows),
            "total_layers_analyzed": len(tables.features),
            "layers_analyzed": list(tables.features),
            "average_specialization": rows["specialization"].mean(),
            "max_specialization": rows["specialization"].max(),
            "best_layer": {
                "layer_number": best_layer.get("layer"),
                **{
                    key: best_layer.get(key)
                    for key in (
                        "avg_specialization",
                        "max_specialization",
                        "top_feature",
                        "avg_normalised_specialization",
                    )
                },
            },
            "best_feature": {key: best[0][key] for key in (*feature_keys, *more_keys)} if best else None,
            "confirmed_features": int(rows["confirmed"].sum()) if rows["confirmed"].notna().any() else None,
        },
        f"top_{domain}_features": records(tables.best),
        "layer_performance": layer_rows,
    }
