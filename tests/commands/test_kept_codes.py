"""The harvest keeps token-level codes: evidence of any latent needs neither the model nor the text again."""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from finished_result import analysed, contents, feature_file, features, label, labels, refused, with_sources
from tiny import TINY_LATENTS

from stratalens.cli.main import main
from stratalens.evidence.passage_reader import PassageReader
from stratalens.evidence.passages import sample_texts
from stratalens.harvest import codes_file, keep_plan
from stratalens.hookpoint import Hookpoint

pytestmark = pytest.mark.usefixtures("own_environment")

CODES = {f"evidence/codes_layer_{layer}.parquet" for layer in (0, 2)}
ONE_BATCH = ("--batch_tokens", "16384")
"""The whole text in one batch: activations depend, in their last digits, on the passages that are read together."""


@pytest.fixture
def no_second_pass(monkeypatch) -> None:
    """Fail where the model reads passages for the evidence."""

    def read(*_arguments: object) -> None:
        raise AssertionError("a second pass")

    monkeypatch.setattr(PassageReader, "read", read)


def apart_from_codes(directory: Path) -> dict[str, bytes]:
    """Content of every file of a result that does not name the codes or times, and is no figure."""
    others = {*CODES, "run.json", "report.html"}
    return {
        name: own
        for name, own in contents(directory).items()
        if name not in others and name[-4:] not in (".png", ".svg")
    }


@pytest.mark.usefixtures("no_second_pass")
def test_a_run_reads_its_text_once(arguments, finished, tmp_path):
    assert apart_from_codes(analysed(arguments, tmp_path / "once")) == apart_from_codes(finished)


def test_evidence_from_the_codes_is_that_of_a_second_pass(arguments, tmp_path):
    kept = analysed(arguments, tmp_path / "kept", *ONE_BATCH)
    again = analysed(arguments, tmp_path / "again", "--keep_gb", "0", *ONE_BATCH)
    assert not CODES & set(contents(again))
    assert apart_from_codes(again) == apart_from_codes(kept)


def test_the_record_counts_what_is_kept(finished):
    record = json.loads((finished / "run.json").read_text())
    assert set(record["files"]) > CODES
    for layer in ("0", "2"):
        path = finished / f"evidence/codes_layer_{layer}.parquet"
        kept = pd.read_parquet(path)
        assert record["codes"][layer] == {"documents": 48, "passages": 48, "bytes": path.stat().st_size}
        assert kept["whole"].all()
        assert (kept["entries"] == kept["latent"].map(len)).all()


def test_other_latents_are_labelled_and_shown_without_model_and_text(result, sources, arguments, capsys):
    with_sources(result, sources, arguments)
    shutil.rmtree(sources)
    other = [number for number in range(TINY_LATENTS) if number not in labels(result, 2)][:3]
    capsys.readouterr()
    assert main(["show", str(result), "2", str(other[0])]) == 0
    shown = capsys.readouterr().out
    name = next(line for line in shown.splitlines() if line.startswith("Label from the evidence")).split(": ", 1)[1]
    assert main(["label", str(result), "--features", feature_file(result, *((2, number) for number in other))]) == 0
    assert "logit lens of the new features: left out" in " ".join(capsys.readouterr().err.split())
    assert labels(result, 2)[other[0]] == name
    written = json.loads((result / "layer_2" / "evidence.json").read_text())["features"]
    assert {own["feature_number"] for own in written} == set(labels(result, 2))
    assert all(own["examples"] for own in written)
    assert set(contents(result)) > CODES


def test_other_latents_have_the_evidence_of_a_run_that_reports_them(arguments, tmp_path):
    result = analysed(arguments, tmp_path / "result", *ONE_BATCH)
    other = next(number for number in range(TINY_LATENTS) if number not in labels(result, 2))
    everything = [(layer, number) for layer in (0, 2) for number in labels(result, layer)] + [(2, other)]
    assert label(result, "--features", feature_file(tmp_path, (2, other))) == 0
    listed = ("--features", feature_file(tmp_path, *everything))
    fresh = analysed(arguments, tmp_path / "fresh", "--keep_gb", "0", *listed, *ONE_BATCH)
    for layer in (0, 2):
        own, same = (
            {feature.pop("feature_number"): feature for feature in json.loads(path.read_text())["features"]}
            for path in (one / f"layer_{layer}" / "evidence.json" for one in (result, fresh))
        )
        assert own.keys() == same.keys()
        for number in own:
            for part in own[number].keys() - {"promoted", "suppressed"}:  # a product of other shape rounds otherwise
                assert own[number][part] == same[number][part], (layer, number, part)


def test_without_examples_nothing_is_kept(finished_without_examples, result):
    assert not any(name.startswith("evidence/") for name in contents(finished_without_examples))
    assert label(result, "--no_examples") == 0
    assert not any(name.startswith("evidence/") for name in contents(result))
    assert json.loads((result / "run.json").read_text())["codes"] == {}


def test_what_is_beyond_the_budget_is_read_again_and_told(arguments, finished, tmp_path, capsys):
    whole = sum((finished / name).stat().st_size for name in CODES)
    budget = whole // 2
    part = analysed(arguments, tmp_path / "part", "--keep_gb", str(budget / 1e9))
    sizes = {name: (part / name).stat().st_size for name in CODES}
    assert 0.2 * budget < sum(sizes.values()) <= budget
    assert apart_from_codes(part) == apart_from_codes(finished)
    main(["analyze", *arguments[:-1], str(tmp_path / "told"), "--keep_gb", str(budget / 1e9)])
    told = " ".join(capsys.readouterr().out.split())
    assert "of the evidence" in told
    assert "were not kept by the harvest, and were read again" in told


@pytest.mark.usefixtures("no_second_pass")
def test_of_documents_that_are_not_sampled_the_strongest_passages_are_kept(arguments, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["stratalens.corpus.survey"], "MAX_SAMPLED_DOCUMENTS", 6)
    monkeypatch.setattr("stratalens.evidence.collect.sample_texts", partial(sample_texts, texts=6))
    result = analysed(arguments, tmp_path / "out")
    kept = pd.read_parquet(result / "evidence/codes_layer_2.parquet")
    assert kept["whole"].sum() == 24
    assert 0 < (~kept["whole"]).sum() <= 24


def test_the_plan_takes_documents_in_the_order_of_the_sample_while_they_fit():
    sample = {7: 100, 5: 300, 9: 100, 2: 100}
    a, b = Hookpoint(0), Hookpoint(2)
    plan = keep_plan.plan_kept(sample, 1600, {a: 2.0, b: 1.0}, 900)
    assert list(plan.documents) == [7, 9, 2]
    assert plan.candidates == 0
    assert plan.layer_bytes == {a: 600, b: 300}
    everything = keep_plan.plan_kept(sample, 1600, {a: 1.0}, 1000)
    assert list(everything.documents) == [7, 5, 9, 2]
    assert everything.candidates == pytest.approx(2 * 400 / 1000)
    assert keep_plan.plan_kept(sample, 1600, {a: 1.0}, 0) == keep_plan.KEEP_NOTHING


@pytest.mark.parametrize("damage", ["cut", "other", "position", "offsets"])
def test_damaged_codes_are_refused_by_name(result, tmp_path, capsys, damage, documented):
    layer = 0 if damage == "offsets" else 2  # passages come from the first layer
    path = result / "evidence" / f"codes_layer_{layer}.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "other":
        pd.DataFrame({"content": [1]}).to_parquet(path)
    else:
        table = next(codes_file.CodesFile(path).groups())
        numbers = table.column(damage).combine_chunks()
        changed = type(numbers).from_arrays(numbers.offsets, numbers.values.to_numpy() + 5000, type=numbers.type)
        with path.open("wb") as sink:
            writer = codes_file.CodesWriter(sink, "x")
            writer.add(table.set_column(table.column_names.index(damage), table.schema.field(damage), changed))
            writer.close()
    other = next(number for number in range(TINY_LATENTS) if number not in labels(result, 2))
    line = refused(capsys, "label", str(result), "--quiet", "--features", feature_file(tmp_path, (2, other)))
    assert f"codes_layer_{layer}.parquet: damaged, missing or of another version" in line
    documented("Finished results", "token-level codes that are damaged", line.replace("layer_0", "layer_2"))


def test_a_result_whose_codes_are_gone_reads_its_text_again(result, tmp_path):
    for name in CODES:
        (result / name).unlink()
    other = next(number for number in range(TINY_LATENTS) if number not in labels(result, 2))
    assert label(result, "--features", feature_file(tmp_path, (2, other))) == 0
    assert other in features(result).query("layer == 2")["feature_number"].tolist()
