"""A finished result labelled again and shown, by the command line, on the tiny model."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from finished_result import (
    all_text,
    analysed,
    contents,
    feature_file,
    features,
    label,
    labels,
    refused,
    sentences,
    with_sources,
)
from tiny import TINY_LATENTS

from stratalens.cli.main import main
from stratalens.files.result_names import EVIDENCE_FOLDER

pytestmark = pytest.mark.usefixtures("own_environment")

TABLES = (".csv", ".parquet", ".json", ".npz")


@pytest.mark.figures
def test_labelling_again_gives_the_same_tables_without_the_model(result, sources, arguments):
    with_sources(result, sources, arguments)
    shutil.rmtree(sources)
    before = contents(result)
    assert label(result) == 0
    after = contents(result)
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name] and name != "run.json"] == []
    assert {Path(name).suffix for name in before} >= {*TABLES, ".png"}
    assert any(name.startswith(f"{EVIDENCE_FOLDER}/") for name in before)


def test_a_users_lexicon_labels_by_its_own_concepts(result, tmp_path):
    path = tmp_path / "lexicon.yaml"
    path.write_text("- concept: Zebra words\n  terms: [loan, bank, rate, bond, price, lo, ba, ra, bo, pr]\n")
    assert not any("Zebra" in name for layer in (0, 2) for name in labels(result, layer).values())
    assert label(result, "--lexicon", str(path)) == 0
    supported = (result / "layer_0" / "evidence.json").read_text() + (result / "layer_2" / "evidence.json").read_text()
    assert "Zebra words" in supported
    assert json.loads((result / "run.json").read_text())["settings"]["lexicon"] == [str(path)]


def test_a_list_in_analyze_is_reported_exactly(arguments, tmp_path):
    directory = analysed(arguments, tmp_path / "out", "--features", feature_file(tmp_path, (2, 9), (2, 3), (2, 40)))
    assert features(directory)[["layer", "feature_number"]].to_numpy().tolist() != []
    assert {(row.layer, row.feature_number) for row in features(directory).itertuples()} == {(2, 9), (2, 3), (2, 40)}
    assert not (directory / "layer_0").exists()
    written = json.loads((directory / "layer_2" / "evidence.json").read_text())["features"]
    assert {feature["feature_number"] for feature in written} == {9, 3, 40}


def test_a_list_in_label_adds_features_and_the_others_keep_their_labels(result, tmp_path):
    before = {layer: labels(result, layer) for layer in (0, 2)}
    new = next(number for number in range(TINY_LATENTS) if number not in before[0])
    rows = features(result).set_index(["layer", "feature_number"])
    assert label(result, "--features", feature_file(tmp_path, (0, new))) == 0
    after = {layer: labels(result, layer) for layer in (0, 2)}
    assert set(after[0]) == {*before[0], new}
    assert {number: after[0][number] for number in before[0]} == before[0]
    assert after[2] == before[2]
    assert after[0][new]
    again = features(result).set_index(["layer", "feature_number"])
    kept = [name for name in rows.columns if name.startswith(("label", "detection", "control", "specialization"))]
    pd.testing.assert_frame_equal(again.loc[rows.index, kept], rows[kept])
    assert label(result) == 0, "and once more, with what was kept"
    assert set(labels(result, 0)) == {*before[0], new}


def test_without_examples_no_sentence_of_the_corpus_is_in_any_file(
    finished, finished_without_examples, sources, tmp_path
):
    directory = Path(shutil.copytree(finished_without_examples, tmp_path / "bare"))
    runs = sentences(sources)
    for _ in range(2):
        text = all_text(directory)
        assert sorted(run for run in runs if run in text) == []
        assert not (directory / EVIDENCE_FOLDER).exists()
        assert label(directory, "--no_examples") == 0
    with_examples = all_text(finished)
    assert sum(run in with_examples for run in runs) > 0.9 * len(runs), "a result with examples holds them"


def test_a_result_without_examples_can_be_labelled_with_them(finished_without_examples, finished, tmp_path):
    directory = Path(shutil.copytree(finished_without_examples, tmp_path / "bare"))
    assert label(directory) == 0
    assert set(labels(directory, 0)) == set(labels(finished, 0))
    assert (directory / EVIDENCE_FOLDER).is_dir()


def test_labelling_without_examples_removes_them_from_a_result(result, sources):
    assert label(result, "--no_examples") == 0
    text = all_text(result)
    assert sorted(run for run in sentences(sources) if run in text) == []


@pytest.mark.parametrize(("name", "what"), [("domain.jsonl", "text"), ("model/config.json", "model")])
def test_a_changed_source_is_refused_where_it_is_needed(
    finished_without_examples, sources, arguments, tmp_path, capsys, name, what
):
    directory = Path(shutil.copytree(finished_without_examples, tmp_path / "bare"))
    with_sources(directory, sources, arguments)
    before = contents(directory)
    path = sources / name
    whole = path.read_text()
    path.write_text(whole.replace("loan", "lawn") if what == "text" else whole + "\n")
    line = refused(capsys, "label", str(directory), "--quiet")
    assert line.endswith(f"its {what} has changed since; run the analysis again")
    assert contents(directory) == before


def test_show_prints_a_reported_feature_with_its_evidence(result, capsys):
    row = features(result).query("layer == 2").iloc[0]
    capsys.readouterr()
    assert main(["show", str(result), "2", str(row["feature_number"])]) == 0
    text = capsys.readouterr().out
    assert f"Feature {row['feature_number']} of layer 2: {row['label']}" in text
    assert f"Rank {row['rank']} of 5 reported financial features" in text
    for part in ("Label by evidence", "AUROC of documents", "Tokens with most activation", "Promotes next", "[["):
        assert part in text
    assert f"{row['specialization']:.4g}" in text


def test_show_prints_a_feature_that_is_not_reported(result, capsys):
    other = next(number for number in range(TINY_LATENTS) if number not in labels(result, 2))
    capsys.readouterr()
    assert main(["show", str(result), "2", str(other)]) == 0
    text = capsys.readouterr().out
    assert f"Feature {other} of layer 2, not among the 5 reported ones" in text
    assert "--features FILE" in text
    for part in ("AUROC of documents", "Label from the evidence that was kept", "Tokens with most activation", "[["):
        assert part in text


def test_show_of_a_result_without_examples_shows_none(finished_without_examples, sources, capsys):
    number = next(iter(labels(finished_without_examples, 0)))
    capsys.readouterr()
    assert main(["show", str(finished_without_examples), "0", str(number)]) == 0
    text = capsys.readouterr().out
    assert "Tokens with most activation" in text
    assert not any(run in text for run in sentences(sources))
