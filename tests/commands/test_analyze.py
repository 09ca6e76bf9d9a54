"""The command line, on the tiny and the embedded model: every file, every documented column, numbers that agree."""

import csv
import json
import re
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from refusal import with_options
from tiny import TINY_LATENTS

import stratalens
from stratalens.cli.main import main

TINY = "tiny"
EMBEDDED = pytest.param("embedded", marks=pytest.mark.real)
FIRST_COLUMNS = ["feature_number", "financial_activation", "general_activation", "specialization", "rank"]
OTHER_COLUMNS = [
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


class Run(NamedTuple):
    """A finished run of the command line, and what it should contain."""

    directory: Path
    layers: tuple[int, ...]
    top_n: int
    latents: int
    documents: int


@pytest.fixture(scope="module", params=[TINY, EMBEDDED])
def run(request) -> Run:
    if request.param == TINY:
        return Run(request.getfixturevalue("finished"), (0, 2), 5, TINY_LATENTS, 48)
    return Run(request.getfixturevalue("embedded_run"), (4, 10, 16, 22, 28), 30, 2304, 400)


def test_layer_files_have_the_documented_columns(run):
    for layer in run.layers:
        layer_files_have_the_documented_columns(run.directory / f"layer_{layer}", run)


def layer_files_have_the_documented_columns(folder: Path, run: Run) -> None:
    table = pd.read_csv(folder / f"top_{run.top_n}_features_analysis.csv")
    assert list(table.columns[:6]) == [*FIRST_COLUMNS, "site"]
    assert set(OTHER_COLUMNS) <= set(table.columns)
    assert list(table["rank"]) == list(range(1, run.top_n + 1))
    assert table["specialization"].is_monotonic_decreasing
    assert np.allclose(table["financial_activation"] - table["general_activation"], table["specialization"], atol=1e-6)
    assert (table["specialization_low"] < table["specialization"]).all()
    assert (table["specialization"] < table["specialization_high"]).all()
    assert table["q_value"].between(0, 1).all()
    content = read_json(folder / f"top_{run.top_n}_features_analysis.json")
    assert [row["feature_number"] for row in content["top_features"]] == list(table["feature_number"])
    assert {"base_model", "sae_model", "top_n", "layer_idx"} <= set(content["config"])
    assert set(content["feature_sentences"]) == {str(number) for number in table["feature_number"]}
    shown = content["feature_sentences"][str(table["feature_number"].iloc[0])]
    assert {example["type"] for example in shown} <= {"financial", "general"}
    assert all(example["sentence"] and example["activation"] > 0 for example in shown)
    assert list(pd.read_csv(folder / "feature_labels_clean_financial.csv")) == ["feature_number", "label", "site"]
    detailed = pd.read_csv(folder / "feature_labels_detailed_financial.csv")
    assert list(detailed)[:7] == [
        *("feature_number", "label", "financial_activation", "general_activation", "specialization"),
        *("num_financial_examples", "num_general_examples"),
    ]
    assert len(pd.read_parquet(folder / "all_features.parquet")) == run.latents


def test_numbers_in_csv_are_plain_decimals_but_for_small_probabilities(run):
    for path in run.directory.rglob("*.csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                words = {
                    "label",
                    "site",
                    "flags",
                    "confirmed",
                    "transfers",
                    "claims",
                    "label_source",
                    "label_judge",
                    "label_note",
                }
                numbers = {k: v for k, v in row.items() if v and k not in words and "_example_" not in k}
                small = {k: v for k, v in numbers.items() if k in ("p_value", "q_value") and "e-" in v}
                assert all(re.fullmatch(r"\d\.\d\de-\d+", value) for value in small.values()), (path, row)
                plain = [value for name, value in numbers.items() if name not in small]
                assert all(set(value) <= set("-.0123456789") for value in plain), (path, row)


def test_files_across_layers_agree(run):
    consolidated = pd.read_csv(run.directory / "consolidated_top_features_all_layers.csv")
    assert list(consolidated.columns[:7]) == [*FIRST_COLUMNS, "layer", "site"]
    assert len(consolidated) == run.top_n * len(run.layers)
    assert consolidated["normalised_specialization"].is_monotonic_decreasing
    report = pd.read_csv(run.directory / "layer_comparison_report.csv")
    assert list(report.columns[:9]) == [
        *("layer", "total_features", "avg_specialization", "max_specialization", "min_specialization"),
        *("std_specialization", "top_feature", "top_specialization", "site"),
    ]
    assert report["avg_normalised_specialization"].is_monotonic_decreasing
    for row in report.itertuples():
        own = consolidated[consolidated["layer"] == row.layer]["specialization"]
        assert np.isclose(own.mean(), row.avg_specialization)
        assert np.isclose(own.max(), row.top_specialization)
    best = pd.read_csv(run.directory / "top_50_financial_features.csv")
    assert len(best) == min(50, int((consolidated["specialization"] >= 0.1).sum()))
    assert (best["specialization"] >= 0.1).all()
    summary = read_json(run.directory / "financial_feature_summary.json")
    head = summary["analysis_summary"]
    assert head["total_features_analyzed"] == len(consolidated)
    assert head["layers_analyzed"] == list(run.layers)
    assert head["best_layer"]["layer_number"] == report["layer"].iloc[0]
    assert head["best_feature"]["feature_number"] == consolidated["feature_number"].iloc[0]
    assert len(summary["top_financial_features"]) == len(best)
    assert len(summary["layer_performance"]) == len(run.layers)


def test_reported_features_come_from_confirmation_and_lie_in_the_table_of_all(run):
    for layer in run.layers:
        everything = pd.read_parquet(run.directory / f"layer_{layer}" / "all_features.parquet")
        top = pd.read_csv(run.directory / f"layer_{layer}" / f"top_{run.top_n}_features_analysis.csv")
        chosen = everything[everything["selected"]].set_index("feature_number")
        assert set(chosen.index) == set(top["feature_number"])
        best = everything[everything["live"]].nlargest(run.top_n, "discovery_specialization")["feature_number"]
        assert set(best) == set(top["feature_number"])
        same = chosen.loc[top["feature_number"], "specialization"].to_numpy()
        assert np.allclose(same, top["specialization"], rtol=1e-6)


def test_the_record_holds_versions_time_memory_and_files(run):
    record = read_json(run.directory / "run.json")
    for key in ("tokens", "documents", "harvest_seconds", "tokens_per_second", "peak_memory_bytes", "versions"):
        assert record[key], key
    assert record["documents"] == run.documents
    assert list(record["self_check"]) == [str(layer) for layer in run.layers]
    assert set(record["files"]) == {
        str(path.relative_to(run.directory)) for path in run.directory.rglob("*") if path.is_file()
    } - {"run.json"}


def test_the_overview_is_large_enough_to_print(run):
    data = (run.directory / "financial_feature_analysis.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert width >= 2000
    assert height >= 1500


def test_run_json_runs_it_again_with_the_same_files(tiny_arguments, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    options = ["--layers", "2", "--max_documents", "20", "--top_n", "7", "--rank_by", "auroc", "--seed", "3"]
    usual = with_options(tiny_arguments, {"output_dir": str(first)})
    assert main(["analyze", *usual, *options, "--quiet"]) == 0
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


def test_few_documents_leave_confirmed_empty_with_a_warning(tiny_arguments, capsys):
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
    printed = capsys.readouterr().out
    assert "Memory: about " in printed
    assert "nothing was analysed or written" in printed
    assert not Path(tiny_arguments[tiny_arguments.index("--output_dir") + 1]).exists()


@pytest.mark.real
def test_the_script_at_the_root_takes_the_flags_of_analyze(tiny_arguments, tmp_path):
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
