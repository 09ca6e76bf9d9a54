"""Gemma Scope, Gemma Scope 2 and SAELens from the Hub: one of several SAEs of a layer, as from a local folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_server import as_the_hub
from published_layouts import LAYERS, arrays, turned
from safetensors.torch import save_file
from tiny import TINY_K, TINY_LATENTS

from stratalens.config.validation import make_config
from stratalens.errors import ConfigError
from stratalens.models.source import ModelSource, find_model
from stratalens.saes.source import find_saes

L0S = {"small": 14.0, "medium": 55.0, "big": 120.0}
REPOSITORIES = {
    "gemma_scope": "someone/gemma-scope-tiny-res",
    "gemma_scope_2": "someone/gemma-scope-2-tiny",
    "saelens": "someone/tiny-saes",
}
PICKS = {"gemma_scope": ("width_16k", "l0=70"), "gemma_scope_2": ("l0=70",)}


def gemma_scope(root: Path) -> None:
    for layer in LAYERS:
        for width, l0 in (("16k", 22), ("16k", 82), ("65k", 72)):
            folder = root / f"layer_{layer}" / f"width_{width}" / f"average_l0_{l0}"
            folder.mkdir(parents=True)
            w = arrays(layer * 1000 + l0)
            names = {"W_enc": turned(w["encoder"]), "W_dec": w["decoder"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
            np.savez(folder / "params.npz", threshold=np.ones(TINY_LATENTS, np.float32), **names)


def gemma_scope_2(root: Path) -> None:
    for layer in LAYERS:
        for size, l0 in L0S.items():
            for site in ("resid_post", "mlp_out"):
                folder = root / site / f"layer_{layer}_width_16k_l0_{size}"
                folder.mkdir(parents=True)
                w = arrays(layer * 1000 + int(l0))
                names = {"w_enc": turned(w["encoder"]), "w_dec": w["decoder"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
                save_file(names | {"threshold": torch.ones(TINY_LATENTS)}, folder / "params.safetensors")
                hook = f"model.layers.{layer}.{'output' if site == 'resid_post' else 'mlp.output'}"
                config = {"architecture": "jump_relu", "l0": l0, "width": TINY_LATENTS, "affine_connection": False}
                config |= {"hf_hook_point_in": hook, "hf_hook_point_out": hook, "model_name": "tiny", "type": "sae"}
                (folder / "config.json").write_text(json.dumps(config))


def saelens(root: Path) -> None:
    for layer in LAYERS:
        folder = root / f"blocks.{layer}.hook_resid_post"
        folder.mkdir(parents=True)
        w = arrays(layer)
        names = {"W_enc": turned(w["encoder"]), "W_dec": w["decoder"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
        save_file(names, folder / "sae_weights.safetensors")
        save_file({"sparsity": torch.zeros(TINY_LATENTS)}, folder / "sparsity.safetensors")
        config = {"architecture": "topk", "k": TINY_K, "d_in": w["encoder"].shape[1], "d_sae": TINY_LATENTS}
        config |= {"dtype": "float32", "apply_b_dec_to_input": True, "normalize_activations": "none"}
        config |= {"metadata": {"hook_name": folder.name, "sae_lens_version": "6.0.0"}}
        (folder / "cfg.json").write_text(json.dumps(config))


OWN = {"gemma_scope": gemma_scope, "gemma_scope_2": gemma_scope_2, "saelens": saelens}


@pytest.fixture
def tiny(tiny_model) -> ModelSource:
    return find_model(make_config(base_model=str(tiny_model), sae_model="unused"))


def written(root: Path, layout: str) -> Path:
    folder = root / REPOSITORIES[layout].partition("/")[2]
    OWN[layout](folder)
    return folder


@pytest.mark.parametrize("layout", OWN)
def test_of_a_suite_on_the_hub_one_layer_is_fetched_and_found_as_in_a_local_folder(layout, tiny, tmp_path, monkeypatch):
    folder, repository = written(tmp_path, layout), REPOSITORIES[layout]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    chosen = {"layers": ("2",), "sae_pick": PICKS.get(layout, ())}
    options = {"base_model": tiny.location, **chosen}
    local = find_saes(make_config(**options, sae_model=str(folder)), tiny)
    with as_the_hub({repository: {"main": files}}, tmp_path / "hub", monkeypatch) as server:
        found = find_saes(make_config(**options, sae_model=repository), tiny)
    assert [(str(place), sae.digest, sae.name, sae.l0) for place, sae in found.items()] == [
        (str(place), sae.digest, sae.name, sae.l0) for place, sae in local.items()
    ]
    assert len(found) == 1
    weights = [name for name in server.fetched if not name.endswith((".json", ".yaml"))]
    assert len(weights) == 1, weights
    assert "2" in weights[0]
    assert "sparsity.safetensors" not in weights[0]


@pytest.mark.parametrize("layout", PICKS)
def test_several_that_fit_in_a_local_folder_are_listed_and_chosen_by_glob_or_l0(layout, tiny, tmp_path):
    folder = written(tmp_path, layout)
    options = {"base_model": tiny.location, "sae_model": str(folder), "layers": ("2",)}
    with pytest.raises(ConfigError, match=r"layer 2: several SAEs fit: .*; choose one, such as by --sae_pick"):
        find_saes(make_config(**options), tiny)
    (by_l0,) = find_saes(make_config(**options, sae_pick="l0=70"), tiny).values()
    (by_glob,) = find_saes(
        make_config(**options, sae_pick=["*65k*" if layout == "gemma_scope" else "*medium"]), tiny
    ).values()
    assert by_l0.l0 == by_glob.l0 == (72 if layout == "gemma_scope" else 55)
    pattern = "layer_{layer}/width_65k" if layout == "gemma_scope" else "mlp_out/layer_{layer}_width_16k_l0_big"
    own = {**options, "sae_model": f"{folder}:{pattern}"}
    (by_pattern,) = find_saes(make_config(**own), tiny).values()
    assert by_pattern.l0 == (72 if layout == "gemma_scope" else 120)
