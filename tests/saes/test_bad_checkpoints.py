"""A model, SAE or output directory that cannot be used is refused in one line that says why; nothing is written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusal import refusal, with_options
from safetensors.torch import load_file, save_file
from tiny import TINY_LATENTS, TINY_WIDTH, write_sae

from stratalens.cli.main import main


@pytest.fixture
def refused(capsys, tiny_arguments) -> Callable[..., str]:
    """The line that a run of the tiny model is refused with after these changes."""
    return lambda **options: refusal(with_options(tiny_arguments, options), capsys)


def with_tensor(folder: Path, name: str, tensor: torch.Tensor) -> None:
    """Write a checkpoint with this tensor in place of its own."""
    tensors: dict[str, Any] = {name: tensor}
    write_sae(folder, **tensors)


def without(name: str, saved: Path) -> None:
    """Take a tensor out of a checkpoint."""
    tensors = load_file(saved / "sae.safetensors")
    del tensors[name]
    save_file(tensors, saved / "sae.safetensors")


def overwritten(path: Path, content: bytes) -> None:
    """Put other bytes over the first ones of a file."""
    path.write_bytes(content + path.read_bytes()[len(content) :])


Damage = Callable[[Path], object]

DAMAGED: dict[str, tuple[Damage, str]] = {
    "another width": (
        lambda sae: write_sae(sae, width=48),
        "layers.2: the SAE reads vectors of width 48, but ",
    ),
    "truncated weights": (
        lambda sae: (sae / "sae.safetensors").write_bytes((sae / "sae.safetensors").read_bytes()[:-100]),
        "layers.2/sae.safetensors: truncated or corrupt (",
    ),
    "weights of a few bytes": (
        lambda sae: (sae / "sae.safetensors").write_bytes(b"abc"),
        "copy or download it again",
    ),
    "empty weights": (lambda sae: (sae / "sae.safetensors").write_bytes(b""), "truncated or corrupt ("),
    "corrupt weights": (lambda sae: overwritten(sae / "sae.safetensors", b"\xff" * 64), "truncated or corrupt ("),
    "a Git LFS pointer for weights": (
        lambda sae: (sae / "sae.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "truncated or corrupt (",
    ),
    "missing weights": (lambda sae: (sae / "sae.safetensors").unlink(), "layers.2/sae.safetensors: missing"),
    "missing cfg": (
        lambda sae: (sae / "cfg.json").unlink(),
        "layers.2/cfg.json: missing; a sparsify checkpoint needs it beside sae.safetensors",
    ),
    "cfg that is no JSON": (
        lambda sae: (sae / "cfg.json").write_text("{d_in: 32"),
        "cfg.json: cannot be read as JSON (",
    ),
    "cfg that is no text": (lambda sae: (sae / "cfg.json").write_bytes(b"\xff"), "cfg.json: cannot be read as JSON ("),
    "cfg that is a list": (
        lambda sae: (sae / "cfg.json").write_text("[]"),
        "layers.2/cfg.json: Input should be a valid dict",
    ),
    "cfg without d_in": (lambda sae: (sae / "cfg.json").write_text('{"k": 8}'), "cfg.json: d_in: Field required"),
    "k of 0": (lambda sae: write_sae(sae, config={"k": 0}), "cfg.json: k: Input should be greater than 0"),
    "k beyond the latents": (lambda sae: write_sae(sae, config={"k": 65}), "cfg.json: k = 65 exceeds the 64 latents"),
    "groups of uneven size": (
        lambda sae: write_sae(sae, config={"activation": "groupmax", "k": 7}),
        "groupmax needs the 64 latents to be a multiple of k = 7",
    ),
    "an unknown activation": (
        lambda sae: write_sae(sae, config={"activation": "swish"}),
        "cfg.json: activation `swish` is unknown; expected topk or groupmax",
    ),
    "signed latents": (
        lambda sae: write_sae(sae, config={"signed": True}),
        "cfg.json: `signed: true` (top-k of |h|, no ReLU) is not supported",
    ),
    "a missing tensor": (
        lambda sae: without("W_dec", write_sae(sae)),
        "sae.safetensors: no tensor `W_dec` (found: b_dec, encoder.bias, encoder.weight)",
    ),
    "a missing skip": (lambda sae: write_sae(sae, config={"skip_connection": True}), "no tensor `W_skip`"),
    "a tensor of another shape": (
        lambda sae: write_sae(sae, W_dec=torch.zeros(TINY_WIDTH, TINY_LATENTS)),
        "`W_dec` has shape [32, 64], but cfg.json says [64, 32]",
    ),
    "fewer latents than cfg says": (
        lambda sae: write_sae(sae, config={"num_latents": 0, "expansion_factor": 4}),
        "`encoder.weight` has shape [64, 32], but cfg.json says [128, 32]",
    ),
    "nan weights": (
        lambda sae: with_tensor(sae, "encoder.weight", torch.full((TINY_LATENTS, TINY_WIDTH), float("nan"))),
        "`encoder.weight` holds NaN or infinite values; the checkpoint is damaged",
    ),
    "an infinite bias": (
        lambda sae: write_sae(sae, b_dec=torch.full((TINY_WIDTH,), float("inf"))),
        "`b_dec` holds NaN or infinite values",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_sae_is_refused_with_its_file_and_the_reason(refused, documented, tmp_path, case):
    damage, expected = DAMAGED[case]
    damage(write_sae(tmp_path / "saes" / "layers.2"))
    line = refused(sae_model=str(tmp_path / "saes"))
    assert expected in line
    documented("SAE checkpoints", case, line)


def test_a_folder_without_saes_is_refused_with_what_one_looks_like(refused, documented, tmp_path):
    (tmp_path / "saes" / "notes").mkdir(parents=True)
    line = refused(sae_model=str(tmp_path / "saes"))
    documented("SAE checkpoints", "a folder without SAEs", line)
    assert "saes: no SAE found; expected directories such as `layers.16` with cfg.json and sae.safetensors" in line


@pytest.mark.parametrize("name", ["arrays.safetensors", "arrays.npz", "arrays.pt"])
def test_a_folder_of_a_truncated_file_of_arrays_is_refused_for_that(refused, documented, tmp_path, name):
    path = tmp_path / "saes" / "layer_2" / name
    path.parent.mkdir(parents=True)
    arrays = {"W_enc": torch.ones(TINY_WIDTH, TINY_LATENTS), "W_dec": torch.ones(TINY_LATENTS, TINY_WIDTH)}
    if path.suffix == ".npz":
        np.savez(path, W_enc=arrays["W_enc"].numpy(), W_dec=arrays["W_dec"].numpy())
    elif path.suffix == ".pt":
        torch.save(arrays, path)
    else:
        save_file(arrays, path)
    assert "no SAE found" not in refused(sae_model=str(tmp_path / "saes"))
    path.write_bytes(path.read_bytes()[:-200])
    line = refused(sae_model=str(tmp_path / "saes"), sae_activation="topk:4")
    assert f"saes: no SAE found that can be read: {path}: truncated or corrupt (" in line
    if path.suffix == ".safetensors":
        documented("SAE checkpoints", "truncated arrays", line)


def test_saes_outside_numbered_layers_are_refused_with_their_names(refused, documented, tmp_path):
    write_sae(tmp_path / "saes" / "embed_tokens")
    line = refused(sae_model=str(tmp_path / "saes"))
    documented("SAE checkpoints", "SAEs outside numbered layers", line)
    assert (
        "none of its SAEs belongs to a block of this model, or to a known module in one (found: embed_tokens)" in line
    )


def test_saes_of_modules_that_the_model_lacks_are_refused_by_the_name_of_the_module(refused, documented, tmp_path):
    write_sae(tmp_path / "saes" / "h.2")
    line = refused(sae_model=str(tmp_path / "saes"))
    assert "none of its SAEs belongs to a block of this model, or to a known module in one (found: h.2)" in line
    documented("SAE checkpoints", "an SAE of a module that the model lacks", line)


def test_saes_at_several_sites_are_refused_with_the_choice(refused, documented, tmp_path):
    for part in ("mlp", "self_attn"):
        write_sae(tmp_path / "saes" / f"layers.2.{part}")
    line = refused(sae_model=str(tmp_path / "saes"))
    documented("SAE checkpoints", "SAEs at several sites", line)
    assert "its SAEs are at several sites; choose with --sites attn mlp" in line


def test_a_file_in_place_of_a_directory_of_model_or_saes_is_refused(refused, documented, tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"PK")
    for option, kind in (("base_model", "Base models"), ("sae_model", "SAE checkpoints")):
        line = refused(**{option: str(path)})
        assert "model.bin: a directory was expected, this is a file" in line
        documented(kind, "a file, not a directory", line)


MODELS: dict[str, tuple[Damage, str]] = {
    "without config": (lambda model: (model / "config.json").unlink(), "no usable Hugging Face model here ("),
    "with a config that is no JSON": (
        lambda model: (model / "config.json").write_text("{"),
        "no usable Hugging Face model here (",
    ),
    "of an unknown kind": (
        lambda model: (model / "config.json").write_text('{"model_type": "abacus"}'),
        "no usable Hugging Face model here (",
    ),
    "without tokenizer": (
        lambda model: [path.unlink() for path in model.glob("*token*")],
        "no usable Hugging Face model here (",
    ),
    "without weights": (lambda model: (model / "model.safetensors").unlink(), "no usable Hugging Face model here ("),
    "with truncated weights": (
        lambda model: (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1000]),
        "no usable Hugging Face model here (",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_an_incomplete_model_directory_is_refused_with_the_reason(refused, documented, tmp_path, tiny_model, case):
    damage, expected = MODELS[case]
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    damage(model)
    line = refused(base_model=str(model))
    documented("Base models", f"a model {case}", line)
    assert f"stratalens: {model}: " in line
    assert expected in line


def test_an_output_directory_below_a_file_is_refused_before_anything_is_read(refused, documented, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = refused(output_dir=str(tmp_path / "file" / "out"), domain_data="/no/such.txt")
    assert "cannot be written: Not a directory; choose another --output_dir" in line
    documented("Output, disk and cache", "an output directory inside a file", line)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_the_place_of_the_output_directory_is_refused_and_kept(refused, documented, tmp_path):
    (tmp_path / "out").write_text("mine")
    line = refused()
    assert "out: cannot be written: File exists; choose another --output_dir" in line
    documented("Output, disk and cache", "a file in the place of the output directory", line)
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_directory_that_the_system_forbids_is_refused(refused):
    assert "/proc/xyz: cannot be written: " in refused(output_dir="/proc/xyz")


def test_directories_made_on_the_way_to_the_output_are_removed_after_a_refusal(refused, tmp_path):
    refused(output_dir=str(tmp_path / "new" / "deeper" / "out"), domain_data="/no/such.txt")
    assert not (tmp_path / "new").exists()


def test_a_refusal_leaves_the_results_of_an_earlier_run_as_they_were(capsys, tiny_arguments, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"format": 1, "stratalens": "0.1.0", "files": ["kept.csv"]}))
    (out / "kept.csv").write_text("a,b\n")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_sae(tmp_path / "saes" / "h.2")
    assert main(["analyze", *with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")})]) == 2
    assert "(found: h.2)" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.real
def test_a_process_that_refuses_prints_its_line_alone_whatever_the_libraries_log(tiny_arguments, tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors").write_bytes(b"abc")
    words = ["--quiet", *with_options(tiny_arguments, {"base_model": str(model)})]
    start = "from stratalens.cli.main import entry_point; entry_point()"
    done = subprocess.run([sys.executable, "-c", start, "analyze", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"stratalens: {model}: ")
