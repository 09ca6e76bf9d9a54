"""A finished result is ranked again from its harvest, without model and text, as a new analysis would rank it."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from finished_result import (
    analysed,
    contents,
    label,
    with_sources,
)
from refusal import with_options

from stratalens.cli.main import main
from stratalens.commands.rank import UNLABELLED

pytestmark = pytest.mark.usefixtures("own_environment")

LABELS = {"label", "label_source", "label_judge", "label_note", "control_auroc"}
TABLE = "consolidated_top_features_all_layers.csv"


@pytest.fixture
def without_sources(result, sources, arguments) -> Path:
    """A result whose model and text were deleted."""
    with_sources(result, sources, arguments)
    shutil.rmtree(sources)
    return result


def rank(result: Path, *more: str) -> int:
    return main(["rank", str(result), "--quiet", *more])


def measures(result: Path) -> pd.DataFrame:
    """The consolidated table without the columns about labels and evidence."""
    table = pd.read_csv(result / TABLE)
    columns = [
        name for name in table if name not in LABELS and not str(name).startswith(("detection", "fuzzing", "lexicon"))
    ]
    return table.loc[:, columns]


@pytest.mark.figures
def test_without_options_nothing_changes(without_sources):
    before = contents(without_sources)
    assert rank(without_sources) == 0
    after = contents(without_sources)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name] and name != "run.json"] == []


@pytest.mark.parametrize(
    "options",
    [
        ("--rank_by", "auroc"),
        ("--top_n", "3"),
        ("--top_n", "40", "--rank_by", "hedges_g"),
        ("--compare_layers_by", "raw"),
    ],
    ids=" ".join,
)
def test_the_tables_are_those_of_a_new_analysis(result, arguments, tmp_path, options):
    assert rank(result, *options) == 0
    given = {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
    fresh = analysed(with_options(arguments, given), tmp_path / "fresh")
    near = {"rtol": 1e-4, "atol": 1e-6}  # the run of the fixture had more threads
    pd.testing.assert_frame_equal(measures(result), measures(fresh), **near)
    reports = (pd.read_csv(one / "layer_comparison_report.csv") for one in (result, fresh))
    pd.testing.assert_frame_equal(*reports, **near)


def test_thresholds_of_the_file_of_the_best_features(without_sources):
    assert rank(without_sources, "--min_specialization", "0.9", "--top_features_n", "4") == 0
    best = pd.read_csv(without_sources / "top_4_financial_features.csv")
    everything = pd.read_csv(without_sources / TABLE)
    assert len(best) == min(4, int((everything["specialization"] >= 0.9).sum()))
    assert (best["specialization"] >= 0.9).all()
    assert not (without_sources / "top_50_financial_features.csv").exists()


def test_features_keep_their_labels_and_new_ones_are_labelled_from_what_the_harvest_kept(without_sources, capsys):
    before = reported_labels(without_sources)
    assert main(["rank", str(without_sources), "--top_n", "9"]) == 0
    assert "run `stratalens label" not in capsys.readouterr().err
    after = reported_labels(without_sources)
    assert after[before.index].equals(before)
    new = after.index.difference(before.index)
    assert len(new) == 8
    assert not (after == UNLABELLED).any()


def test_new_features_wait_for_label_where_the_harvest_kept_nothing(arguments, tmp_path, capsys):
    result = analysed(arguments, tmp_path / "out", "--keep_gb", "0")
    before = reported_labels(result)
    assert main(["rank", str(result), "--top_n", "9"]) == 0
    printed = capsys.readouterr().err
    after = reported_labels(result)
    new = after.index.difference(before.index)
    assert len(new) == 8
    assert f"new in the result: 8 features; run `stratalens label {result}` for labels" in printed.replace("\n", "")
    assert (after[new] == UNLABELLED).all()
    assert after[before.index].equals(before)
    assert label(result) == 0
    labelled = reported_labels(result)
    assert set(labelled.index) == set(after.index)
    assert not (labelled == UNLABELLED).any()
    assert labelled[before.index].equals(before)


def reported_labels(result: Path) -> pd.Series:
    """Layer and feature -> its label."""
    table = pd.read_parquet(result / "features.parquet")
    return pd.Series(table["label"].tolist(), pd.MultiIndex.from_frame(table[["layer", "feature_number"]]))


def test_a_result_of_another_version_is_refused_by_name(result, capsys, documented):
    record = json.loads((result / "run.json").read_text())
    for number in (0, 99):
        (result / "run.json").write_text(json.dumps(record | {"format": number, "stratalens": "9.9"}))
        before = contents(result)
        assert rank(result) == 2
        line = capsys.readouterr().err
        assert f"the result is of format {number}" in line
        assert "use the version that made it (9.9)" in line
        documented("Finished results", "a result of another version", line.replace(f"format {number},", "format 99,"))
        assert contents(result) == before
    del record["format"]
    (result / "run.json").write_text(json.dumps(record))
    assert main(["label", str(result)]) == 2
    assert "the result is of format none" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_damaged_harvest_is_refused_by_name_and_the_result_stays(result, capsys, damage, documented):
    path = result / "harvest" / "layer_2.state"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    before = contents(result)
    assert rank(result, "--top_n", "3") == 2
    line = capsys.readouterr().err
    assert "layer_2.state: missing, damaged or of another version; run the analysis again" in line
    documented("Finished results", "a harvest that is missing or damaged", line)
    assert contents(result) == before


def test_a_directory_without_a_result_is_refused(tmp_path, capsys):
    assert rank(tmp_path / "nothing") == 2
    assert "no finished result here" in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()
    shutil.rmtree(tmp_path)
