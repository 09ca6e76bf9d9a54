"""A run on SAEs of formats that name their arrays, from the files to the tables."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from refusal import with_options
from safetensors.torch import save_file
from tiny import TINY_LATENTS, TINY_WIDTH

from stratalens.cli.main import main

Run = Callable[..., dict]


def arrays() -> dict[str, torch.Tensor]:
    """W_enc `[d_model, latent]` and the rest, small enough that some latents fire."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(TINY_LATENTS, TINY_WIDTH, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    zeros, threshold = torch.zeros(TINY_LATENTS), torch.full((TINY_LATENTS,), 0.3)
    bias = torch.zeros(TINY_WIDTH)
    return {"W_enc": rows.T.contiguous(), "W_dec": rows, "b_enc": zeros, "b_dec": bias, "threshold": threshold}


def write(kind: str, root: Path) -> None:
    own = arrays()
    if kind == "gemma_scope":
        folder = root / "gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_20"
        folder.mkdir(parents=True)
        np.savez(folder / "params.npz", **{name: array.numpy() for name, array in own.items()})
    elif kind == "gemma_scope_2":
        folder = root / "resid_post/layer_2_width_16k_l0_small"
        folder.mkdir(parents=True)
        save_file({name.lower(): array for name, array in own.items()}, folder / "params.safetensors")
    elif kind == "goodfire":
        linear = {"encoder_linear.weight": own["W_dec"], "encoder_linear.bias": own["b_enc"]}
        root.mkdir()
        decoder = {"decoder_linear.weight": own["W_enc"], "decoder_linear.bias": own["b_dec"]}
        torch.save({**linear, **decoder}, root / "Tiny-SAE-l2.pth")
    else:
        root.mkdir()
        np.savez(root / "layer_2.npz", **{name: array.numpy() for name, array in own.items()})


@pytest.fixture
def run(tiny_arguments, tmp_path) -> Run:
    def start(**options: str) -> dict:
        words = with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes"), **options})
        assert main(["analyze", "--quiet", *words]) == 0
        return json.loads((tmp_path / "out" / "run.json").read_text())

    return start


KINDS = {"gemma_scope": None, "gemma_scope_2": None, "goodfire": None, "tensors": 8}
"""Format -> k."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_reads_the_saes_of_a_format(run, tmp_path, kind):
    write(kind, tmp_path / "saes")
    record = run(**({"sae_activation": "topk:8"} if kind == "tensors" else {}))
    (sae,) = record["saes"].values()
    assert (sae["latents"], sae["k"]) == (TINY_LATENTS, KINDS[kind])
    table = pd.read_csv(tmp_path / "out" / "consolidated_top_features_all_layers.csv")
    assert len(table) > 0
    assert set(table["layer"]) == {2}


def test_another_activation_is_another_sae(run, tmp_path):
    write("tensors", tmp_path / "saes")
    digests = []
    for told in ("topk:8", "topk:8", "topk:4", "relu"):
        (sae,) = run(sae_activation=told)["saes"].values()
        digests.append(sae["sha256"])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
