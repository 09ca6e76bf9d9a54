"""Gemma Scope and Gemma Scope 2: latents as their papers define them, derived here in float64, and where they read.

No library judges: the published loaders are scripts, and SAELens has its own copy of the rules (Lieberum et al. 2024).
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import assert_same_latents, assert_same_vectors, real_activations, sparse
from safetensors.torch import save_file
from threads import one_thread
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from stratalens.config.validation import make_config
from stratalens.errors import CheckpointError
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import find_model
from stratalens.saes import find_saes
from stratalens.saes.formats import FORMATS, gemma_scope, gemma_scope_2
from stratalens.saes.sae import Checkpoint
from stratalens.saes.tree import SaeTree

D, L = 576, 700
NAMES = ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def x(embedded_model, real_tokenizer) -> Tensor:
    place = Hookpoint(16)
    return real_activations(embedded_model, real_tokenizer, [place])[place]


@pytest.fixture(scope="module")
def gemma_2() -> nn.Module:
    return skeleton("gemma2")


@pytest.fixture(scope="module")
def gemma_3() -> nn.Module:
    return skeleton("gemma3_text")


def skeleton(family: str) -> nn.Module:
    sizes = {"num_hidden_layers": 26, "hidden_size": 32, "intermediate_size": 48, "vocab_size": 99}
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model(family, **sizes))


def weights(d: int = D, width: int = L, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    scale = 1 / math.sqrt(d)
    tensors = {"W_enc": scale * random(d, width), "W_dec": scale * random(width, d), "b_enc": random(width)}
    return tensors | {"b_dec": 3 * random(d), "threshold": random(width).abs()}


def write_npz(folder: Path, tensors: dict[str, Tensor], *, small: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name.lower() if small else name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(folder / "params.npz", **arrays)
    return folder


def derived(x: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Latents and reconstruction: relu(h) where h > threshold, h = x W_enc + b_enc; nothing is subtracted before."""
    w = {name: tensor.double() for name, tensor in w.items()}
    pre = x.double() @ w["W_enc"] + w["b_enc"]
    latents = torch.where(pre > w["threshold"], pre.relu(), 0)
    return latents, latents @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize("small", [False, True])
def test_latents_of_gemma_scope_are_those_of_its_definition(tmp_path, x, small):
    w = weights()
    folder = write_npz(tmp_path / "gemma-scope-2b-pt-res/layer_16/width_16k/average_l0_71", w, small=small)
    place = Hookpoint(16)
    sae = gemma_scope.describe(Checkpoint(folder, place, place, "res/layer_16")).load()
    latents, rebuilt = derived(x, w)
    assert_same_latents(sae, x, latents)
    assert_same_vectors(sae.decode(sparse(latents), x), rebuilt)


def test_saes_of_the_embedding_read_it_before_gemma_multiplies_it(tmp_path, gemma_2, x):
    w = weights()
    write_npz(tmp_path / "gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", w)
    (found,) = gemma_scope.checkpoints(SaeTree.of(tmp_path), gemma_2, None)
    assert (str(found.hookpoint), str(found.target), found.l0) == ("0_resid_in", "0_resid_in", 6)
    sae = gemma_scope.describe(found).load()
    latents, rebuilt = derived(x.double() / math.sqrt(D), w)
    assert_same_latents(sae, x, latents)
    assert_same_vectors(sae.decode(sparse(latents), x), math.sqrt(D) * rebuilt)
    torch.testing.assert_close(sae.decoder.norms(), math.sqrt(D) * w["W_dec"].norm(dim=1))


def test_the_name_of_the_repository_says_where_an_sae_reads(tmp_path, gemma_2):
    for site in ("res", "mlp", "att", "transcoders"):
        write_npz(tmp_path / f"gemma-scope-2b-pt-{site}/layer_20/width_16k/average_l0_71", weights(8, 16))
    cached = tmp_path / "models--google--gemma-scope-9b-it-res/snapshots/0123abc/layer_9/width_131k/average_l0_22"
    write_npz(cached, weights(8, 16))
    found = gemma_scope.checkpoints(SaeTree.of(tmp_path), gemma_2, None)
    places = {
        checkpoint.name.split("/")[0]: (str(checkpoint.hookpoint), str(checkpoint.target)) for checkpoint in found
    }
    assert places == {
        "gemma-scope-2b-pt-res": ("20", "20"),
        "gemma-scope-2b-pt-mlp": ("20_mlp", "20_mlp"),
        "gemma-scope-2b-pt-att": ("20_attn_heads", "20_attn_heads"),
        "gemma-scope-2b-pt-transcoders": ("20_mlp_norm_no_gain", "20_mlp"),
        "models--google--gemma-scope-9b-it-res": ("9", "9"),
    }
    assert {checkpoint.l0 for checkpoint in found} == {71, 22}


def test_a_folder_inside_a_repository_is_enough(tmp_path, gemma_2):
    folder = write_npz(tmp_path / "gemma-scope-2b-pt-mlp/layer_3/width_16k/average_l0_41", weights(8, 16))
    for root in (folder, folder.parent, folder / "params.npz"):
        (found,) = gemma_scope.checkpoints(SaeTree.of(root), gemma_2, None)
        assert (str(found.hookpoint), found.l0) == ("3_mlp", 41)


def test_a_path_that_names_no_site_is_refused(tmp_path, gemma_2):
    write_npz(tmp_path / "mine/layer_3/width_16k/average_l0_41", weights(8, 16))
    with pytest.raises(CheckpointError, match="its path does not say at which site the SAE reads; name a folder"):
        gemma_scope.checkpoints(SaeTree.of(tmp_path / "mine"), gemma_2, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_array_is_named(tmp_path, name):
    tensors = {other: tensor for other, tensor in weights(8, 16).items() if other != name}
    place = Hookpoint(3)
    checkpoint = Checkpoint(write_npz(tmp_path / "layer_3", tensors), place, place, "res/layer_3")
    with pytest.raises(CheckpointError, match=f"no tensor `{name}`"):
        gemma_scope.describe(checkpoint)


CONFIGS: dict[str, dict[str, str]] = {
    "resid_post": {"hf_hook_point_in": "model.layers.9.output"},
    "attn_out": {"hf_hook_point_in": "model.layers.9.self_attn.o_proj.input"},
    "mlp_out": {"hf_hook_point_in": "model.layers.9.post_feedforward_layernorm.output"},
    "transcoder": {
        "hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.9.post_feedforward_layernorm.output",
    },
}
PLACES = {
    "resid_post": ("9", "9"),
    "attn_out": ("9_attn_heads", "9_attn_heads"),
    "mlp_out": ("9_mlp", "9_mlp"),
    "transcoder": ("9_mlp_norm", "9_mlp"),
}


def write_scope_2(folder: Path, w: dict[str, Tensor], config: dict | None) -> Path:
    folder.mkdir(parents=True)
    names = {"W_enc": "w_enc", "W_dec": "w_dec"}
    save_file({names.get(name, name): tensor for name, tensor in w.items()}, folder / "params.safetensors")
    if config is not None:
        settings = {"architecture": "jump_relu", "width": L, "l0": 20, "affine_connection": False, "type": "sae"}
        (folder / "config.json").write_text(json.dumps(settings | {"model_name": "gemma-v3-270m-pt"} | config))
    return folder


@pytest.mark.parametrize("every", ["", "_all"])
@pytest.mark.parametrize("has_config", [True, False])
def test_gemma_scope_2_reads_where_its_configuration_or_its_path_says(tmp_path, gemma_3, has_config, every):
    for site, config in CONFIGS.items():
        folder = tmp_path / f"{site}{every}/layer_9_width_16k_l0_small"
        write_scope_2(folder, weights(8, 16), config if has_config else None)
    found = gemma_scope_2.checkpoints(SaeTree.of(tmp_path), gemma_3, None)
    places = {checkpoint.path.parent.name: (str(checkpoint.hookpoint), str(checkpoint.target)) for checkpoint in found}
    assert places == {f"{site}{every}": place for site, place in PLACES.items()}
    assert {checkpoint.l0 for checkpoint in found} == {20 if has_config else None}


def test_the_configuration_counts_where_the_path_says_something_else(tmp_path, gemma_3):
    write_scope_2(tmp_path / "resid_post/layer_5_width_16k_l0_small", weights(8, 16), CONFIGS["attn_out"])
    (found,) = gemma_scope_2.checkpoints(SaeTree.of(tmp_path), gemma_3, None)
    assert str(found.hookpoint) == "9_attn_heads"


@pytest.mark.parametrize("affine", [False, True])
def test_latents_of_gemma_scope_2_are_those_of_its_definition(tmp_path, x, affine):
    w = weights()
    skip = torch.randn(D, D, generator=torch.Generator().manual_seed(7)) / D
    tensors = {**w, **({"affine_skip_connection": skip} if affine else {})}
    folder = write_scope_2(tmp_path / "x", tensors, {"affine_connection": affine})
    sae = gemma_scope_2.describe(Checkpoint(folder, Hookpoint(16, "mlp_norm"), Hookpoint(16, "mlp"), "x")).load()
    latents, rebuilt = derived(x, w)
    assert_same_latents(sae, x, latents)
    expected = rebuilt + x.double() @ skip.double() if affine else rebuilt
    assert_same_vectors(sae.decode(sparse(latents), x), expected)


@pytest.mark.parametrize("folder", ["clt/width_262k_l0_big", "crosscoder/layer_9_width_65k_l0_big"])
def test_cross_layer_transcoders_are_refused_by_name(tmp_path, gemma_3, folder):
    tensors = weights(8, 16) | {"W_dec": torch.zeros(16, 3, 8)}
    write_scope_2(tmp_path / folder, tensors, None)
    assert gemma_scope_2.recognises(SaeTree.of(tmp_path))
    with pytest.raises(CheckpointError, match="only cross-layer transcoders or crosscoders, which are not supported"):
        gemma_scope_2.checkpoints(SaeTree.of(tmp_path), gemma_3, None)
    place = Hookpoint(9)
    with pytest.raises(CheckpointError, match="a cross-layer transcoder or crosscoder, which is not supported"):
        gemma_scope_2.describe(Checkpoint(tmp_path / folder, place, place, "x"))


def test_another_architecture_is_refused_by_name(tmp_path):
    folder = write_scope_2(tmp_path / "x", weights(8, 16), {"architecture": "batch_topk"})
    place = Hookpoint(9)
    with pytest.raises(CheckpointError, match="architecture `batch_topk` is unknown; expected jump_relu"):
        gemma_scope_2.describe(Checkpoint(folder, place, place, "x"))


@pytest.mark.parametrize("kind", ["gemma_scope", "gemma_scope_2"])
def test_the_format_is_found_from_the_files(tmp_path, tiny_model, kind):
    if kind == "gemma_scope":
        write_npz(tmp_path / "gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_71", weights(32, 64))
    else:
        write_scope_2(tmp_path / "resid_post/layer_2_width_16k_l0_small", weights(32, 64), None)
    tree = SaeTree.of(tmp_path)
    assert next(name for name, own in FORMATS.items() if own.recognises(tree)) == kind
    config = make_config(base_model=str(tiny_model), sae_model=str(tmp_path))
    (sae,) = find_saes(config, find_model(config)).values()
    assert (str(sae.hookpoint), sae.num_latents, sae.activation) == ("2", 64, "jumprelu")
