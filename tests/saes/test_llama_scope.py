"""Llama Scope of 2024: no library reads it rightly today, so the judge is its formula, in float64."""

import json
import math
from pathlib import Path

import pytest
import torch
from library_files import activations, described, found, refusal_of
from oracles import assert_same_latents, assert_same_vectors
from safetensors.torch import load_file, save_file
from torch import Tensor

from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.saes.formats import llama_scope

D_MODEL, D_SAE, K = 576, 800, 20
RESID, NORMALISED, MLP_OUT = "blocks.16.hook_resid_post", "blocks.16.ln2.hook_normalized", "blocks.16.hook_mlp_out"
NORMS = {"in": 24.0, "out": 2.25}
"""Average norms as different as in the transcoder of layer 18, where they are 64.0 and 5.97."""


def random_arrays() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    decoder = random(D_MODEL, D_SAE) * (torch.rand(D_SAE, generator=generator) + 0.1)
    return {
        "encoder.weight": random(D_SAE, D_MODEL) / D_MODEL**0.5,
        "encoder.bias": random(D_SAE),
        "decoder.weight": decoder,
        "decoder.bias": random(D_MODEL),
    }


def write(folder: Path, arrays: dict[str, Tensor], **settings: object) -> dict:
    """A checkpoint of the layout of `fnlp/Llama3_1-8B-Base-LXTC-8x`, with the keys of its `hyperparams.json`."""
    (folder / "checkpoints").mkdir(parents=True)
    save_file(arrays, folder / "checkpoints" / "final.safetensors")
    d_sae, d_model = arrays["encoder.weight"].shape
    config = {
        **{"hook_point_in": RESID, "hook_point_out": RESID, "d_model": d_model, "d_sae": d_sae, "top_k": K},
        **{
            "act_fn": "jumprelu",
            "jump_relu_threshold": 1.5,
            "use_decoder_bias": True,
            "norm_activation": "dataset-wise",
        },
        **{"dataset_average_activation_norm": NORMS, "sparsity_include_decoder_norm": True},
        **{"apply_decoder_bias_to_pre_encoder": False, "expansion_factor": d_sae // d_model, **settings},
    }
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "hyperparams.json").write_text(json.dumps(config))
    return config


def derived(arrays: dict[str, Tensor], config: dict, x: Tensor) -> tuple[Tensor, Tensor]:
    """Latents and reconstructions by the steps that the library takes as it loads one, each in float64."""
    w_enc, b_enc, w_dec, b_dec = (
        arrays[name].double() for name in ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
    )
    if config["norm_activation"] == "dataset-wise":
        scale_in, scale_out = (
            math.sqrt(config["d_model"]) / config["dataset_average_activation_norm"][side] for side in ("in", "out")
        )
        b_enc = b_enc / scale_in
        b_dec = b_dec / scale_out
        w_dec = w_dec * scale_in / scale_out
    if config["sparsity_include_decoder_norm"]:
        lengths = w_dec.norm(dim=0)
        w_enc = w_enc * lengths[:, None]
        b_enc = b_enc * lengths
        w_dec = w_dec / lengths
    h = x.double() @ w_enc.T + b_enc
    if config["act_fn"] == "topk":
        latents = torch.zeros_like(h).scatter(1, h.topk(K).indices, 1.0) * h.clamp(min=0)
    else:
        latents = h * (h > (config["jump_relu_threshold"] if config["act_fn"] == "jumprelu" else 0.0))
    return latents, latents @ w_dec.T + b_dec


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
@pytest.mark.parametrize("act_fn", ["jumprelu", "topk", "relu"])
@pytest.mark.parametrize("kind", ["SAE", "transcoder"])
def test_latents_and_reconstructions_are_those_of_the_formula(tmp_path, kind, act_fn, norm, include):
    transcoder = kind == "transcoder"
    x, arrays = activations("mlp_norm" if transcoder else "resid"), random_arrays()
    hooks = (NORMALISED, MLP_OUT) if transcoder else (RESID, RESID)
    settings = {"act_fn": act_fn, "norm_activation": norm, "sparsity_include_decoder_norm": include}
    config = write(tmp_path / "L16", arrays, hook_point_in=hooks[0], hook_point_out=hooks[1], **settings)
    file = described(llama_scope, tmp_path)
    latents, rebuilt = derived(arrays, config, x)
    sae = file.load()
    assert_same_latents(sae, x, latents, precision=2e-5)
    assert_same_vectors(sae.decode(sae.encode(x), x), rebuilt)
    assert file.target == Hookpoint(16, "mlp" if transcoder else "resid")
    assert file.hookpoint == Hookpoint(16, "mlp_norm_no_gain" if transcoder else "resid")
    assert (file.activation, file.k) == (act_fn, K if act_fn == "topk" else None)


def test_the_order_of_scaling_and_folding_matters_by_the_ratio_of_the_norms(tmp_path):
    """Folding the decoder's norms first, as some loaders do, misses the factor s_in / s_out."""
    arrays, x = random_arrays(), activations("mlp_norm")
    config = write(tmp_path / "L16", arrays, act_fn="relu")
    latents, _ = derived(arrays, config, x)
    lengths = arrays["decoder.weight"].double().norm(dim=0)
    other = arrays["encoder.bias"].double() / (math.sqrt(D_MODEL) / NORMS["in"])
    misread = (x.double() @ arrays["encoder.weight"].double().T + other).clamp(min=0) * lengths
    ratio = (misread / latents)[latents > 0]
    torch.testing.assert_close(ratio, torch.full_like(ratio, NORMS["in"] / NORMS["out"]))
    assert_same_latents(described(llama_scope, tmp_path).load(), x, latents, precision=2e-5)


def test_a_trained_sae_in_this_form_explains_its_block(tmp_path):
    """The shipped SAE of block 16, whose vectors were scaled to the length sqrt(d)."""
    x = activations("resid")
    shipped = {
        name: array.float() for name, array in load_file(SAE_DIRECTORY / "layers.16" / "sae.safetensors").items()
    }
    length = float(x.norm(dim=1).mean())
    scale, weight = D_MODEL**0.5 / length, shipped["encoder.weight"]
    arrays = {
        "encoder.weight": weight,
        "encoder.bias": scale * (shipped["encoder.bias"] - weight @ shipped["b_dec"]),
        "decoder.weight": shipped["W_dec"].T.contiguous(),
        "decoder.bias": scale * shipped["b_dec"],
    }
    config = write(
        tmp_path / "L16", arrays, dataset_average_activation_norm={"in": length, "out": length}, act_fn="topk", top_k=32
    )
    sae = described(llama_scope, tmp_path).load()
    rebuilt = sae.decode(sae.encode(x), x)
    assert config["top_k"] == 32
    assert (rebuilt - x).pow(2).sum() / (x - x.mean(dim=0)).pow(2).sum() < 0.5


def test_a_repository_has_a_folder_for_each_layer(tmp_path):
    arrays = random_arrays()
    for layer in (3, 16):
        hook = f"blocks.{layer}.hook_resid_post"
        write(tmp_path / f"Llama3_1-8B-Base-L{layer}R-8x", arrays, hook_point_in=hook, hook_point_out=hook)
    assert {name: one.hookpoint for name, one in found(llama_scope, tmp_path).items()} == {
        "Llama3_1-8B-Base-L16R-8x": Hookpoint(16),
        "Llama3_1-8B-Base-L3R-8x": Hookpoint(3),
    }


REFUSED: dict[str, dict[str, object]] = {
    "an SAE of Llama Scope with an unknown activation": {"act_fn": "swish"},
    "an SAE of Llama Scope that is normalised by batches": {"norm_activation": "batch-wise"},
    "an SAE of Llama Scope without the norm of its vectors": {"dataset_average_activation_norm": None},
    "an SAE of Llama Scope with a norm of zero": {"dataset_average_activation_norm": {"in": 0, "out": 1}},
    "an SAE of Llama Scope that subtracts its decoder bias": {"apply_decoder_bias_to_pre_encoder": True},
    "an SAE of Llama Scope with a gated encoder": {"use_glu_encoder": True},
    "an SAE of Llama Scope with more k than latents": {"act_fn": "topk", "top_k": 801},
    "an SAE of Llama Scope that does not say whether the decoder's norms count": {
        "sparsity_include_decoder_norm": None
    },
    "an SAE of Llama Scope of another width than its tensors": {"d_sae": 801},
    "an SAE of Llama Scope at a hook that the model lacks": {"hook_point_in": "blocks.16.hook_ocean"},
    "an SAE of Llama Scope with a negative threshold": {"jump_relu_threshold": -1},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(tmp_path, documented, case):
    write(tmp_path / "L16", random_arrays(), **REFUSED[case])
    documented("SAE checkpoints", case, refusal_of(lambda: described(llama_scope, tmp_path)))


def test_weights_that_are_missing_or_truncated_are_refused(tmp_path):
    write(tmp_path / "L16", random_arrays())
    weights = tmp_path / "L16" / "checkpoints" / "final.safetensors"
    content = weights.read_bytes()
    for size in (0, 100, len(content) - 1):
        weights.write_bytes(content[:size])
        assert "truncated or corrupt" in refusal_of(lambda: described(llama_scope, tmp_path))
    weights.unlink()
    assert "final.safetensors: missing" in refusal_of(lambda: described(llama_scope, tmp_path))
