"""`stratalens steer` through whole commands: what it prints and writes, what it reads, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from finished_result import analysed, contents, refused, with_sources
from gguf import GGUFReader
from published_layouts import arrays, llamascopium
from refusal import with_options
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from shared import made_once
from sparsify import SparseCoder
from tiny import TINY_LATENTS, write_sae
from transformers import AutoModel, AutoTokenizer

import stratalens
from stratalens.cli.main import main
from stratalens.cli.steer import show_steered
from stratalens.cli.terminal import Terminal
from stratalens.commands import steer as command
from stratalens.commands.export_vector import effect_of
from stratalens.commands.steer import Continuation, Steered, SteeredText, SteeringFeature, steer
from stratalens.config.steer_options import SteerConfig, WeightedFeature, parse_features
from stratalens.effects.control_vector import MeasuredEffect
from stratalens.hookpoint import Hookpoint
from stratalens.saes.fit_check import SINK_RATIO

pytestmark = pytest.mark.usefixtures("own_environment")
PROMPT = "the bank and the river"
FEW = ("--max_new_tokens", "8")


def best(result: Path, layer: int) -> int:
    """The first reported feature of a layer."""
    return int(pd.read_parquet(result / "features.parquet").query("layer == @layer")["feature_number"].iloc[0])


@pytest.fixture(scope="module")
def feature(finished) -> str:
    return f"2/{best(finished, 2)}"


def steered(result: Path, *features: str, **options: object) -> Steered:
    return steer(result, parse_features(features), SteerConfig.model_validate({"max_new_tokens": 8, **options}))


def edited(result: Path, **changes: object) -> Path:
    """A result with other entries in its record."""
    record = json.loads((result / "run.json").read_text())
    for name, value in changes.items():
        record[name] = {**record[name], **value} if isinstance(value, dict) else value
    (result / "run.json").write_text(json.dumps(record))
    return result


def test_it_prints_both_texts_with_their_perplexity_and_leaves_the_result_alone(finished, feature, capsys):
    before = contents(finished)
    assert main(["steer", str(finished), feature, "--prompt", PROMPT, "loan [bold]", "--strength", "40", *FEW]) == 0
    out = capsys.readouterr().out
    both = steered(finished, feature, prompt=[PROMPT, "loan [bold]"], strength=40)
    assert [text.prompt for text in both.texts] == [PROMPT, "loan [bold]"]
    for text in both.texts:
        assert text.plain != text.steered
        assert f"Prompt: {text.prompt}" in out
        for name, own in (("Plain", text.plain), ("Steered", text.steered)):
            assert own.perplexity is not None
            assert f"{name}, perplexity {own.perplexity:.3g}: " in out
    assert f"Feature {feature} (" in out
    assert "weight 1 x strength 40 x mean activation" in out
    assert "% of the median norm there" in out
    assert contents(finished) == before


@pytest.mark.parametrize("more", [[], ["--seed", "5", "--temperature", "1.5"]])
def test_strength_0_is_the_plain_text_and_quiet_prints_the_texts_alone(finished, feature, capsys, more):
    words = ["steer", str(finished), feature, "--prompt", PROMPT, "--strength", "0", "--quiet", *FEW, *more]
    assert main(words) == 0
    first = capsys.readouterr()
    lines = first.out.strip().split("\nPlain, ")[1].split("\nSteered, ")
    assert lines[0] == lines[1]
    assert "Feature" not in first.out + first.err
    assert main(words) == 0
    assert capsys.readouterr().out == first.out


def test_the_mean_activation_is_that_of_the_domain_text_of_the_run(finished, tiny_model, tiny_saes, small_texts):
    """By transformers and sparsify, over all positions that count."""
    model, coder = (
        AutoModel.from_pretrained(tiny_model, dtype=torch.float32),
        SparseCoder.load_from_disk(tiny_saes / "layers.2"),
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    taken: list[torch.Tensor] = []
    model.layers[2].register_forward_hook(lambda _module, _args, output: taken.append(output[0, 1:]))
    with torch.inference_mode():
        for line in small_texts[0].read_text().splitlines():
            model(input_ids=torch.tensor([tokenizer(json.loads(line)["text"])["input_ids"]]))
        vectors = torch.cat(taken)
        limit = SINK_RATIO * stratalens.load_result(finished).record.self_check["2"].median_norm
        latents = coder.encode(vectors[vectors.norm(dim=-1) <= limit])
    for number in pd.read_parquet(finished / "features.parquet").query("layer == 2")["feature_number"]:
        values = latents.top_acts[(latents.top_indices == number) & (latents.top_acts > 0)]
        own = command._steering_feature(stratalens.load_result(finished), WeightedFeature(Hookpoint(2), int(number)))
        assert own.mean_activation == pytest.approx(float(values.mean()), rel=1e-4)


def test_an_export_holds_the_vector_and_where_it_comes_from_and_loads_no_model(
    finished, tiny_saes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "TriedModel", None)
    first, second = best(finished, 2), best(finished, 0)
    path = tmp_path / "new" / "vector.safetensors"
    words = [f"2/{first}:0.5", f"0/{second}:-2", "--strength", "3", "--export", str(path)]
    assert main(["steer", str(finished), *words]) == 0
    said = capsys.readouterr()
    assert f"Control vector: {path}" in said.out
    assert said.err.count("was not measured") == 2
    result = stratalens.load_result(finished)
    with safe_open(path, framework="pt") as tensors:
        assert sorted(tensors.keys()) == ["0", "2"]
        for layer, number, weight in ((2, first, 0.5), (0, second, -2.0)):
            chosen = WeightedFeature(Hookpoint(layer), number)
            mean = command._steering_feature(result, chosen).mean_activation
            row = load_file(tiny_saes / f"layers.{layer}" / "sae.safetensors")["W_dec"][number]
            torch.testing.assert_close(tensors.get_tensor(str(layer)), weight * 3 * mean * row)
        origin = tensors.metadata()
    assert json.loads(origin["features"]) == {f"2/{first}": 0.5, f"0/{second}": -2.0}
    assert (origin["strength"], origin["model_digest"]) == ("3.0", result.record.model.digest)
    assert json.loads(origin["saes"]) == {place: own.sha256 for place, own in result.record.saes.items()}
    assert json.loads(origin["effects"]) == {f"2/{first}": None, f"0/{second}": None}
    assert len(json.loads(origin["warnings"])) == 2
    assert "output of the block" in json.loads(origin["where"])["2"]


def test_features_of_one_block_are_summed_in_gguf(finished, tmp_path):
    numbers = pd.read_parquet(finished / "features.parquet").query("layer == 2")["feature_number"].tolist()[:2]
    alone = []
    for name, words in (("both", [f"2/{numbers[0]}", f"2/{numbers[1]}:-1"]), *((n, [f"2/{n}"]) for n in numbers)):
        path = tmp_path / f"{name}.gguf"
        assert main(["steer", str(finished), *words, "--export", str(path), "--quiet"]) == 0
        (tensor,) = GGUFReader(path).tensors
        assert (tensor.name, str(tensor.tensor_type.name), tensor.data.ndim) == ("direction.2", "F32", 1)
        alone.append(tensor.data)
    np.testing.assert_allclose(alone[0], alone[1] - alone[2], rtol=1e-5, atol=1e-6)


def test_a_measured_effect_goes_with_the_vector(finished, tmp_path, capsys):
    result = Path(shutil.copytree(finished, tmp_path / "out"))
    loaded = stratalens.load_result(result)
    numbers = pd.read_parquet(result / "features.parquet").query("layer == 2")["feature_number"].tolist()[:2]
    table = pd.DataFrame({"layer": 2, "feature_number": numbers, "domain_effect": [0.02, 0.001]})
    table[["domain_effect_low", "domain_effect_high"]] = [[0.01, 0.03], [-0.001, 0.003]]
    table.to_csv(result / "feature_effects.csv", index=False)
    assert effect_of(loaded, Hookpoint(2), numbers[0]) is None, "the record does not list the file"
    loaded = stratalens.load_result(edited(result, files=[*loaded.record.files, "feature_effects.csv"]))
    assert effect_of(loaded, Hookpoint(2), numbers[0]) == MeasuredEffect(0.02, 0.01, 0.03)
    assert effect_of(loaded, Hookpoint(0), numbers[0]) is None
    path = tmp_path / "vector.safetensors"
    assert main(["steer", str(result), f"2/{numbers[0]}", f"2/{numbers[1]}", "--export", str(path)]) == 0
    warned = " ".join(capsys.readouterr().err.split())
    assert warned.count("Note:") == 1
    assert f"feature 2/{numbers[1]}: the effect of removing it on financial text is not told from 0" in warned
    assert "(0.001 nats a token, 95% interval -0.001 to 0.003)" in warned
    with safe_open(path, framework="pt") as tensors:
        origin = tensors.metadata()
    assert json.loads(origin["effects"])[f"2/{numbers[0]}"] == {"value": 0.02, "low": 0.01, "high": 0.03}
    assert len(json.loads(origin["warnings"])) == 1
    (result / "feature_effects.csv").write_text("layer,feature_number\n2,x\n")
    assert "feature_effects.csv: damaged" in refused(
        capsys, "steer", str(result), f"2/{numbers[0]}", "--export", str(path), "--overwrite"
    )


def test_no_text_of_the_run_is_read(finished, feature, sources, arguments, tmp_path):
    result = with_sources(Path(shutil.copytree(finished, tmp_path / "out")), sources, arguments)
    for path in sources.glob("*.jsonl"):
        path.unlink()
    edited(result, settings={"domain_data": ["http://127.0.0.1:9/none.jsonl"]})
    assert steered(result, feature, prompt=PROMPT) == steered(finished, feature, prompt=PROMPT)


def test_a_changed_model_and_one_to_fetch_are_refused(finished, feature, sources, arguments, tmp_path, capsys):
    result = with_sources(Path(shutil.copytree(finished, tmp_path / "out")), sources, arguments)
    words = ["steer", str(result), feature, "--prompt", PROMPT]
    config = json.loads((sources / "model" / "config.json").read_text())
    (sources / "model" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    assert "its model has changed since" in refused(capsys, *words)
    edited(result, settings={"base_model": "owner/model"})
    line = refused(capsys, *words)
    assert "base_model owner/model from the Hugging Face Hub; if you trust these, add --allow_fetch" in line


def test_a_model_without_a_head_is_refused(arguments, sources, tmp_path, capsys, documented):
    weights = load_file(sources / "model" / "model.safetensors")
    save_file(
        {name: own for name, own in weights.items() if name != "lm_head.weight"},
        sources / "model" / "model.safetensors",
        metadata={"format": "pt"},
    )
    result = analysed(with_options(arguments, {"base_model": str(sources / "model")}), tmp_path / "out")
    line = refused(capsys, "steer", str(result), f"2/{best(result, 2)}", "--prompt", PROMPT)
    assert "it cannot write: the model has no head that can be loaded" in line
    documented("Base models", "a model without a head, for `steer`", line)


@pytest.fixture(scope="module")
def with_dead(arguments, tmp_path_factory) -> Path:
    """A result in which the last latent of layer 2 never fires; tests must not change it."""

    def make(folder: Path) -> None:
        bias = torch.zeros(TINY_LATENTS)
        bias[-1] = -1e4
        write_sae(folder / "saes" / "layers.2", **{"encoder.bias": bias})
        analysed(with_options(arguments, {"sae_model": str(folder / "saes")}), folder / "out")

    return made_once(tmp_path_factory, "dead latent", make) / "out"


def test_a_feature_that_does_not_fire_has_no_mean(with_dead, capsys, documented, monkeypatch):
    line = refused(capsys, "steer", str(with_dead), f"2/{TINY_LATENTS - 1}", "--prompt", PROMPT)
    assert "is dead: it fires on no text" in line
    documented("Commands and options", "`steer` by a dead feature", line)
    monkeypatch.setattr(command, "mean_when_active", lambda *_: None)  # no latent of a tiny run fires on one side only
    live = best(with_dead, 2)
    assert "fires on no financial text of the run" in refused(
        capsys, "steer", str(with_dead), f"2/{live}", "--prompt", PROMPT
    )


def test_vectors_before_a_gain_cannot_be_replaced(arguments, tmp_path, capsys, documented):
    llamascopium(tmp_path / "saes", 2, arrays(2))
    path = tmp_path / "saes" / "transcoder" / "layer2" / "config.json"
    hook = "blocks.2.ln2.hook_normalized"
    config = {**json.loads(path.read_text()), "hook_point_in": hook, "hook_point_out": hook}
    path.write_text(json.dumps(config))
    result = analysed(with_options(arguments, {"sae_model": str(tmp_path / "saes")}), tmp_path / "out")
    features = pd.read_parquet(result / "features.parquet")["feature_number"].tolist()
    line = refused(capsys, "steer", str(result), f"2_mlp_norm_no_gain/{features[0]}", "--prompt", PROMPT)
    assert "before the gain of a norm cannot be replaced" in line
    documented("Base models", "`steer` by features of vectors before the gain of a norm", line)


def test_a_scale_of_each_token_is_no_control_vector(arguments, tmp_path, capsys, documented):
    for layer in (1, 2):
        llamascopium(tmp_path / "saes", layer, arrays(layer))
    options = {"sae_model": str(tmp_path / "saes"), "layers": ["2"]}
    result = analysed(with_options(arguments, options), tmp_path / "out")
    words = ["steer", str(result), f"2/{best(result, 2)}"]
    line = refused(capsys, *words, "--export", str(tmp_path / "vector.gguf"))
    assert "add another vector at every token" in line
    documented("Commands and options", "`steer --export` by an SAE that scales every vector", line)
    assert main([*words, "--prompt", PROMPT, *FEW]) == 0
    assert "scaled to each vector" in capsys.readouterr().out


LONG = "loan " * 2100
MISTAKES = {
    "`steer` without a feature": ([], ["--prompt", PROMPT]),
    "`steer` by a word that is no feature": (["28"], ["--prompt", PROMPT]),
    "`steer` by a weight that is no number": (["2/5:1e"], ["--prompt", PROMPT]),
    "`steer` by a feature named twice": (["2/5:1", "2/5:2"], ["--prompt", PROMPT]),
    "`steer` by a layer that was not analysed": (["1/5"], ["--prompt", PROMPT]),
    "`steer` by a feature that there is not": ([f"2/{TINY_LATENTS}"], ["--prompt", PROMPT]),
    "`steer` with nothing to do": (None, []),
    "an empty prompt": (None, ["--prompt", ""]),
    "a prompt longer than the context": (None, ["--prompt", LONG]),
    "`--temperature` without `--seed`": (None, ["--prompt", PROMPT, "--temperature", "2"]),
    "`steer --overwrite` without `--export`": (None, ["--prompt", PROMPT, "--overwrite"]),
    "`steer --export` to a file of no format": (None, ["--export", "vector.bin"]),
    "a control vector for block 0 in GGUF": (["0/5"], ["--export", "vector.gguf"]),
    "`steer` on a device of no kind": (None, ["--prompt", PROMPT, "--device", "abacus"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line(finished, feature, capsys, documented, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    features, options = MISTAKES[case]
    line = refused(capsys, "steer", str(finished), *([feature] if features is None else features), *options)
    documented("Commands and options", case, line)
    assert not list(tmp_path.glob("vector*"))


def test_a_prompt_without_tokens_is_refused(finished, feature, capsys, monkeypatch):
    monkeypatch.setattr(command.torch, "from_numpy", None)
    monkeypatch.setattr("stratalens.models.tokens.PassageCutter.prompt", lambda *_: np.zeros(0, np.int64))
    assert "a prompt has no tokens" in refused(capsys, "steer", str(finished), feature, "--prompt", PROMPT)


def test_files_of_the_user_are_not_replaced(finished, feature, tmp_path, capsys, documented):
    path = tmp_path / "vector.gguf"
    path.write_text("mine")
    words = ["steer", str(finished), feature, "--export", str(path)]
    line = refused(capsys, *words)
    documented("Output, disk and cache", "a file in the place of a control vector", line)
    assert path.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert path.read_bytes()[:4] == b"GGUF"
    (tmp_path / "folder.gguf").mkdir()
    line = refused(capsys, "steer", str(finished), feature, "--export", str(tmp_path / "folder.gguf"), "--overwrite")
    documented("Output, disk and cache", "a directory in the place of a control vector", line)


@pytest.mark.parametrize(("width", "beside"), [(120, True), (60, False)])
def test_texts_stand_side_by_side_where_there_is_room(capsys, width, beside):
    terminal = Terminal()
    terminal.console = Console(force_terminal=True, width=width, no_color=True, highlight=False, soft_wrap=True)
    texts = [SteeredText("One\x1b[31m", Continuation("plain " * 40, 3.0), Continuation("", None))]
    chosen = SteeringFeature(WeightedFeature(Hookpoint(2), 5), "", 1.5)
    show_steered(terminal, Steered([chosen], ["SAE of layer 2: added at 2, norm 1"], texts, None), 4.0)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    titles = [line for line in lines if "Plain, perplexity 3" in line]
    assert len(titles) == 1
    assert ("Steered, perplexity -" in titles[0]) == beside
    assert "(nothing: the model ends the text at once)" in " ".join(lines)
    if beside:
        assert all(len(line) <= width for line in lines)
        assert sum("plain" in line for line in lines) > 4
