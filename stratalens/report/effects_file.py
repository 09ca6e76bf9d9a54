"""The tables of effects: of layers, of ablated features and of tasks."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from stratalens.effects.effect_scores import effects_on
from stratalens.effects.feature_effects import FeatureEffect
from stratalens.effects.layer_effects import LayerEffect, excess_columns
from stratalens.hookpoint import Hookpoint
from stratalens.report.effect_record import EffectRecord
from stratalens.report.formats import write_csv
from stratalens.report.tables import PLACE_COLUMNS, Tables, places

CONTROLS = ("random", "matched")


def write_effect_tables(tables: Tables, effects: Sequence[EffectRecord], directory: Path) -> None:
    """Write the tables of layers, of ablated features and, where there are any, of tasks: a file for each text."""
    for record in effects:
        made = {"layer_effects": layer_table(record), "feature_effects": feature_table(tables, record.name)}
        if record.tasks:
            made["task_effects"] = task_table(record)
        for stem, table in made.items():
            write_csv(table, directory / record.file_name(stem, ".csv"), bom=tables.csv_bom)


def layer_table(record: EffectRecord) -> pd.DataFrame:
    """One row for each layer with confirmed features, in the order of the model; controls in columns of their own."""
    rows = [
        {"layer": place.block, "site": place.site_name, **_flat(effect)}
        for place, effect in sorted(record.layer_effects.items())
    ]
    return pd.DataFrame(rows, columns=["layer", "site", *_layer_columns()])


def _layer_columns() -> list[str]:
    divergences = [name for name in LayerEffect._fields if name.endswith("_kl")]
    names = [name for name in LayerEffect._fields if name not in (*CONTROLS, *divergences)]
    at = names.index("domain_norm")
    names[at:at] = divergences
    of_controls = [name for control in CONTROLS for name in excess_columns(control, None)]
    at = names.index("matched_domain_ratio")
    return [*names[:at], *of_controls, *names[at:]]


def _flat(effect: LayerEffect) -> dict[str, object]:
    row: dict[str, object] = effect._asdict()
    for control in CONTROLS:
        del row[control]
        row |= excess_columns(control, getattr(effect, control))
    return row


def feature_table(tables: Tables, name: str) -> pd.DataFrame:
    """One row for each feature that was ablated on a text, in the order of the result.

    Args:
        tables: of the result.
        name: of the text, empty for the run's own.
    """
    rows, effects = tables.consolidated, effects_on(name, tables.effects)
    keys = zip(map(Hookpoint.parse, places(rows)), rows["feature_number"].tolist(), strict=True)
    found = [effects[place].get(number) for place, number in keys]
    ablated = [effect is not None for effect in found]
    lead = rows.loc[ablated, ["feature_number", *PLACE_COLUMNS, "rank", "label"]].reset_index(drop=True)
    own = pd.DataFrame([effect for effect in found if effect is not None], columns=list(FeatureEffect._fields))
    return pd.concat([lead, own.rename(columns={"verdict": "effect"})], axis=1)


def task_table(record: EffectRecord) -> pd.DataFrame:
    """One row for each layer and kind of task."""
    rows = [
        {"layer": Hookpoint.parse(place).block, "site": Hookpoint.parse(place).site_name, **row}
        for place, own in record.tasks.items()
        for row in own
    ]
    return pd.DataFrame(rows)
