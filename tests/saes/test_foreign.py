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
    "OpenSAE": ("model-00001-of-00002.safetensors", {"config.json": {"input_normalize": True, "k": 8}}),
    "Llamascopium without hook_point_in in their config.json": (
        "sae_weights.safetensors",
        {"config.json": {"sae_type": "sae"}},
    ),
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
    assert "which are not read; docs/formats.md lists the formats that are" in line
    if case == "OpenSAE":
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


def saelens_folder(folder: Path, hook: str) -> None:
    """A folder as SAELens writes it, with few latents, for the tiny model."""
    folder.mkdir(parents=True)
    rows = torch.randn(16, TINY_WIDTH, generator=torch.Generator().manual_seed(0))
    tensors = {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": torch.zeros(16), "b_dec": torch.zeros(TINY_WIDTH)}
    save_file(tensors, folder / "sae_weights.safetensors")
    config = {"architecture": "standard", "d_in": TINY_WIDTH, "d_sae": 16, "metadata": {"hook_name": hook}}
    (folder / "cfg.json").write_text(json.dumps(config))


def test_saes_of_another_format_are_analysed_as_those_of_sparsify_are(tiny_arguments, tmp_path):
    saelens_folder(tmp_path / "saes" / "blocks.2.hook_resid_post", "blocks.2.hook_resid_post")
    saelens_folder(tmp_path / "saes" / "deeper" / "x", "blocks.1.hook_mlp_out")
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")})]) == 0
    assert (tmp_path / "out" / "layer_2").is_dir()
    assert not (tmp_path / "out" / "layer_1_mlp").exists()


def test_saes_at_hooks_that_no_module_has_are_refused_with_their_names(refused, documented, tmp_path):
    saelens_folder(tmp_path / "saes" / "x", "blocks.2.hook_resid_mid")
    line = refused()
    assert "none of its SAEs belongs to a block of this model, or to a known module in one (found: blocks.2" in line
    documented("SAE checkpoints", "SAEs at a hook that is no hookpoint", line)


def test_several_saes_at_one_hookpoint_are_listed(refused, documented, tmp_path):
    for name in ("a", "b"):
        saelens_folder(tmp_path / "saes" / name, "blocks.2.hook_resid_post")
    line = refused()
    assert line.endswith("saes: layer 2: several SAEs fit: a, b; choose one, such as by --sae_pick 'a'")
    documented("SAE checkpoints", "several SAEs of a layer", line)


def test_a_copy_of_a_folder_in_itself_is_refused_and_the_inner_one_can_be_given(refused, documented, tmp_path):
    for folder in (tmp_path / "saes", tmp_path / "saes" / "saes"):
        saelens_folder(folder, "blocks.2.hook_resid_post")
    line = refused()
    assert "saes: layer 2: there is an SAE in the folder itself and another in `saes` in it" in line
    assert line.endswith("move one of them elsewhere, or give the inner folder to --sae_model")
    documented("SAE checkpoints", "a folder with a copy of itself in it", line)


def test_a_format_or_activation_that_is_told_must_make_sense(tiny_arguments, documented, capsys, tmp_path):
    saelens_folder(tmp_path / "saes", "blocks.2.hook_resid_post")
    options = {"sae_model": str(tmp_path / "saes")}
    line = refusal(with_options(tiny_arguments, options | {"sae_format": "sae_lens"}), capsys)
    assert "sae_format: `sae_lens` is unknown; expected sparsify, saelens" in line
    line = refusal(with_options(tiny_arguments, options | {"sae_activation": "topk:8"}), capsys)
    assert "sae_activation: these SAEs say themselves which they have; leave out topk:8" in line
    documented("SAE checkpoints", "an activation told of SAEs that say it", line)
    line = refusal(with_options(tiny_arguments, options | {"sae_activation": "topk"}), capsys)
    assert "sae_activation: `topk` is unknown; expected relu, topk:32, groupmax:32, jumprelu:0.05" in line
    documented("Commands and options", "an activation of no known form", line)
