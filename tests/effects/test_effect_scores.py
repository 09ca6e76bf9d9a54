"""Effects in the table of reported features: kept by feature and by text, and refused where no run writes them."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_effects import feature_effect

from stratalens.effects.effect_scores import (
    MAX_EFFECT_TEXTS,
    OWN_TEXT,
    FeatureTextEffect,
    add_effects,
    effect_entries,
    effects_of,
    effects_on,
    keep_effects,
    with_effects,
)
from stratalens.effects.feature_effects import EFFECT_VERDICTS
from stratalens.hookpoint import Hookpoint

PLACE = Hookpoint(2)
TOP = {PLACE: pd.DataFrame({"feature_number": [7, 3, 5, 9]})}
OWN = {verdict: feature_effect(verdict, 0.004) for verdict in EFFECT_VERDICTS}


def cells(table: pd.DataFrame, name: str) -> list:
    return [None if pd.isna(value) else value for value in table[name]]


def test_verdict_and_claim_are_those_of_the_runs_own_text():
    numbers = dict(zip(TOP[PLACE]["feature_number"], OWN.values(), strict=True))
    there = add_effects(TOP, "newswire", {PLACE: {7: OWN["undecided"]}})
    assert cells(there[PLACE], "effect") == cells(there[PLACE], "causal") == [None] * 4
    both = add_effects(there, OWN_TEXT, {PLACE: numbers})
    assert cells(both[PLACE], "effect") == list(EFFECT_VERDICTS)
    assert cells(both[PLACE], "causal") == [True, False, False, False]
    assert effects_on(OWN_TEXT, {PLACE: effects_of(both[PLACE])}) == {PLACE: numbers}
    assert effects_on("newswire", {PLACE: effects_of(both[PLACE])}) == {PLACE: {7: OWN["undecided"]}}


def test_a_second_measurement_takes_the_place_of_the_first_of_its_name_alone():
    first = add_effects(TOP, OWN_TEXT, {PLACE: {7: OWN["undecided"], 3: OWN["undecided"]}})
    first = add_effects(first, "other", {PLACE: {7: OWN["moves everything"]}})
    second = add_effects(first, OWN_TEXT, {PLACE: {7: OWN["moves the domain"]}})
    assert cells(second[PLACE], "effect") == ["moves the domain", None, None, None]
    assert effects_on("other", {PLACE: effects_of(second[PLACE])}) == {PLACE: {7: OWN["moves everything"]}}


def test_another_table_keeps_the_effects_and_attributions_of_its_features_and_marks_new_ones():
    before = add_effects(TOP, OWN_TEXT, {PLACE: {7: OWN["moves the domain"]}})
    before = {PLACE: before[PLACE].assign(attribution=[0.1, 0.2, 0.3, 0.4])}
    kept = keep_effects({PLACE: pd.DataFrame({"feature_number": [5, 8, 7]})}, before)[PLACE]
    assert cells(kept, "effect") == [None, None, "moves the domain"]
    assert cells(kept, "attribution") == [0.3, None, 0.1]
    assert effects_of(kept) == {5: [], 8: [], 7: [FeatureTextEffect(OWN_TEXT, OWN["moves the domain"])]}


def test_tables_that_never_had_effects_stay_as_they_are():
    assert keep_effects(TOP, TOP)[PLACE] is TOP[PLACE]
    assert effects_of(TOP[PLACE]) == {}


def test_features_that_were_not_removed_have_empty_columns():
    table = with_effects(TOP, {})[PLACE]
    assert cells(table, "effect") == cells(table, "causal") == [None] * 4
    assert table["effect_scores"].tolist() == ["[]"] * 4
    assert keep_effects(TOP, {PLACE: table})[PLACE]["effect_scores"].tolist() == ["[]"] * 4
    assert "attribution" not in table


def cell(**changes: object) -> str:
    return json.dumps([{"name": "", "effect": OWN["undecided"]._asdict() | changes}])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "{}",
        "[" * 100_000,
        '[{"name": ""}]',
        json.dumps([{"name": "../x", "effect": OWN["undecided"]._asdict()}]),
        json.dumps([{"name": "a", "effect": OWN["undecided"]._asdict()}] * 2),
        json.dumps([{"name": f"a{n}", "effect": OWN["undecided"]._asdict()} for n in range(MAX_EFFECT_TEXTS + 1)]),
        cell(verdict="sure"),
        cell(q_value=1.1),
        cell(domain_effect_low=1),
        cell(domain_effect=float("nan")),
        cell(domain_effect=float("inf")),
        cell(excess=1e10),
        cell(domain_documents_fired=-1),
        cell(general_norm=-0.1),
        cell(unknown=1),
    ],
    ids=range(17),
)
def test_what_no_run_writes_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  # pydantic's messages differ
        effect_entries(text)


@given(
    st.text()
    | st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        json.dumps
    )
)
def test_any_text_is_read_or_refused(text):
    try:
        entries = effect_entries(text)
    except ValueError:
        return
    assert effect_entries(json.dumps([{"name": e.name, "effect": e.effect._asdict()} for e in entries])) == entries


def test_columns_survive_a_file(tmp_path):
    table = with_effects(TOP, {PLACE: {7: [FeatureTextEffect("a", OWN["undecided"])]}})[PLACE]
    table.to_parquet(tmp_path / "x.parquet", index=False)
    assert effects_of(pd.read_parquet(tmp_path / "x.parquet")) == effects_of(table)
