"""Effects in a result: their files, what commands keep of them, what is said of them, and damage that is refused."""

import dataclasses
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from finished_result import contents, feature_file, other_texts, refused
from made_effects import MadeTaskEffect, feature_effect, layer_effect, made_effects, publish_made
from matplotlib.image import imread

from stratalens.cli.main import main
from stratalens.effects.effect_scores import MAX_EFFECT_TEXTS, FeatureTextEffect
from stratalens.effects.feature_effects import EFFECT_VERDICTS, FeatureEffect
from stratalens.effects.layer_effects import LayerEffect
from stratalens.errors import ConfigError
from stratalens.files.result_names import ANY_RESULT_NAME
from stratalens.hookpoint import Hookpoint
from stratalens.report import load_result
from stratalens.report.effect_record import EffectRecord, plain_fields
from stratalens.report.effect_sentences import (
    LAYER_VERDICT_MEANINGS,
    VERDICT_MEANINGS,
    best_layers_sentence,
    effect_lines,
    headline,
    in_nats,
    plain_numbers,
)
from stratalens.report.effects_file import layer_table
from stratalens.report.figures.drawing import paper_style
from stratalens.report.figures.effects import write_effects_figure
from stratalens.report.formats import json_value
from stratalens.report.publish_effects import effect_record, with_effect_record

pytestmark = pytest.mark.usefixtures("own_environment")
FILES = ("layer_effects.csv", "feature_effects.csv", *(f"layer_{n}/latent_attributions.parquet" for n in (0, 2)))
OTHER = ("layer_effects_newswire.csv", "feature_effects_newswire.csv")


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory) -> Path:
    """A result with effects on its own text and on another; tests must not change it."""
    directory = Path(shutil.copytree(finished, tmp_path_factory.mktemp("effects") / "out"))
    publish_made(directory)
    publish_made(directory, made_effects(load_result(directory), (0.001, 0.02), name="newswire", ablated=2))
    return directory


@pytest.fixture
def with_both(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "out"))


def table(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "features.parquet").set_index(["layer", "feature_number"])


def plain(layers: Mapping[Hookpoint, LayerEffect]) -> object:
    """Effects of layers to as many digits as are stored."""
    return json_value({place: plain_fields(effect) for place, effect in layers.items()})


def effects(directory: Path) -> dict:
    return table(directory)["effect_scores"].map(json.loads).to_dict()


def test_every_number_is_in_the_files_and_reads_back(published):
    result = load_result(published)
    measured = made_effects(result)
    own, other = result.record.effects
    assert (own.name, other.name) == ("", "newswire")
    assert plain(own.layer_effects) == plain(measured.layers)
    assert own.removed == {str(place): list(numbers) for place, numbers in measured.facts.removed.items() if numbers}
    assert {place: {n: e[0].effect for n, e in o.items() if e} for place, o in result.tables.effects.items()} == (
        measured.features
    )
    for name in (*FILES, *OTHER):
        assert name in result.record.files
        assert ANY_RESULT_NAME.fullmatch(name)
        assert (published / name).is_file()
    for place, attributions in measured.attributions.items():
        stored = pd.read_parquet(published / f"layer_{place}" / "latent_attributions.parquet")
        pd.testing.assert_frame_equal(stored.drop(columns=["layer", "site"]), attributions)
    known = {
        (place.block, number): value
        for place, own in measured.attributions.items()
        for number, value in zip(own["feature_number"], own["attribution_difference"], strict=True)
    }
    assert table(published)["attribution"].to_dict() == {key: known[key] for key in table(published).index}


def test_the_table_of_layers_has_every_number_with_the_controls_in_columns_of_their_own(published):
    rows = pd.read_csv(published / "layer_effects.csv")
    names = [name for name in LayerEffect._fields if name not in ("random", "matched")]
    assert set(names) <= set(rows)
    assert rows["layer"].tolist() == [0, 2]
    for place, effect in made_effects(load_result(published)).layers.items():
        row = rows[rows["layer"] == place.block].iloc[0]
        for name in names:
            expected = getattr(effect, name)
            assert row[name] == (pytest.approx(expected, rel=1e-6) if isinstance(expected, float) else expected), name
        for kind in ("random", "matched"):
            excess = getattr(effect, kind)
            assert row[f"{kind}_excess"] == pytest.approx(excess.value, rel=1e-6)
            assert (row[f"{kind}_rank"], row[f"{kind}_controls"]) == (excess.rank, excess.controls)


def test_the_table_of_features_is_in_the_order_of_the_result(published):
    rows = pd.read_csv(published / "feature_effects.csv")
    order = pd.read_csv(published / "consolidated_top_features_all_layers.csv")
    ablated = order[order["effect"].notna()]
    for name in ("layer", "feature_number", "rank", "label", "effect"):
        assert rows[name].tolist() == ablated[name].tolist(), name
    assert set(FeatureEffect._fields) - {"verdict"} <= set(rows)
    assert len(rows) == 8
    assert ablated["causal"].tolist() == [verdict == "moves the domain" for verdict in ablated["effect"]]
    assert order[order["effect"].isna()]["causal"].isna().all()
    assert sorted(pd.read_csv(published / OTHER[1])["effect"]) == ["moves everything"] * 2 + ["moves the domain"] * 2
    assert "effect_scores" not in order


def test_layers_and_the_summary_count_causal_features(published):
    layers = pd.read_csv(published / "layer_comparison_report.csv")
    assert layers["causal_features"].tolist() == [1, 1]
    summary = json.loads((published / "financial_feature_summary.json").read_text())
    assert summary["analysis_summary"]["claims"]["causal"] == {"passed": 2, "tested": 8}


@pytest.mark.parametrize("command", ["report", "rank", "label", "label --features"])
def test_a_command_keeps_them(with_both, tmp_path, command):
    before, kept = effects(with_both), {name: (with_both / name).read_bytes() for name in (*FILES, *OTHER)}
    name, *options = command.split()
    more = [*options, feature_file(tmp_path, table(with_both).index[0])] if options else []
    assert main([name, str(with_both), "--quiet", *more]) == 0
    assert effects(with_both) == before
    for file, content in kept.items():
        assert (with_both / file).read_bytes() == content, file
    assert set(kept) <= set(load_result(with_both).record.files)


def test_a_validation_keeps_them(with_both, tmp_path):
    before = effects(with_both)
    assert main(["validate", str(with_both), *other_texts(tmp_path), "--name", "there", "--quiet"]) == 0
    assert effects(with_both) == before
    assert set(FILES) <= set(load_result(with_both).record.files)


def test_another_ranking_marks_features_that_were_not_removed_and_layers_that_changed(with_both, capsys):
    assert main(["rank", str(with_both), "--top_n", "7", "--quiet"]) == 0
    rows = table(with_both)
    new = rows[rows["effect"].isna()]
    assert len(rows) == 14
    assert len(new) == 6
    assert new["causal"].isna().all()
    assert new["effect_scores"].tolist() == ["[]"] * 6
    assert len(pd.read_csv(with_both / "feature_effects.csv")) == 8
    layer, number = map(int, new.index[0])
    capsys.readouterr()
    assert main(["show", str(with_both), str(layer), str(number)]) == 0
    shown = capsys.readouterr().out
    assert "Effect: not removed by itself yet; stratalens effect RESULT_DIR" in shown
    assert "Test causal, without it the model loses more on the domain than on general text: not tested (strat" in shown


def test_layers_whose_confirmed_features_changed_are_named(with_both):
    result = load_result(with_both)
    page = with_both / "report.html"
    assert "have changed since they were removed" not in page.read_text()
    made = made_effects(result)
    others = dataclasses.replace(made.facts, removed={**made.facts.removed, Hookpoint(2): [99]})
    publish_made(with_both, dataclasses.replace(made, facts=others))
    assert "The confirmed features of layer 2 have changed since they were removed" in page.read_text()


def test_show_says_what_removing_a_feature_does_and_what_that_does_not_prove(published, capsys):
    row = pd.read_csv(published / "feature_effects.csv").iloc[0]
    assert main(["show", str(published), str(row["layer"]), str(row["feature_number"])]) == 0
    shown = capsys.readouterr().out
    effect = made_effects(load_result(published)).features[Hookpoint(int(row["layer"]))][int(row["feature_number"])]
    assert f"Effect: {effect.verdict}: {VERDICT_MEANINGS[effect.verdict]} (q 0.0031)" in shown
    assert "Without it the loss changes by 0.0061 nats a token (0.0055 to 0.0067) on financial text" in shown
    assert "Effect on newswire: " in shown
    assert "it does not show that nothing else does the same" in shown


def test_the_terminal_names_the_best_layer_and_counts_the_verdicts(with_both, capsys):
    capsys.readouterr()
    assert main(["rank", str(with_both)]) == 0
    printed = capsys.readouterr().out
    assert "Effects: The model needs layer " in printed
    assert "Of 8 features removed one by one: 2 move the domain, 2 move everything, " in printed
    assert "Of 4 features removed one by one on newswire: " in printed
    assert "Causal" in printed


def test_a_new_measurement_replaces_one_of_the_same_name(with_both):
    result = load_result(with_both)
    fewer = dataclasses.replace(made_effects(result), features={}, tasks={Hookpoint(2): [TASK._asdict()]})
    publish_made(with_both, fewer)
    again = load_result(with_both)
    assert [own.name for own in again.record.effects] == ["", "newswire"]
    assert again.record.effects[0].describe() == "No feature was removed by itself."
    assert table(with_both)["effect"].isna().all()
    assert all([entry["name"] for entry in own] in (["newswire"], []) for own in effects(with_both).values())
    rows = pd.read_csv(with_both / "task_effects.csv")
    assert rows.to_dict("records")[0] == {"layer": 2, "site": "resid", **TASK._asdict()}
    assert "task_effects.csv" in again.record.files


TASK = MadeTaskEffect("direction of a rate", 31, -0.41, -0.6, True)


def test_a_result_has_effects_on_so_many_texts_and_no_more(published):
    result = load_result(published)
    record, made = result.record, effect_record(made_effects(result))
    for number in range(MAX_EFFECT_TEXTS - 2):
        record = with_effect_record(record, made.model_copy(update={"name": f"text{number}"}))
    assert len(record.effects) == MAX_EFFECT_TEXTS
    assert len(with_effect_record(record, made).effects) == MAX_EFFECT_TEXTS
    with pytest.raises(ConfigError, match="the result has effects on 64 texts, and no more are kept"):
        with_effect_record(record, made.model_copy(update={"name": "one-more"}))


def changed(path: tuple, value: object):
    def damage(result: Path) -> None:
        content = json.loads((result / "run.json").read_text())
        inner = content["effects"]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (result / "run.json").write_text(json.dumps(content))

    return damage


def with_cell(column: str, value: object):
    def damage(result: Path) -> None:
        rows = pd.read_parquet(result / "features.parquet")
        rows[column] = value
        rows.to_parquet(result / "features.parquet", index=False)

    return damage


DAMAGED = {
    "effects on a text whose name is a path": (changed((0, "name"), "../x"), "run.json: damaged"),
    "effects on two texts of the same name": (changed((1, "name"), ""), "run.json: damaged"),
    "effects of layers that were not analysed": (
        lambda out: changed((0, "layers"), {"9": layer_effect(0.1)._asdict()})(out),
        "run.json: damaged",
    ),
    "effects with a number as text": (changed((0, "layers", "0", "domain_effect"), "much"), "run.json: damaged"),
    "effects with a huge number": (changed((0, "layers", "0", "domain_effect"), 1e300), "run.json: damaged"),
    "effects with an unknown verdict": (changed((0, "verdicts"), {"sure": 8}), "run.json: damaged"),
    "effects with more verdicts than features": (changed((0, "features"), 1), "run.json: damaged"),
    "effects with a file elsewhere": (changed((0, "attributed"), ["../../x"]), "run.json: damaged"),
    "effects with a task of lists": (changed((0, "tasks"), {"0": [{"kind": []}]}), "run.json: damaged"),
    "features whose effects are no list": (with_cell("effect_scores", "{}"), "the column effect_scores does not hold"),
    "features with an unknown verdict on their effect": (
        with_cell("effect", "sure"),
        "the column effect does not hold",
    ),
    "features whose attribution is a text": (with_cell("attribution", "high"), "the column attribution does not hold"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_effects_are_refused_with_the_name_of_the_file(with_both, documented, capsys, case):
    damage, message = DAMAGED[case]
    damage(with_both)
    before = contents(with_both)
    line = refused(capsys, "rank", str(with_both), "--quiet")
    assert message in line
    assert contents(with_both) == before
    documented("Finished results", case, line)


def test_a_result_of_an_earlier_version_has_none(finished):
    result = load_result(finished)
    assert result.record.effects == []
    assert result.tables.claims[3].tested == 0
    assert 'id="effects"' not in (finished / "report.html").read_text()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.0123, 0.006, 0.018), ["0.012", "0.006", "0.018"]),
        ((0.12, 0.0004, 0.2), ["0.1200", "0.0004", "0.2000"]),
        ((-0.0021, -0.00421, 0.0), ["−0.0021", "−0.0042", "0.0000"]),
        ((0.0, 0.0), ["0", "0"]),
        ((12.3, -0.001), ["12.30", "0.00"]),
        ((123.4,), ["123"]),
        ((1.2e-6,), ["0.0000012"]),
    ],
)
def test_numbers_have_as_many_decimals_as_they_need(values, shown):
    assert plain_numbers(*values) == shown


def test_numbers_have_their_unit_and_interval():
    assert in_nats(0.0123, 0.0061, 0.0184) == "0.012 nats a token (0.006 to 0.018)"


def test_every_verdict_has_a_meaning():
    assert set(VERDICT_MEANINGS) == set(EFFECT_VERDICTS)
    assert set(LAYER_VERDICT_MEANINGS) == {"the domain loses more", "no difference shown", "controls do not match"}


def record_of(published: Path, **layers: LayerEffect) -> EffectRecord:
    record = load_result(published).record.effects[0]
    return record.model_copy(update={"layers": {name.removeprefix("l"): own for name, own in layers.items()}})


def test_the_headline_names_the_layer_with_the_largest_difference_that_is_shown(published):
    unmatched = layer_effect(0.9)._replace(verdict="controls do not match")
    record = record_of(published, l2=layer_effect(0.01), l4=layer_effect(0.03, 1), l9=unmatched)
    told = headline(record, "legal")
    assert told.startswith("The model needs layer 4 most for legal text: without its one confirmed feature it loses 0.")
    assert best_layers_sentence(record, ["4", "2"]) == "Layer 4 is the best by effect and by specialization."
    other = best_layers_sentence(record, ["2", "4"])
    assert "by effect is 4, that by specialization is 2, whose difference is 0.010 nats a token" in other
    assert "that by specialization is 7, of which no feature is confirmed" in best_layers_sentence(record, ["7", "4"])
    none = record_of(published, l2=layer_effect(0.001))
    assert "Of 1 layer, none is shown to matter more" in headline(none, "legal")
    assert best_layers_sentence(none, ["2"]) == ""
    assert headline(record_of(published), "legal").startswith("No layer has confirmed features")
    assert layer_table(record_of(published)).empty


def test_hostile_text_reaches_the_page_as_text(with_both):
    result = load_result(with_both)
    nasty = "<img src=x onerror=alert(1)></script>"
    made = made_effects(result)
    facts = dataclasses.replace(made.facts, notes=[nasty], warnings=[nasty], dtype=nasty, device=nasty)
    task = MadeTaskEffect(nasty, 1, 0.1, None, False)
    publish_made(with_both, dataclasses.replace(made, facts=facts, tasks={Hookpoint(0): [task._asdict()]}))
    page = (with_both / "report.html").read_text()
    assert nasty not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 4


@pytest.mark.figures
@pytest.mark.parametrize("case", ["usual", "without controls", "all zero", "one layer", "on another text"])
def test_the_figure_is_the_same_bytes_for_the_same_effects(published, tmp_path, case):
    zero = layer_effect(0)._replace(random=None, matched=None)
    flat = zero._replace(
        **{name: 0.0 for name in LayerEffect._fields if re.match("(domain|general)_effect|diff", name)}
    )
    layers = {
        "usual": {"l0": layer_effect(0.02), "l28": layer_effect(-0.01)},
        "without controls": {"l0": zero, "l2": layer_effect(0.1)},
        "all zero": {"l0": flat},
        "one layer": {"l10_mlp": layer_effect(300.0)},
        "on another text": {"l0": layer_effect(0.02)},
    }[case]
    record = record_of(published, **layers)
    if case == "on another text":
        record = record.model_copy(update={"name": "newswire"})
    with paper_style():
        for name in ("a", "b"):
            write_effects_figure(record, "financial", tmp_path / name)
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert imread(tmp_path / "a.png").shape[1] == 2100


@pytest.mark.figures
def test_the_figures_of_all_texts_are_files_of_the_result(with_both):
    assert main(["report", str(with_both), "--quiet"]) == 0
    for name in ("layer_effects.png", "layer_effects_newswire.svg"):
        assert name in load_result(with_both).record.files
        assert ANY_RESULT_NAME.fullmatch(name)
        assert (with_both / name).stat().st_size > 1000


def test_a_feature_effect_of_every_verdict_can_be_told(published):
    records = load_result(published).record.effects
    for verdict in EFFECT_VERDICTS:
        lines = effect_lines([FeatureTextEffect("", feature_effect(verdict, 0.004))], records, "legal")
        assert lines[0].startswith(f"Effect: {verdict}: ")
        assert lines[-1] == "Effect on newswire: not removed by itself there"
