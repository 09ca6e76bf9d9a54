"""The command line on the real embedded default: every file, every promised column, numbers that agree."""

import csv
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import stratalens
from stratalens.cli import main

LAYERS = (4, 10, 16, 22, 28)
ROW = ["feature_number", "financial_activation", "general_activation", "specialization", "rank"]
MORE = [
    *(
        "specialization_low",
        "specialization_high",
        "p_value",
        "q_value",
        "confirmed",
        "auroc",
        "auroc_low",
        "auroc_high",
    ),
    *("normalised_specialization", "hedges_g", "domain_share", "domain_score", "financial_density", "general_density"),
    *("discovery_specialization", "flags", "label"),
]


def read_json(path: Path):
    def refuse(constant: str):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("layer", LAYERS)
def test_layer_files_carry_the_promised_columns(embedded_run, layer):
    folder = embedded_run / f"layer_{layer}"
    table = pd.read_csv(folder / "top_30_features_analysis.csv")
    assert list(table.columns[:5]) == ROW
    assert set(MORE) <= set(table.columns)
    assert list(table["rank"]) == list(range(1, 31))
    assert table["specialization"].is_monotonic_decreasing
    assert np.allclose(table["financial_activation"] - table["general_activation"], table["specialization"], atol=1e-6)
    assert (table["specialization_low"] < table["specialization"]).all()
    assert (table["specialization"] < table["specialization_high"]).all()
    assert table["q_value"].between(0, 1).all()
    content = read_json(folder / "top_30_features_analysis.json")
    assert [row["feature_number"] for row in content["top_features"]] == list(table["feature_number"])
    assert {"base_model", "sae_model", "top_n", "layer_idx"} <= set(content["config"])
    assert set(content["feature_sentences"]) == {str(number) for number in table["feature_number"]}
    shown = content["feature_sentences"][str(table["feature_number"].iloc[0])]
    assert {example["type"] for example in shown} <= {"financial", "general"}
    assert all(example["sentence"] and example["activation"] > 0 for example in shown)
    assert list(pd.read_csv(folder / "feature_labels_clean_financial.csv")) == ["feature_number", "label"]
    detailed = pd.read_csv(folder / "feature_labels_detailed_financial.csv")
    assert list(detailed)[:7] == [
        *("feature_number", "label", "financial_activation", "general_activation", "specialization"),
        *("num_financial_examples", "num_general_examples"),
    ]
    assert len(pd.read_parquet(folder / "all_features.parquet")) == 2304


def test_numbers_in_csv_are_plain_decimals(embedded_run):
    for path in embedded_run.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                words = {"label", "flags", "confirmed", "label_source", "label_judge", "label_note"}
                numbers = [v for k, v in row.items() if v and k not in words and "_example_" not in k]
                assert all(set(value) <= set("-.0123456789") for value in numbers), (path, row)


def test_files_across_layers_agree(embedded_run):
    consolidated = pd.read_csv(embedded_run / "consolidated_top_features_all_layers.csv")
    assert list(consolidated.columns[:6]) == [*ROW, "layer"]
    assert len(consolidated) == 150
    assert consolidated["normalised_specialization"].is_monotonic_decreasing
    report = pd.read_csv(embedded_run / "layer_comparison_report.csv")
    assert list(report.columns[:8]) == [
        *("layer", "total_features", "avg_specialization", "max_specialization", "min_specialization"),
        *("std_specialization", "top_feature", "top_specialization"),
    ]
    assert report["avg_normalised_specialization"].is_monotonic_decreasing
    for row in report.itertuples():
        own = consolidated[consolidated["layer"] == row.layer]["specialization"]
        assert np.isclose(own.mean(), row.avg_specialization)
        assert np.isclose(own.max(), row.top_specialization)
    best = pd.read_csv(embedded_run / "top_50_financial_features.csv")
    assert len(best) == min(50, int((consolidated["specialization"] >= 0.1).sum()))
    assert (best["specialization"] >= 0.1).all()
    summary = read_json(embedded_run / "financial_feature_summary.json")
    head = summary["analysis_summary"]
    assert head["total_features_analyzed"] == 150
    assert head["layers_analyzed"] == list(LAYERS)
    assert head["best_layer"]["layer_number"] == report["layer"].iloc[0]
    assert head["best_feature"]["feature_number"] == consolidated["feature_number"].iloc[0]
    assert len(summary["top_financial_features"]) == len(best)
    assert len(summary["layer_performance"]) == 5


def test_most_features_of_every_layer_are_confirmed(embedded_run):
    report = pd.read_csv(embedded_run / "layer_comparison_report.csv")
    assert (report["confirmed_features"] >= 20).all()
    assert (report["avg_auroc"] > 0.7).all()


def test_reported_features_come_from_confirmation_and_lie_in_the_table_of_all(embedded_run):
    for layer in LAYERS:
        everything = pd.read_parquet(embedded_run / f"layer_{layer}" / "all_features.parquet")
        top = pd.read_csv(embedded_run / f"layer_{layer}" / "top_30_features_analysis.csv")
        chosen = everything[everything["selected"]].set_index("feature_number")
        assert set(chosen.index) == set(top["feature_number"])
        best = everything[everything["live"]].nlargest(30, "discovery_specialization")["feature_number"]
        assert set(best) == set(top["feature_number"])
        same = chosen.loc[top["feature_number"], "specialization"].to_numpy()
        assert np.allclose(same, top["specialization"], rtol=1e-6)


def test_record_says_how_to_run_it_again_and_what_it_took(embedded_run):
    record = read_json(embedded_run / "run.json")
    for key in ("tokens", "documents", "harvest_seconds", "tokens_per_second", "peak_memory_bytes", "versions"):
        assert record[key], key
    assert record["documents"] == 300
    assert {layer: check["problem"] for layer, check in record["self_check"].items()} == dict.fromkeys(
        map(str, LAYERS), ""
    )
    assert all(check["own"]["fvu"] < 0.45 for check in record["self_check"].values())
    assert set(record["files"]) == {
        str(path.relative_to(embedded_run)) for path in embedded_run.rglob("*") if path.is_file()
    } - {"run.json"}


def test_the_overview_is_a_picture_of_paper_size(embedded_run):
    data = (embedded_run / "financial_feature_analysis.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert width >= 2000
    assert height >= 1500


def test_run_json_runs_it_again_with_the_same_files(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    options = ["--layers", "4", "--max_documents", "40", "--top_n", "7", "--rank_by", "auroc", "--seed", "3"]
    assert main(["analyze", *options, "--output_dir", str(first), "--quiet"]) == 0
    assert main(["analyze", "--config", str(first / "run.json"), "--output_dir", str(again), "--quiet"]) == 0
    written = [path for path in first.rglob("*") if path.is_file() and path.name != "run.json"]
    assert len(written) > 10
    for path in written:
        assert (again / path.relative_to(first)).read_bytes() == path.read_bytes(), path.name


def test_python_call_returns_tables_and_keeps_unknown_files(tiny_arguments, tmp_path):
    options = dict(zip(tiny_arguments[:-1:2], tiny_arguments[1:-1:2], strict=True))
    output = Path(options["--output_dir"])
    output.mkdir()
    (output / "mine.txt").write_text("kept")
    named = {name.removeprefix("--"): value for name, value in options.items()}
    result = stratalens.analyze(**named, allow_poor_fit=True, domain="lending", layers=[0, 2], top_n=5)
    assert list(result.layers["total_features"]) == [5, 5]
    assert "lending_activation" in result.top_features
    assert len(result.all_features(0)) == 64
    stratalens.analyze(**named, allow_poor_fit=True, domain="lending", layers=[2], top_n=5)
    assert not (output / "layer_0").exists()
    assert (output / "mine.txt").read_text() == "kept"
    assert not list(output.glob(".unfinished-*"))


def test_few_documents_leave_confirmed_empty_and_say_so(tiny_arguments, capsys):
    assert main(["analyze", *tiny_arguments, "--max_documents", "8"]) == 0
    output = Path(tiny_arguments[tiny_arguments.index("--output_dir") + 1])
    table = pd.read_csv(output / "layer_0" / "top_30_features_analysis.csv")
    assert table["confirmed"].isna().all()
    assert "`confirmed` stays empty" in capsys.readouterr().err


def test_a_threshold_that_nothing_reaches_leaves_a_header(tiny_arguments, capsys):
    assert main(["analyze", *tiny_arguments, "--min_specialization", "1e6"]) == 0
    output = Path(tiny_arguments[tiny_arguments.index("--output_dir") + 1])
    assert (output / "top_50_financial_features.csv").read_text().count("\n") == 1
    assert "below --min_specialization" in capsys.readouterr().err


def test_a_dry_run_estimates_and_writes_nothing(tiny_arguments, capsys):
    assert main(["analyze", *tiny_arguments, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "Memory: about " in said
    assert "nothing was analysed or written" in said
    assert not Path(tiny_arguments[tiny_arguments.index("--output_dir") + 1]).exists()


def test_the_brief_scripts_take_its_flags(tiny_arguments, tmp_path):
    import subprocess
    import sys

    root = Path(stratalens.__file__).parent.parent
    flags = ["--layers", "0", "2", "--top_n", "3", "--min_specialization", "0.1", "--top_features_n", "4"]
    script = shutil.copy(root / "multi_layer_financial_analysis.py", tmp_path)
    done = subprocess.run(
        [sys.executable, script, *tiny_arguments, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    output = Path(tiny_arguments[tiny_arguments.index("--output_dir") + 1])
    assert str(output) in done.stdout.replace("\n", "")
    assert (output / "top_4_financial_features.csv").exists()
    assert (output / "layer_2" / "top_3_features_analysis.csv").exists()
