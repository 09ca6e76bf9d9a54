"""`stratalens effect` through whole commands: files and columns, resuming, other text, tasks, what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_result import contents, refused
from sparsify import SparseCoder
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from stratalens.cli.main import main
from stratalens.effects import reading
from stratalens.files.hashing import hash64

pytestmark = pytest.mark.usefixtures("own_environment")
FEW = ("--control_documents", "4", "--control_sets", "3", "--ablate", "2")


def effect(result: Path, *options: str) -> int:
    return main(["effect", str(result), "--quiet", *FEW, *options])


@pytest.fixture(scope="module")
def with_effects(finished, tmp_path_factory) -> Path:
    """A result with effects on its own text; tests must not change it."""
    result = Path(shutil.copytree(finished, tmp_path_factory.mktemp("effects") / "out"))
    assert effect(result) == 0
    return result


def record(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text())


def without_times(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files but figures, which not every test draws, and those that name the time at which effects were made."""
    drawn = (".png", ".svg", "run.json", "report.html")
    return {name: content for name, content in files.items() if not name.endswith(drawn)}


def test_effects_are_in_tables_columns_and_record(with_effects):
    layers = pd.read_csv(with_effects / "layer_effects.csv")
    features = pd.read_csv(with_effects / "feature_effects.csv")
    top = pd.read_parquet(with_effects / "features.parquet")
    assert layers["layer"].tolist() == [0, 2]
    assert len(features) == 4
    assert set(features["effect"]) <= {"moves the domain", "moves everything", "no measurable effect", "undecided"}
    ablated = top["effect"].notna()
    assert ablated.sum() == 4
    assert (top.loc[ablated, "causal"].astype(bool) == (top.loc[ablated, "effect"] == "moves the domain")).all()
    assert top.loc[~ablated, "causal"].isna().all()
    [own] = record(with_effects)["effects"]
    assert own["domain_documents"] == layers["domain_documents"].iloc[0] >= 10
    assert own["random_draws"] == own["matched_sets"] == 3
    for layer in (0, 2):
        table = pd.read_parquet(with_effects / f"layer_{layer}" / "latent_attributions.parquet")
        live = pd.read_parquet(with_effects / f"layer_{layer}" / "all_features.parquet").query("live")
        assert sorted(table["feature_number"]) == sorted(live["feature_number"])


def test_the_effect_of_a_layer_equals_that_of_an_independent_script(with_effects, tiny_model, tiny_saes, small_texts):
    """It reads the texts, finds the held-out documents by the file that lists them, and uses sparsify for the SAE."""
    sides = pd.read_parquet(with_effects / "documents.parquet").query("half == 'confirmation'")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    limit = 10 * record(with_effects)["self_check"]["2"]["median_norm"]
    sae = SparseCoder.load_from_disk(tiny_saes / "layers.2")
    removed = record(with_effects)["effects"][0]["removed"]["2"]
    row = pd.read_csv(with_effects / "layer_effects.csv").set_index("layer").loc[2]
    for side, path in zip(("domain", "general"), small_texts, strict=True):
        held_out = set(sides.loc[sides["side"] == {"domain": "financial"}.get(side, side), "document"])
        texts = [json.loads(line) for line in path.read_text().splitlines()]
        chosen = [own["text"] for own in texts if document_hash(side, own["id"]) in held_out]
        assert len(chosen) == row[f"{side}_documents"]
        effects = [change(model, sae, tokenizer(text)["input_ids"], removed, limit) for text in chosen]
        assert np.isclose(np.mean(effects), row[f"{side}_effect"], atol=1e-5), side
        assert abs(np.mean(effects)) > 1e-3


def document_hash(side: str, name: str) -> int:
    return hash64("document", ("domain", "general").index(side), name)


@torch.no_grad()
def change(model, sae: SparseCoder, ids: list[int], features: list[int], limit: float) -> float:
    """Mean change of the loss of the tokens that follow a token which may be ablated."""
    batch = torch.tensor([ids])

    def ablate(_module, _args, output):
        x = output[0] if isinstance(output, tuple) else output
        found = sae.encode(x[0])
        dense = torch.zeros(x.shape[1], sae.num_latents).scatter_(1, found.top_indices, found.top_acts)
        kept = torch.zeros_like(dense)
        kept[:, features] = dense[:, features]
        assert sae.W_dec is not None
        where = (x[0].norm(dim=-1) <= limit) & (torch.arange(x.shape[1]) > 0)
        new = x - (kept @ sae.W_dec)[None] * where[None, :, None]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    plain = model(batch).logits[0]
    handle = model.model.layers[2].register_forward_hook(ablate)
    after = model(batch).logits[0]
    handle.remove()
    target = batch[0, 2:]
    return float(cross_entropy(after[1:-1], target) - cross_entropy(plain[1:-1], target))


def test_a_second_measurement_gives_the_same_files(with_effects, tmp_path):
    again = Path(shutil.copytree(with_effects, tmp_path / "out"))
    assert effect(again) == 0
    assert without_times(contents(again)) == without_times(contents(with_effects))
    assert len(record(again)["effects"]) == 1


def test_what_was_measured_before_a_stop_is_not_measured_again(result, with_effects, monkeypatch, capsys):
    measure, calls = reading.AblationReader.measure, []

    def stops(reader, text, batch, ablations):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(batch)
        return measure(reader, text, batch, ablations)

    monkeypatch.setattr(reading, "BATCHES_PER_FILE", 1)
    monkeypatch.setattr(reading.AblationReader, "measure", stops)
    assert effect(result) == 130
    assert not (result / "layer_effects.csv").exists()
    assert list((result / ".unfinished").rglob("*.state"))
    rest: list[object] = []
    monkeypatch.setattr(
        reading.AblationReader,
        "measure",
        lambda reader, text, batch, ablations: rest.append(batch) or measure(reader, text, batch, ablations),
    )
    assert effect(result) == 0
    every: list[object] = []
    whole = Path(shutil.copytree(with_effects, result.parent / "whole"))
    monkeypatch.setattr(
        reading.AblationReader,
        "measure",
        lambda reader, text, batch, ablations: every.append(batch) or measure(reader, text, batch, ablations),
    )
    assert effect(whole) == 0
    assert len(calls) + len(rest) == len(every) > 10
    assert without_times(contents(result)) == without_times(contents(whole))


def test_effects_stay_when_the_result_is_ranked_and_its_report_made_again(with_effects, tmp_path):
    result = Path(shutil.copytree(with_effects, tmp_path / "out"))
    before = pd.read_csv(result / "feature_effects.csv").set_index(["layer", "feature_number"])
    assert main(["rank", str(result), "--rank_by", "auroc", "--quiet"]) == 0
    assert main(["report", str(result)]) == 0
    after = pd.read_csv(result / "feature_effects.csv").set_index(["layer", "feature_number"])
    both = before.index.intersection(after.index)
    assert len(both)
    assert after.loc[both, "domain_effect"].equals(before.loc[both, "domain_effect"])
    assert "What removing them does" in (result / "report.html").read_text()


def test_other_text_is_measured_under_a_name_that_stands_for_it(
    with_effects, tmp_path, small_texts, capsys, documented
):
    result = Path(shutil.copytree(with_effects, tmp_path / "out"))
    other = []
    for name, path in zip(("a", "b"), small_texts, strict=True):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        texts = [
            json.dumps({"text": f"{row['text']} and so it was told {number} times"}) for number, row in enumerate(rows)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(texts))
        other.append(str(tmp_path / f"{name}.jsonl"))
    words = ["--name", "retold", "--domain_data", other[0], "--general_data", other[1], "--keep_near_duplicates"]
    assert effect(result, *words) == 0
    assert [own["name"] for own in record(result)["effects"]] == ["", "retold"]
    assert (result / "layer_effects_retold.csv").exists()
    own = pd.read_parquet(with_effects / "features.parquet")["effect"]
    assert pd.read_parquet(result / "features.parquet")["effect"].equals(own)
    swapped = ["--name", "retold", "--domain_data", other[1], "--general_data", other[0], "--keep_near_duplicates"]
    line = refused(capsys, "effect", str(result), "--quiet", *FEW, *swapped)
    assert "other text" in line
    documented("Finished results", "Effects on other text under a name that is taken", line)


def test_tasks_are_measured_with_the_same_controls(result):
    assert effect(result, "--task", "built-in") == 0
    rows = pd.read_csv(result / "task_effects.csv")
    assert set(rows["kind"]) == {"all", "direction", "news", "term", "arithmetic"}
    every = rows.query("kind == 'all'")
    assert (every[["domain_items", "domain_unsolved"]].sum(axis=1) == 200).all()
    assert (every["random_controls"] == 3).all()
    assert every["domain_effect"].notna().all()


def test_integrated_gradients_attribute_otherwise(result, with_effects):
    assert effect(result, "--ig_steps", "2") == 0
    own, other = (pd.read_csv(path / "feature_effects.csv") for path in (with_effects, result))
    assert own["domain_effect"].equals(other["domain_effect"])
    assert not np.allclose(own["domain_attribution"], other["domain_attribution"])
    assert record(result)["effects"][0]["ig_steps"] == 2


def test_a_run_measures_effects_itself(arguments, with_effects, tmp_path):
    words = [word if word else str(tmp_path / "out") for word in arguments]
    assert main(["analyze", "--quiet", *words, "--effect"]) == 0
    own = pd.read_csv(tmp_path / "out" / "feature_effects.csv").set_index(["layer", "feature_number"])
    few = pd.read_csv(with_effects / "feature_effects.csv").set_index(["layer", "feature_number"])
    assert np.allclose(own.loc[few.index, "domain_effect"], few["domain_effect"], atol=1e-6)


@pytest.mark.parametrize(
    ("case", "options", "expected"),
    [
        ("A name without other texts", ("--name", "wire"), "give them with --domain_data"),
        ("Other texts without a name", ("--domain_data", "a.txt", "--general_data", "b.txt"), "--name newswire"),
        ("Other texts of one side", ("--name", "wire", "--domain_data", "a.txt"), "both sides"),
        ("No control set", ("--control_sets", "0"), "control_sets"),
        ("A task file that is missing", ("--task", "nowhere.jsonl"), "nowhere.jsonl"),
    ],
)
def test_wrong_options_are_one_line(result, capsys, documented, case, options, expected):
    line = refused(capsys, "effect", str(result), *options)
    assert expected in line
    documented("Commands and options", f"effect: {case[0].lower()}{case[1:]}", line)


def test_nothing_is_measured_without_a_result(tmp_path, capsys):
    assert "no finished result" in refused(capsys, "effect", str(tmp_path / "nowhere"))


def test_an_unreported_latent_shows_what_attribution_predicts(with_effects, tmp_path, capsys):
    latents = pd.read_parquet(with_effects / "layer_2" / "latent_attributions.parquet").set_index("feature_number")
    reported = pd.read_parquet(with_effects / "features.parquet").query("layer == 2")["feature_number"]
    other = next(number for number in latents.index if number not in set(reported))
    assert main(["show", str(with_effects), "2", str(other)]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "Loss without it by attribution" in line]
    assert f"{latents.loc[other, 'attribution_difference']:.3g}" in line
    result = Path(shutil.copytree(with_effects, tmp_path / "out"))
    pd.DataFrame({"feature_number": [other]}).to_parquet(result / "layer_2" / "latent_attributions.parquet")
    assert "latent_attributions.parquet: damaged, missing or of another version" in refused(
        capsys, "show", str(result), "2", str(other)
    )
