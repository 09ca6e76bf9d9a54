"""Write the tables of a result to their files, and the summary that is made from them."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from stratalens.hookpoint import Hookpoint
from stratalens.labels import FeatureReport
from stratalens.report.formats import records, write_csv, write_json
from stratalens.report.label_tables import detailed_labels, sentences
from stratalens.report.layer_rows import passed_count
from stratalens.report.tables import Tables


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
    if hookpoint in tables.opposed:
        write(tables.opposed[hookpoint], folder / opposed_file(settings))
    content = {"top_features": records(table), "feature_sentences": sentences(domain, reports)}
    write_json(content | {"config": first | dict(settings)}, folder / f"{stem}.json")
    write(table[["feature_number", "label", "site"]], folder / f"feature_labels_clean_{domain}.csv")
    write(detailed_labels(table, domain, reports), folder / f"feature_labels_detailed_{domain}.csv")
    tables.latents[hookpoint].to_parquet(folder / "all_features.parquet", index=False)


def layer_stem(settings: Mapping[str, object]) -> str:
    """Name, without suffix, of the files of the reported features of a layer."""
    return f"top_{settings['top_n']}_features_analysis"


def opposed_file(settings: Mapping[str, object]) -> str:
    """Name of the file of the opposed features of a layer."""
    return f"opposed_{settings['top_n']}_features.csv"


def summary(tables: Tables) -> dict[str, object]:
    """The content of `<domain>_feature_summary.json`, best layer and best feature first."""
    domain, rows = tables.domain, tables.consolidated
    layer_rows = records(tables.layers)
    best_layer, best = layer_rows[0] if layer_rows else {}, records(rows.head(1))
    feature_keys = ("feature_number", "layer", "specialization", f"{domain}_activation", "general_activation")
    layer_keys = ("avg_specialization", "max_specialization", "top_feature", "site", "avg_normalised_specialization")
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
                **{key: best_layer.get(key) for key in layer_keys},
            },
            "best_feature": {key: best[0][key] for key in (*feature_keys, *more_keys)} if best else None,
            "confirmed_features": passed_count(rows["confirmed"]),
            "claims": {own.claim.column: {"passed": own.passed, "tested": own.tested} for own in tables.claims},
        },
        f"top_{domain}_features": records(tables.best),
        "layer_performance": layer_rows,
    }
