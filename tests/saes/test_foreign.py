"""Folders that are no sparsify SAEs are refused by the name of what they are, with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refusal, with_options
from safetensors.torch import save_file
from tiny import TINY_WIDTH, write_sae

from stratalens.cli.main import main

WEIGHTS = {"W_enc": torch.ones(TINY_WIDTH, 8), "W_dec": torch.ones(8, TINY_WIDTH), "b_enc": torch.ones(8)}
NAMED: dict[str, tuple[str, dict[str, dict[str, object] | None]]] = {
    "SAELens": (
        "blocks.2.hook_resid_post/sae_weights.safetensors",
        {"cfg.json": {"architecture": "standard", "d_in": TINY_WIDTH, "d_sae": 8, "hook_name": "x"}},
    ),
    "SAELens, by its configuration alone": ("blocks.2.hook_resid_post/cfg.json", {"cfg.json": {"d_sae": 8}}),
    "Gemma Scope": ("layer_2/width_16k/average_l0_71/params.npz", {}),
    "Gemma Scope 2": ("resid_post/layer_2_width_16k_l0_small/params.safetensors", {"config.json": {"width": 8}}),
    "dictionary_learning": ("resid_post_layer_2/trainer_0/ae.pt", {"config.json": {"trainer": {}}}),
    "Qwen-Scope": ("layer2.sae.pt", {}),
    "Llama Scope": ("checkpoints/final.safetensors", {"../hyperparams.json": {"d_model": TINY_WIDTH}}),
    "Llama Scope, of another generation": ("sae_weights.safetensors", {"config.json": {"sae_type": "sae"}}),
    "Goodfire": ("Llama-3.1-8B-Instruct-SAE-l19.pth", {}),
    "circuit-tracer": ("layer_2.safetensors", {"config.yaml": None}),
}


@pytest.fixture
def refused(capsys, tiny_arguments, tmp_path) -> Callable[[], str]:
    return lambda: refusal(with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")}), capsys)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in WEIGHTS.items()})
    elif path.suffix == ".safetensors":
        save_file(WEIGHTS, path)
    elif path.suffix in (".pt", ".pth"):
        torch.save(WEIGHTS, path)


@pytest.mark.parametrize("case", NAMED)
def test_saes_of_another_library_are_named_with_what_is_read(refused, documented, tmp_path, case):
    name, beside = NAMED[case]
    path = tmp_path / "saes" / name
    write(path)
    for other, content in beside.items():
        (path.parent / other).write_text("a: 1" if content is None else json.dumps(content))
    line = refused()
    assert f"saes: it holds SAEs of {case.split(',')[0]}" in line
    assert "which are not read. Read are SAEs saved as sparsify does: directories such as `layers.16`, each" in line
    if case == "SAELens":
        documented("SAE checkpoints", "SAEs of another library", line)


def test_a_model_in_place_of_saes_is_named(refused, documented, tmp_path, tiny_model):
    (tmp_path / "saes").symlink_to(tiny_model)
    line = refused()
    assert "saes: a language model, not SAEs; give it with --base_model, and its SAEs with --sae_model" in line
    documented("SAE checkpoints", "a model in place of SAEs", line)


@pytest.mark.parametrize("kind", ["without architectures", "GGUF"])
def test_other_models_in_place_of_saes_are_named_too(refused, tmp_path, tiny_model, kind):
    folder = tmp_path / "saes"
    folder.mkdir()
    if kind == "GGUF":
        (folder / "tiny.gguf").write_bytes(b"GGUF")
    else:
        shutil.copy(tiny_model / "tokenizer.json", folder)
        config = json.loads((tiny_model / "config.json").read_text())
        del config["architectures"]
        (folder / "config.json").write_text(json.dumps(config))
    assert "saes: a language model, not SAEs; give it with --base_model" in refused()


@pytest.mark.parametrize("name", ["layer_2", "resid_2", "block2", "sae-l2"])
def test_a_directory_of_another_name_is_refused_with_its_new_name(refused, documented, tmp_path, name):
    write_sae(tmp_path / "saes" / name)
    line = refused()
    assert f"known module in one (found: {name}); the model has layers.0 to layers.3, and in each self_attn and" in line
    assert line.endswith(f"; if `{name}` is of the output of block 2, rename it to `layers.2`")
    if name == "layer_2":
        documented("SAE checkpoints", "a directory of another name", line)


def test_a_name_without_a_number_is_refused_with_an_example(refused, tmp_path):
    write_sae(tmp_path / "saes" / "middle")
    assert refused().endswith("; name each directory after the module of its SAE, such as `layers.0`")


@pytest.mark.parametrize("prefix", ["model", "model.language_model", "base_model.model.model", "gpt_neox"])
def test_names_of_wrappers_before_the_blocks_do_not_matter(tiny_arguments, tmp_path, prefix):
    write_sae(tmp_path / "saes" / f"{prefix}.layers.2")
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")})]) == 0
    assert (tmp_path / "out" / "layer_2").is_dir()


def test_two_names_of_one_module_are_refused(refused, documented, tmp_path):
    for name in ("layers.2", "model.layers.2"):
        write_sae(tmp_path / "saes" / name)
    line = refused()
    assert "saes: layers.2 and model.layers.2 name the same module of the model; keep one of them" in line
    documented("SAE checkpoints", "two directories for one module", line)


def test_other_files_beside_saes_do_not_matter(tiny_arguments, tmp_path):
    write_sae(tmp_path / "saes" / "layers.2")
    for name in ("ae.pt", "layers.1/sae_weights.safetensors", "optimizer.pt", "config.json"):
        write(tmp_path / "saes" / name)
    (tmp_path / "saes" / "config.json").write_text('{"architectures": ["X"], "model_type": "x"}')
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")})]) == 0
