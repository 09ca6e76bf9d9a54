"""The tables of a run: their columns, their order, and their files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureReport
from stratalens.ranking.by_part import TextParts, text_parts
from stratalens.ranking.layer_facts import LayerFacts
from stratalens.report.formats import records, write_csv, write_json
from stratalens.report.label_tables import LABEL_COLUMNS, detailed_labels, sentences
from stratalens.report.layer_rows import layer_row, passed_counts
from stratalens.validation.transfer import TransferScore, validations_of

MEASURES = (
    "specialization_low",
    "specialization_high",
    "p_value",
    "q_value",
    "confirmed",
    "transfers",
    "auroc",
    "auroc_low",
    "auroc_high",
    "pooled_auroc",
    "transfer",
    "transfer_rank",
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
"""Columns of measures, in this order after the columns that identify a feature."""
PLACE_COLUMNS = ("layer", "site")
"""Columns that name a hookpoint: the number of its block and one of `SITE_NAMES`."""
DOMAIN_COLUMNS = ("domain_activation", "domain_firing_rate", "domain_density", "domain_max_activation")
"""Columns whose names in the files begin with the name of the domain."""


@dataclass(frozen=True)
class Tables:
    """All tables of a run, in the names and order of their files."""

    domain: str
    features: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> reported features."""
    latents: dict[Hookpoint, pd.DataFrame]
    """Hookpoint -> every latent."""
    consolidated: pd.DataFrame
    """Reported features of all layers, best first."""
    layers: pd.DataFrame
    """One row per layer, best first."""
    best: pd.DataFrame
    """The first rows of `consolidated` that reach `min_specialization`."""
    below_threshold: int
    """Number of reported features whose specialization is below `min_specialization`."""
    csv_bom: bool
    """Whether CSV files begin with a byte order mark."""
    parts: dict[Hookpoint, dict[int, TextParts]]
    """Hookpoint -> reported feature -> its AUROCs by kind and by source; empty in results of earlier versions."""
    validations: dict[Hookpoint, dict[int, list[TransferScore]]]
    """Hookpoint -> reported feature -> its scores on other texts."""

    @property
    def validation_names(self) -> list[str]:
        """Names of the validations that tested a reported feature."""
        own = [score.name for table in self.validations.values() for scores in table.values() for score in scores]
        return list(dict.fromkeys(own))


def build_tables(
    config: RunConfig,
    top: Mapping[Hookpoint, pd.DataFrame],
    latents: Mapping[Hookpoint, pd.DataFrame],
    facts: Mapping[Hookpoint, LayerFacts],
) -> Tables:
    """Arrange ranked features into the tables of the result.

    Args:
        config: the name of the domain, how layers are compared, the limits of the table of best features, and how CSV
            files begin.
        top: hookpoint -> reported features, in the columns of the ranking.
        latents: hookpoint -> every latent, in the same columns.
        facts: hookpoint -> what the layer comparison shows besides the features.
    """
    domain = config.domain
    features = {
        hookpoint: _published_table(table.assign(site=hookpoint.site_name), domain, ["rank", "site"])
        for hookpoint, table in top.items()
    }
    all_latents = {
        hookpoint: with_place(_published_table(table, domain, ["live", "selected"]), hookpoint)
        for hookpoint, table in latents.items()
    }
    sort_column = "normalised_specialization" if config.compare_layers_by == "normalised" else "specialization"
    consolidated = _consolidated(features, domain, sort_column)
    above_threshold = consolidated[consolidated["specialization"] >= config.min_specialization]
    validations = {hookpoint: validations_of(table) for hookpoint, table in top.items()}
    layers = pd.DataFrame(
        [layer_row(hookpoint, features[hookpoint], all_latents[hookpoint], facts[hookpoint]) for hookpoint in features]
    ).assign(transferring_features=passed_counts(validations))
    layers = layers.sort_values(
        [f"avg_{sort_column}", *PLACE_COLUMNS], ascending=[False, True, True], ignore_index=True
    )
    return Tables(
        domain=domain,
        features=features,
        latents=all_latents,
        consolidated=consolidated,
        layers=layers,
        best=above_threshold.head(config.top_features_n).reset_index(drop=True),
        below_threshold=len(consolidated) - len(above_threshold),
        csv_bom=config.csv_bom,
        parts={hookpoint: text_parts(table) for hookpoint, table in top.items()},
        validations=validations,
    )


def _consolidated(features: Mapping[Hookpoint, pd.DataFrame], domain: str, sort_column: str) -> pd.DataFrame:
    """The reported features of all layers, best first by a measure that can be compared between layers."""
    rows = pd.concat([with_place(table, hookpoint) for hookpoint, table in features.items()], ignore_index=True)
    lead = ["feature_number", f"{domain}_activation", "general_activation", "specialization", "rank", *PLACE_COLUMNS]
    rows = rows[[*lead, *(name for name in rows if name not in lead)]]
    order = [sort_column, "layer", "feature_number", "site"]
    return rows.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def with_place(table: pd.DataFrame, hookpoint: Hookpoint) -> pd.DataFrame:
    """A table with the columns that name the hookpoint of all its rows."""
    return table.assign(layer=hookpoint.block, site=hookpoint.site_name)


def places(table: pd.DataFrame) -> list[str]:
    """Name of the hookpoint of each row, such as `28` or `28_mlp`; results of older versions have no column `site`.

    Raises:
        ValueError: a row has no hookpoint.
    """
    sites = table["site"] if "site" in table else ["resid"] * len(table)
    return [str(Hookpoint.at(int(layer), site)) for layer, site in zip(table["layer"], sites, strict=True)]


def norm_owner(hookpoints: Iterable[Hookpoint]) -> str:
    """What shares of a norm are of: the `residual stream`, or the `hookpoint` where one is at another site."""
    return "residual stream" if all(hookpoint.site == "resid" for hookpoint in hookpoints) else "hookpoint"


def _published_table(table: pd.DataFrame, domain: str, extra: list[str]) -> pd.DataFrame:
    """The columns of a ranking that are published, in their order and under their names in the files."""
    measures = [name for name in MEASURES if name in table]
    lead = ["feature_number", "domain_activation", "general_activation", "specialization"]
    labels = [name for name in LABEL_COLUMNS if name in table]
    chosen = table[[*lead, *extra, *measures, *labels]]
    return chosen.rename(columns={name: published_name(name, domain) for name in chosen})


def published_name(column: str, domain: str) -> str:
    """The name in the files of a column of the ranking: measures of the domain side carry the domain's name."""
    return column.replace("domain_", f"{domain}_") if column in DOMAIN_COLUMNS else column


def write_tables(
    tables: Tables,
    reports: Mapping[Hookpoint, Sequence[FeatureReport]],
    settings: Mapping[str, object],
    directory: Path,
) -> None:
    """Write every table file of a run below `directory`.

    Args:
        tables: the tables of the run.
        reports: hookpoint -> its reported features.
        settings: all that is needed to repeat the run; `top_n` and `top_features_n` are part of file names.
        directory: an existing directory.
    """
    for hookpoint in tables.features:
        folder = directory / f"layer_{hookpoint}"
        folder.mkdir(exist_ok=True)
        _write_layer(tables, hookpoint, reports[hookpoint], settings, folder)
    write_comparison(tables, settings, directory)


def write_comparison(tables: Tables, settings: Mapping[str, object], directory: Path) -> None:
    """Write the table files about all layers together; the arguments are those of `write_tables`."""
    domain, write = tables.domain, partial(write_csv, bom=tables.csv_bom)
    write(tables.consolidated, directory / "consolidated_top_features_all_layers.csv")
    write(tables.layers, directory / "layer_comparison_report.csv")
    write(tables.best, directory / f"top_{settings['top_features_n']}_{domain}_features.csv")
    write_json(summary(tables), directory / f"{domain}_feature_summary.json")


def _write_layer(
    tables: Tables,
    hookpoint: Hookpoint,
    reports: Sequence[FeatureReport],
    settings: Mapping[str, object],
    folder: Path,
) -> None:
    table, domain, stem = tables.features[hookpoint], tables.domain, layer_stem(settings)
    write = partial(write_csv, bom=tables.csv_bom)
    first = {name: settings[name] for name in ("base_model", "sae_model", "top_n")} | {"layer_idx": hookpoint.block}
    write(table, folder / f"{stem}.csv")
    content = {"top_features": records(table), "feature_sentences": sentences(domain, reports)}
    write_json(content | {"config": first | dict(settings)}, folder / f"{stem}.json")
    write(table[["feature_number", "label", "site"]], folder / f"feature_labels_clean_{domain}.csv")
    write(detailed_labels(table, domain, reports), folder / f"feature_labels_detailed_{domain}.csv")
    tables.latents[hookpoint].to_parquet(folder / "all_features.parquet", index=False)


def layer_stem(settings: Mapping[str, object]) -> str:
    """Name, without suffix, of the files of the reported features of a layer."""
    return f"top_{settings['top_n']}_features_analysis"


def summary(tables: Tables) -> dict[str, object]:
    """The content of `<domain>_feature_summary.json`, best layer and best feature first."""
    domain, rows = tables.domain, tables.consolidated
    layer_rows = records(tables.layers)
    best_layer, best = layer_rows[0] if layer_rows else {}, records(rows.head(1))
    feature_keys = ("feature_number", "layer", "specialization", f"{domain}_activation", "general_activation")
    more_keys = (
        "site",
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
            "total_layers_analyzed": len({hookpoint.block for hookpoint in tables.features}),
            "layers_analyzed": list(dict.fromkeys(hookpoint.block for hookpoint in tables.features)),
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
                        "site",
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
