"""Checkpoints of every format that cannot be read end a run in one line that says what was found and what to do."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from refusal import refusal, with_options
from safetensors.torch import save_file
from tiny import TINY_WIDTH
from traps import Trap

LATENTS = 16
ARRAYS = {
    "W_enc": torch.ones(TINY_WIDTH, LATENTS),
    "W_dec": torch.ones(LATENTS, TINY_WIDTH),
    "b_enc": torch.ones(LATENTS),
    "b_dec": torch.ones(TINY_WIDTH),
    "threshold": torch.ones(LATENTS),
}
LINEAR = {
    "encoder_linear.weight": torch.ones(LATENTS, TINY_WIDTH),
    "encoder_linear.bias": torch.ones(LATENTS),
    "decoder_linear.weight": torch.ones(TINY_WIDTH, LATENTS),
    "decoder_linear.bias": torch.ones(TINY_WIDTH),
}
REPOSITORY = "gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_71"


def write_bytes(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def torch_file(path: Path, **more) -> None:
    torch.save({**LINEAR, **more}, path)


def npz_file(path: Path, **more) -> None:
    arrays = {**{name: array.numpy() for name, array in ARRAYS.items()}, **more}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def saelens(path: Path, **settings) -> None:
    save_file(ARRAYS, path)
    config = {"architecture": "standard", "d_in": TINY_WIDTH, "d_sae": LATENTS}
    config |= {"metadata": {"hook_name": "blocks.2.hook_resid_post", "sae_lens_version": "6.0.0"}}
    (path.parent / "cfg.json").write_text(json.dumps(config | settings))


def scope_2(path: Path, **arrays) -> None:
    save_file({name.lower(): array for name, array in {**ARRAYS, **arrays}.items()}, path)


CASES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a torch file with code": (
        "A-SAE-l2.pth",
        lambda path: torch_file(path, more=Trap(path.parent / "ran")),
        "holds `getattr` beside arrays, which could run code when it is opened; it is refused: get the SAE as a file",
    ),
    "a torch file that ends early": (
        "A-SAE-l2.pt",
        lambda path: write_bytes(path, b"PK\x03\x04 and no more"),
        "A-SAE-l2.pt: truncated or corrupt (",
    ),
    "a torch file without an encoder": (
        "A-SAE-l2.pt",
        lambda path: torch.save({"model": torch.ones(2)}, path),
        "no tensor `encoder_linear.weight` (found: model)",
    ),
    "an npz file with Python objects": (
        f"{REPOSITORY}/params.npz",
        lambda path: npz_file(path, W_dec=np.array([Trap(path.parent / "ran")], dtype=object)),
        "`W_dec` holds Python objects, which could run code; only arrays of numbers are read",
    ),
    "an npz file without thresholds": (
        f"{REPOSITORY}/params.npz",
        lambda path: npz_file(path, threshold=None),
        "no tensor `threshold` (found: W_dec, W_enc, b_dec, b_enc)",
    ),
    "arrays that do not fit each other": (
        f"{REPOSITORY}/params.npz",
        lambda path: npz_file(path, b_dec=np.ones(7, np.float32)),
        "`b_dec` has shape [7], but ",
    ),
    "Gemma Scope outside of its repository": (
        "layer_2/params.npz",
        npz_file,
        "its path does not say at which site the SAE reads; name a folder above it as the repository it is from",
    ),
    "Gemma Scope without a layer": ("x/params.npz", npz_file, "no params.npz in a folder whose path names a layer"),
    "a cross-layer transcoder of Gemma Scope 2": (
        "clt/width_262k_l0_big/params.safetensors",
        lambda path: scope_2(path, W_dec=torch.ones(LATENTS, 4, TINY_WIDTH)),
        "only cross-layer transcoders or crosscoders, which are not supported",
    ),
    "Gemma Scope 2 at an unknown place": (
        "x/params.safetensors",
        scope_2,
        "neither config.json nor its path says where the SAE reads; name the folders as the repository does",
    ),
    "an architecture of SAELens that is not read": (
        "x/sae_weights.safetensors",
        lambda path: saelens(path, architecture="temporal"),
        "architecture `temporal` of SAELens is not supported; read are standard, topk, jumprelu, gated",
    ),
    "a checkpoint of a training of SAELens": (
        "x/sae_weights.safetensors",
        lambda path: saelens(path, architecture="batchtopk"),
        "is a checkpoint of a training; save it with save_inference_model of SAELens, as jumprelu",
    ),
    "a normalisation that SAELens does not have": (
        "x/sae_weights.safetensors",
        lambda path: saelens(path, normalize_activations="batch"),
        "normalize_activations `batch` is unknown; expected none",
    ),
    "a topk of SAELens without k": (
        "x/sae_weights.safetensors",
        lambda path: saelens(path, architecture="topk"),
        "a topk without a whole number k",
    ),
    "an SAE of one attention head": (
        "x/sae_weights.safetensors",
        lambda path: saelens(path, hook_head_index=1),
        "an SAE of the single head 1, which is not supported",
    ),
    "plain arrays without an activation": (
        "layer_2.npz",
        npz_file,
        "does not say which activation it has; give --sae_activation relu, topk:32",
    ),
    "plain arrays without a layer": ("x.npz", npz_file, "or to a known module in one (found: x.npz)"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_read_ends_in_one_line(tiny_arguments, capsys, documented, tmp_path, case):
    name, write, message = CASES[case]
    path = tmp_path / "saes" / name
    path.parent.mkdir(parents=True)
    write(path)
    (path.parent / "ran").unlink(missing_ok=True)
    line = refusal(with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")}), capsys)
    assert message in line
    assert not (path.parent / "ran").exists()
    documented("SAE checkpoints", case, line)


def test_a_format_that_is_told_is_the_one_that_is_tried(tiny_arguments, capsys, documented, tmp_path):
    path = tmp_path / "saes" / "layer_2.npz"
    path.parent.mkdir()
    npz_file(path)
    options = {"sae_model": str(path.parent), "sae_format": "gemma_scope"}
    line = refusal(with_options(tiny_arguments, options), capsys)
    assert "no params.npz in a folder whose path names a layer, such as layer_20" in line
    options["sae_activation"] = "topk:17"
    options["sae_format"] = "tensors"
    line = refusal(with_options(tiny_arguments, options), capsys)
    assert line.endswith("layer_2.npz: topk:17 does not go with its 16 latents")
    documented("SAE checkpoints", "an activation that does not go with the latents", line)
