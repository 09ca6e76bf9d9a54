"""`stratalens check`: what it measures, what it says, and its exit codes."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny import TINY_WIDTH, write_sae
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from stratalens.cli.main import main
from stratalens.commands.check import check
from stratalens.config.check_options import CheckConfig
from stratalens.hookpoint import Hookpoint
from stratalens.saes.formats.sparsify import load

EYE = torch.cat([torch.eye(TINY_WIDTH), -torch.eye(TINY_WIDTH)])
EXACT = {"encoder.weight": EYE, "W_dec": EYE.clone(), "encoder.bias": torch.zeros(64), "b_dec": torch.zeros(TINY_WIDTH)}
"""An SAE that reconstructs every vector."""


@pytest.fixture
def words(tiny_model, small_texts, tmp_path) -> list[str]:
    saes = tmp_path / "saes"
    write_sae(saes / "layers.1", config={"k": 64}, **EXACT)
    options = ["--base_model", str(tiny_model), "--sae_model", str(saes), "--dtype", "float32"]
    return ["check", *options, "--data", *map(str, small_texts)]


def ran(capsys, words: list[str]) -> tuple[int, str, str]:
    code = main(words)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_an_sae_that_reconstructs_all_fits_and_loses_nothing(capsys, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, out, _ = ran(capsys, words)
    assert code == 0
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written without --output_dir"
    assert "layers.1 fits" in out
    assert "FVU                0.000, explained variance 1.000" in out
    plain, splice = re.search(r"nats: ([0-9.]+) plain, ([0-9.]+) with the SAE", out).groups()  # pyright: ignore[reportOptionalMemberAccess]
    assert plain == splice
    for candidate in ("> the output of block 1", "the output of block 0", "the MLP's output in block 1"):
        assert candidate in out
    assert "It fits." in out
    assert "add --output_dir DIR for DIR/check.json" in out


def test_check_json_has_every_number_and_replaces_only_its_own(capsys, documented, words, tmp_path):
    folder = tmp_path / "numbers"
    code, out, _ = ran(capsys, [*words, "--output_dir", str(folder), "--no_loss"])
    assert (code, [path.name for path in folder.iterdir()]) == (0, ["check.json"])
    assert f"All numbers: {folder / 'check.json'}" in out
    assert "not measured: left out by --no_loss" in out
    record = json.loads((folder / "check.json").read_text())
    own = record["hookpoints"]["1"]
    assert (record["fits"], own["fits"], own["module"], own["loss"]) == (True, True, "layers.1", None)
    assert own["own"]["fvu"] == pytest.approx(0, abs=1e-6)
    assert own["own"]["l0"] == pytest.approx(TINY_WIDTH, abs=0.5)
    assert own["use"]["largest_decoder_norm"] == 1
    assert {fit["reconstructs"] for fit in own["neighbours"]} == {"0", "2"}
    assert "1_mlp" in {fit["reconstructs"] for fit in own["siblings"]}
    assert ran(capsys, [*words, "--output_dir", str(folder), "--no_loss", "--quiet"]) == (0, "", "")
    (folder / "check.json").write_text('{"mine": 1}')
    code, _, error = ran(capsys, [*words, "--output_dir", str(folder)])
    assert code == 2
    assert "was not written by stratalens; move it, or choose another --output_dir" in error
    documented("Output, disk and cache", "a check.json that no check wrote", error)
    assert (folder / "check.json").read_text() == '{"mine": 1}'
    code, _, error = ran(capsys, [*words, "--output_dir", str(folder / "check.json")])
    documented("Output, disk and cache", "a file in the place of the directory of a check", error)
    assert code == 2


def test_the_losses_are_those_of_the_model_with_the_vectors_replaced(words, tmp_path, tiny_model):
    """By plain hooks on the whole model, one passage after the other."""
    folder = write_sae(tmp_path / "saes" / "layers.1", config={"k": 6})
    options = dict(zip(("base_model", "sae_model"), (str(tiny_model), str(folder.parent)), strict=True))
    found = check(CheckConfig(**options, dtype="float32", data=(words[words.index("--data") + 1],)))
    loss = found.saes[Hookpoint(1)].loss.loss
    assert loss is not None
    model, sae = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), load(folder)
    chosen, left = [], 2048
    for sequence in found.text.sequences:
        chosen.append(torch.from_numpy(sequence[:left])[None])
        left -= chosen[-1].shape[1]
    kept = []

    def losses(replace) -> float:
        total = 0.0
        for ids in chosen:
            hook = model.model.layers[1].register_forward_hook(lambda _module, _args, output: replace(output))
            with torch.inference_mode():
                logits = model(input_ids=ids).logits
            hook.remove()
            total += float(cross_entropy(logits[0, 1:-1], ids[0, 2:], reduction="sum"))
        return total / sum(ids.shape[1] - 2 for ids in chosen)

    def put(make):
        def replace(output: torch.Tensor) -> torch.Tensor:
            new = output.clone()
            new[0, 1:] = make(output[0, 1:])
            return new

        return replace

    plain = losses(lambda output: kept.append(output[0, 1:].clone()))
    mean = torch.cat(kept).mean(0)
    assert loss.tokens == sum(ids.shape[1] - 2 for ids in chosen)
    assert loss.plain == pytest.approx(plain, rel=1e-5)
    assert loss.splice == pytest.approx(losses(put(lambda x: sae.decode(sae.encode(x), x))), rel=1e-5)
    assert loss.zero == pytest.approx(losses(put(torch.zeros_like)), rel=1e-5)
    assert loss.mean == pytest.approx(losses(put(lambda x: mean.expand_as(x))), rel=1e-5)
    if loss.recovered_of_zero is not None:
        assert loss.recovered_of_zero == pytest.approx((loss.zero - loss.splice) / (loss.zero - loss.plain))


def test_an_sae_that_does_not_fit_ends_with_1_and_the_reason(capsys, words, tmp_path):
    write_sae(tmp_path / "saes" / "layers.1", b_dec=torch.full((TINY_WIDTH,), 50.0))
    code, out, _ = ran(capsys, [*words, "--no_loss"])
    assert code == 1
    assert "layers.1 does not fit" in out
    assert "1 of 1 SAE does not fit:" in out
    assert "layers.1: it explains nothing here (FVU " in out


def test_an_sae_of_another_width_ends_with_1_and_the_line(capsys, words, tmp_path):
    write_sae(tmp_path / "saes" / "layers.1", width=48)
    code, _, error = ran(capsys, words)
    assert code == 1
    assert "the SAE reads vectors of width 48, but" in error


def test_what_cannot_be_read_ends_with_2(capsys, words, tmp_path):
    weights = tmp_path / "saes" / "layers.1" / "sae.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert ran(capsys, words)[0] == 2
    assert ran(capsys, ["check", "--sae_model", str(tmp_path)])[0] == 2
    assert ran(capsys, [*words[: words.index("--data")], "--data", str(tmp_path / "none.txt")])[0] == 2


def test_a_text_that_is_too_short_gives_no_loss_and_says_why(capsys, documented, words, tmp_path):
    (tmp_path / "short.txt").write_text("The bank raised its rate by half a percent in March.")
    code, out, _ = ran(capsys, [*words[: words.index("--data")], "--data", str(tmp_path / "short.txt")])
    assert code == 0
    assert "not measured: the text has only" in out
    (tmp_path / "short.txt").write_text("a")
    code, _, error = ran(capsys, [*words[: words.index("--data")], "--data", str(tmp_path / "short.txt")])
    assert code == 2
    documented("Texts", "a text for `check` that is too short", error)


def changed_copy(tiny_model: Path, folder: Path, share: float) -> Path:
    """A copy of the tiny model whose weights were moved by a share of their deviation."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += share * weight.std() * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder)
    for path in tiny_model.iterdir():
        if not (folder / path.name).exists():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_a_reference_model_shows_how_far_fvu_and_l0_moved(capsys, words, tmp_path, tiny_model):
    write_sae(tmp_path / "saes" / "layers.1", config={"k": 32})
    other = changed_copy(tiny_model, tmp_path / "other", 0.1)
    folder = tmp_path / "numbers"
    _, out, _ = ran(capsys, [*words, "--no_loss", "--reference_model", str(other), "--output_dir", str(folder)])
    own = json.loads((folder / "check.json").read_text())["hookpoints"]["1"]
    alone = [str(other) if word == str(tiny_model) else word for word in words]
    ran(capsys, [*alone, "--no_loss", "--output_dir", str(folder)])
    there = json.loads((folder / "check.json").read_text())["hookpoints"]["1"]["own"]
    assert own["reference"] == there
    assert own["own"]["fvu"] != there["fvu"]
    assert f"Moved              FVU by {own['own']['fvu'] - there['fvu']:+.3f}" in out


def test_a_reference_model_of_another_shape_is_refused(capsys, documented, words, tiny_model, tmp_path):
    shallow = AutoModelForCausalLM.from_pretrained(tiny_model, num_hidden_layers=2)
    shallow.save_pretrained(tmp_path / "shallow")
    capsys.readouterr()
    code, _, error = ran(capsys, [*words, "--no_loss", "--reference_model", str(tmp_path / "shallow")])
    documented("Base models", "a reference model of another shape", error)
    assert code == 2


@pytest.mark.real
@pytest.mark.usefixtures("embedded_model")
def test_the_shipped_saes_fit_and_keep_most_of_the_loss(tmp_path, capsys):
    code, out, _ = ran(capsys, ["check", "--layers", "10", "--max_documents", "24", "--output_dir", str(tmp_path)])
    own = json.loads((tmp_path / "check.json").read_text())["hookpoints"]["10"]
    assert code == 0
    assert own["own"]["fvu"] < 0.35
    assert own["loss"]["recovered_of_zero"] > 0.9
    assert own["loss"]["recovered_of_mean"] > 0.85
    assert "It fits." in out
