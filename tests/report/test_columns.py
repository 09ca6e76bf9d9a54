"""A stored table holds in each column what a run writes there, or is refused by every command in one line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from finished_result import contents, refused

from stratalens.cli.main import main
from stratalens.errors import ConfigError
from stratalens.files.damaged import read_table
from stratalens.hookpoint import Hookpoint
from stratalens.ranking.rank import reported_features
from stratalens.report.columns import (
    COLUMNS_OF_FEATURES,
    COLUMNS_OF_LATENTS,
    OF_DEAD_LATENTS,
    require_columns,
    require_measured,
)
from stratalens.report.saved import load_result
from stratalens.report.tables import DOMAIN_COLUMNS, published_name

pytestmark = pytest.mark.usefixtures("own_environment")
FEATURES, LATENTS = "features.parquet", "layer_0/all_features.parquet"
COLUMNS = {FEATURES: COLUMNS_OF_FEATURES, LATENTS: COLUMNS_OF_LATENTS}
HOSTILE = {
    "infinity": np.inf,
    "minus infinity in one row": "one row",
    "a number whose sums are infinite": 1.7e308,
    "a number that is almost 0": 5e-324,
    "nothing": None,
    "a number": 7.5,
    "a text": "x",
    "bytes": b"\xff",
    "lists": ["a"],
    "a date": pd.Timestamp("2020-01-01"),
}
TEXTS = ("flags", "label", "label_source", "label_judge", "label_note")
MAY_BE_MISSING = set(COLUMNS_OF_FEATURES) - {*OF_DEAD_LATENTS, "feature_number", "layer", "rank", *TEXTS[:3]}
MAY_BE_MISSING -= {"confirmed", "detection_examples", "fuzzing_examples"}


def stored(path: Path, name: str) -> pd.DataFrame:
    """A table of a result with the names of the ranking."""
    return read_table(path / name).rename(columns={published_name(own, "financial"): own for own in DOMAIN_COLUMNS})


def hostile(table: pd.DataFrame, column: str, case: str) -> pd.DataFrame:
    value = HOSTILE[case]
    if value == "one row":
        return table.assign(**{column: [-np.inf, *table[column][1:]]})
    return table.assign(**{column: pd.Series([value] * len(table))})


def is_as_a_run_writes_it(column: str, case: str) -> bool:
    if case == "nothing":
        return column in MAY_BE_MISSING and column not in COLUMNS_OF_LATENTS
    if case == "a text":
        return column in TEXTS
    if case == "a number":
        return column not in (*TEXTS, "selected", "live", "confirmed", "p_value", "q_value") and not column.endswith(
            ("_examples", "rank", "layer", "feature_number")
        )
    if case == "a number that is almost 0":
        return column in ("hedges_g", "p_value", "q_value")
    return column == "hedges_g" and "infini" in case


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_run_does_not_write_is_refused_in_every_column(finished, name, case):
    table = stored(finished, name)
    for column in COLUMNS[name]:
        changed = hostile(table, column, case)
        if is_as_a_run_writes_it(column, case):
            require_columns(Path(name), changed, COLUMNS[name])
            continue
        with pytest.raises(ConfigError, match=f"the column {column} does not hold"):
            require_columns(Path(name), changed, COLUMNS[name])


def test_all_columns_of_the_tables_of_a_run_are_known(finished, finished_without_examples):
    for result in (finished, finished_without_examples):
        for name, columns in COLUMNS.items():
            table = stored(result, name)
            assert set(columns) <= set(table)
            require_columns(result / name, table, columns)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_occurs_twice_is_refused(finished, name):
    table = stored(finished, name)
    with pytest.raises(ConfigError, match="two columns of the same name"):
        require_columns(Path(name), pd.concat([table, table[["auroc"]]], axis=1), COLUMNS[name])


def test_texts_that_are_not_utf_8_are_refused(result):
    table = pyarrow.parquet.read_table(result / FEATURES)
    labels = pa.Array.from_buffers(pa.string(), len(table), pa.array([b"\xff\xfe"] * len(table)).buffers())
    pyarrow.parquet.write_table(table.set_column(table.column_names.index("label"), "label", labels), result / FEATURES)
    with pytest.raises(ConfigError, match=r"features.parquet: damaged, missing or of another version .*UTF"):
        load_result(result)


def test_only_a_dead_latent_lacks_measures(finished):
    table = stored(finished, LATENTS)
    for column in ("auroc", "p_value", "specialization_low", "log_ratio"):
        lacking = table.assign(**{column: [np.nan, *table[column][1:]]})
        with pytest.raises(ConfigError, match=f"the column {column} holds nothing for a latent that fires"):
            require_measured(Path(LATENTS), lacking)
        require_measured(Path(LATENTS), lacking.assign(live=[False, *table["live"][1:]]))


def test_without_a_split_nothing_is_confirmed_and_that_is_no_damage(finished):
    table = stored(finished, FEATURES)
    undecided = table.assign(confirmed=pd.array([pd.NA] * len(table), dtype="boolean"))
    require_columns(Path(FEATURES), undecided, COLUMNS_OF_FEATURES)


COMMANDS = ["report", "rank", "label", "show"]


def words_of(command: str, result: Path) -> list[str]:
    layer, feature = pd.read_parquet(result / FEATURES)[["layer", "feature_number"]].iloc[0]
    more = {"show": [str(layer), str(feature)], "rank": ["--rank_by", "hedges_g", "--top_n", "3"]}
    return [command, str(result), *more.get(command, [])]


def edited(path: Path, **columns: object) -> None:
    pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_such_a_table_in_one_line_and_changes_nothing(result, capsys, command):
    words = words_of(command, result)
    for name, columns in {
        FEATURES: {"auroc_low": np.inf, "confirmed": "x", "label": 7, "detection_auroc": "high", "flags": None},
        LATENTS: {"p_value": 2.0, "specialization_low": -np.inf, "live": "x", "selected": None, "decoder_norm": None},
    }.items():
        sound = (result / name).read_bytes()
        for column, value in columns.items():
            edited(result / name, **{column: value})
            before = contents(result)
            assert f"{name}: damaged, missing or of another version (the column {column} " in refused(capsys, *words)
            assert contents(result) == before
            (result / name).write_bytes(sound)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_reads_the_strangest_tables_that_a_run_may_write(result, capsys, command):
    nothing = dict.fromkeys(("p_value", "q_value", "auroc", "auroc_low", "domain_share", "log_ratio"), np.nan)
    texts = {"label": "[bold]\x1b[2J$\\frac{", "label_note": None, "label_judge": "x" * 9999, "flags": "dead; ; x"}
    edited(result / FEATURES, hedges_g=np.inf, discovery_auroc=np.nan, detection_auroc=None, **nothing, **texts)
    edited(result / LATENTS, hedges_g=-np.inf, decoder_norm=0.0)
    words = words_of(command, result)
    if command == "label":
        (result.parent / "list.txt").write_text("0 1\n2 1\n")
        words += ["--features", str(result.parent / "list.txt")]
    assert main(words) == 0, capsys.readouterr().err
    assert "\x1b" not in capsys.readouterr().out


def test_a_dead_latent_that_is_listed_gets_no_q_value_and_changes_none(finished):
    latents, first = load_result(finished).findings.latents, Hookpoint(0)
    listed = {layer: [0, 1, 2] for layer in latents}
    without = reported_features(latents, {**listed, first: [1, 2]}, rank_by="auroc", split=True)
    table = latents[first]
    dead = {name: np.nan for name in ("p_value", "auroc", "auroc_low", "auroc_high", "hedges_g")}
    latents = {**latents, first: table.assign(**{name: table[name].where(table.index > 0) for name in dead})}
    with_dead = reported_features(latents, listed, rank_by="auroc", split=True)
    q_values = with_dead[first].set_index("feature_number")["q_value"]
    assert np.isnan(q_values[0])
    assert q_values.drop(0).to_dict() == without[first].set_index("feature_number")["q_value"].to_dict()
    assert not with_dead[first].set_index("feature_number")["confirmed"][0]
