"""Evidence and labels of the real embedded run, and a real labelling server on top of it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from stratalens.cli.main import main
from stratalens.corpus.builtin import text_file
from stratalens.models.embedded import dense_copy

LAYERS = (4, 10, 16, 22, 28)


@pytest.fixture(scope="module")
def features(embedded_run) -> pd.DataFrame:
    return pd.read_parquet(embedded_run / "features.parquet")


def test_every_feature_has_a_short_label_with_its_score_in_its_interval(features):
    assert len(features) == 150
    assert features["label"].str.split().str.len().between(1, 8).all()
    scored = features.dropna(subset=["detection_auroc", "control_auroc"])
    assert len(scored) > 0
    assert (scored["detection_low"] <= scored["detection_auroc"]).all()
    assert (scored["detection_high"] >= scored["detection_auroc"]).all()
    assert set(scored["label_judge"]) == {"terms"}


@pytest.mark.parametrize("layer", LAYERS)
def test_evidence_holds_both_sides_weaker_passages_and_near_misses(embedded_run, features, layer):
    loaded = json.loads((embedded_run / f"layer_{layer}" / "evidence.json").read_text())
    assert loaded["hookpoint"] == f"layers.{layer}"
    found = {one["feature_number"]: one for one in loaded["features"]}
    assert set(found) == set(features[features["layer"] == layer]["feature_number"])
    corpus = "".join(text_file(name).read_text() for name in ("financial", "general"))
    for one in found.values():
        kinds = {(example["kind"], example["side"], example["half"]) for example in one["examples"]}
        assert {("top", "financial", half) for half in ("discovery", "confirmation")} <= kinds
        assert len(one["promoted"]) == len(one["suppressed"]) == 10
        for example in one["examples"]:
            assert len(example["tokens"]) == len(example["activations"])
            assert json.dumps("".join(example["tokens"]).strip(), ensure_ascii=False)[1:60] in corpus
            assert np.isclose(max(example["activations"]), example["activation"], rtol=1e-3)
            assert (example["activation"] == 0) == (example["kind"] == "near_miss")


def test_the_detailed_file_quotes_what_fires_the_feature(embedded_run):
    detailed = pd.read_csv(embedded_run / "layer_16" / "feature_labels_detailed_financial.csv")
    assert detailed["financial_example_1"].str.contains(r"\[\[.+\]\]").all()
    expected = [
        "label_source",
        "detection_auroc",
        "detection_low",
        "detection_high",
        "control_auroc",
        "fuzzing_auroc",
        "flags",
    ]
    assert set(expected) < set(detailed)


def test_show_prints_everything_about_a_feature(embedded_run, features, capsys):
    row = features[features["layer"] == 16].iloc[0]
    assert main(["show", str(embedded_run), "16", str(row["feature_number"])]) == 0
    said = capsys.readouterr().out
    for part in (row["label"], "detection AUROC", "Specialization", "Promotes next", "Near misses", "[["):
        assert part in said


COPY_RATINGS = (
    """Copy this line and say nothing else: {"ratings": ["""
    """{% for passage in passages %}{{ loop.index0 }}{{ "" if loop.last else ", " }}{% endfor %}]}"""
)
PROMPTS = {
    "system": "You do as you are told.",
    "label": "Words: {{ top_tokens }}\nName one topic that these words share. Answer with two words only.",
    "detection": COPY_RATINGS,
    "fuzzing": COPY_RATINGS,
}
"""Short ones: the embedded model is small, and answers long prompts with essays."""


def test_a_real_server_labels_a_feature_and_is_asked_once(
    embedded_run, features, transformers_serve, tmp_path, monkeypatch, capsys
):
    result, prompts = tmp_path / "result", tmp_path / "prompts"
    shutil.copytree(embedded_run, result)
    prompts.mkdir()
    for name, text in PROMPTS.items():
        (prompts / f"{name}.jinja").write_text(text)
    number = int(features.query("layer == 16 and label != 'Unclear'")["feature_number"].iloc[0])
    (tmp_path / "features.txt").write_text(f"16 {number}\n")
    model = str(dense_copy().directory)
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STRATALENS_API_KEY", "key-that-nobody-may-see")
    command = ["label", str(result), "--features", str(tmp_path / "features.txt"), "--prompts", str(prompts)]
    command += ["--labeling_endpoint", transformers_serve, "--labeling_model", model]
    command += ["--labeling_concurrency", "1", "--labeling_timeout", "120"]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "will be sent to http://127.0.0.1" in said.err
    assert "requests (0 failed)" in said.out
    after = pd.read_parquet(result / "features.parquet")
    asked = after.query("layer == 16 and feature_number == @number").iloc[0]
    if asked["label_source"].startswith(model):
        assert asked["label"] != features.query("layer == 16 and feature_number == @number")["label"].iloc[0]
        assert asked["detection_examples"] >= 8
        assert asked["detection_low"] < 0.9, (
            "a label that a tiny model makes of a list of words cannot be known to be good"
        )
    else:  # so small a model may chatter on another machine; then the row says so
        assert asked["label_source"] == "evidence"
        assert f"labelled by evidence: {model} at 127.0.0.1" in asked["label_note"]
    keys, labels = ["layer", "feature_number"], ["label", "label_source", "detection_auroc", "control_auroc"]
    others = [table[table["feature_number"] != number].set_index(keys)[labels] for table in (after, features)]
    pd.testing.assert_frame_equal(*others)
    assert main(command) == 0
    assert ": 0 requests" in capsys.readouterr().out
    for path in [*result.rglob("*"), *(tmp_path / "cache").rglob("*")]:
        assert not path.is_file() or b"nobody-may-see" not in path.read_bytes()
