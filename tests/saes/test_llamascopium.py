"""Llamascopium, and R1-Distill before it: latents equal those of the library, and of its formula, scale included."""

import json
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import llamascopium as library
import pytest
import torch
from library_files import activations, described, found, refusal_of
from oracles import assert_same_latents, assert_same_vectors
from safetensors.torch import load_file, save_file
from threads import one_thread
from torch import Tensor

from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.saes.formats import llamascopium

D_MODEL, EXPANSION, K = 576, 1.5, 20
RESID, NORMALISED, MLP_OUT = "blocks.16.hook_resid_post", "blocks.16.ln2.hook_normalized", "blocks.16.hook_mlp_out"
VARIANTS = [
    {"act_fn": act_fn, "norm_activation": norm, "sparsity_include_decoder_norm": include, "use_glu_encoder": glu}
    for act_fn, norm, include, glu in product(
        ("relu", "jumprelu", "topk"), ("dataset-wise", "token-wise", "inference"), (False, True), (False, True)
    )
]


@pytest.fixture(autouse=True)
def _one_thread_without_gradient() -> Iterator[None]:
    with one_thread(), torch.no_grad():
        yield


def name_of(settings: dict[str, object]) -> str:
    return "-".join(str(value) for value in settings.values())


def random_coder(x: Tensor, hook_in: str = RESID, hook_out: str = RESID, **settings):
    """One of the library, with random weights under which latents fire on vectors of this length."""
    settings = {"d_model": D_MODEL, "expansion_factor": EXPANSION, "top_k": K, **settings}
    config = library.SAEConfig(hook_point_in=hook_in, hook_point_out=hook_out, dtype=torch.float32, **settings)
    coder = library.SparseAutoEncoder.from_config(config)
    generator = torch.Generator().manual_seed(0)
    length = float(x.norm(dim=1).mean())
    scaled = config.norm_activation != "inference"
    for name, parameter in coder.named_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
        if name in ("W_E", "W_E_glu"):
            parameter.div_(D_MODEL**0.5 if scaled else length)
        if name == "W_D":
            parameter.mul_(torch.rand((len(parameter), 1), generator=generator) + 0.1)
    coder.set_dataset_average_activation_norm({hook_in: 1.2 * length, hook_out: 0.3 * length})
    return coder


def write(coder, folder: Path, container: str = "safetensors") -> None:
    folder.mkdir()
    coder.cfg.save_hyperparameters(folder)
    coder.save_checkpoint(folder / f"sae_weights.{container}")


def assert_as_the_library(folder: Path, x: Tensor, y: Tensor) -> None:
    theirs, sae = library.SparseAutoEncoder.from_pretrained(str(folder)), described(llamascopium, folder).load()
    hook_in, hook_out = theirs.cfg.hook_point_in, theirs.cfg.hook_point_out
    scaled, factors = theirs.normalize_activations({hook_out: y, hook_in: x}, return_scale_factor=True)
    latents = theirs.encode(scaled[hook_in])
    assert_same_latents(sae, x, latents, precision=2e-5)
    rebuilt = theirs.denormalize_activations({hook_out: theirs.decode(latents)}, factors)[hook_out]
    assert_same_vectors(sae.decode(sae.encode(x), x), rebuilt, precision=2e-5)


@pytest.mark.parametrize("settings", VARIANTS, ids=map(name_of, VARIANTS))
def test_random_ones_encode_real_activations_as_the_library_does(tmp_path, settings):
    x = activations("resid")
    write(random_coder(x, **settings), tmp_path / "sae")
    assert_as_the_library(tmp_path / "sae", x, x)


@pytest.mark.parametrize("norm", ["dataset-wise", "inference"])
@pytest.mark.parametrize("act_fn", ["jumprelu", "topk"])
def test_transcoders_encode_what_they_read_and_rebuild_what_is_elsewhere(tmp_path, act_fn, norm):
    x = activations("mlp_norm")
    coder = random_coder(x, NORMALISED, MLP_OUT, act_fn=act_fn, norm_activation=norm)
    write(coder, tmp_path / "sae")
    assert_as_the_library(tmp_path / "sae", x, activations("mlp"))
    file = described(llamascopium, tmp_path / "sae")
    assert (file.hookpoint, file.target) == (Hookpoint(16, "mlp_norm_no_gain"), Hookpoint(16, "mlp"))


@pytest.mark.parametrize("use_decoder_bias", [True, False])
def test_a_pickled_file_and_one_without_a_decoder_bias_are_read_too(tmp_path, use_decoder_bias):
    x = activations("resid")
    write(random_coder(x, act_fn="jumprelu", use_decoder_bias=use_decoder_bias), tmp_path / "sae", "pt")
    assert_as_the_library(tmp_path / "sae", x, x)


@pytest.mark.parametrize("place", llamascopium.WEIGHTS_FILES)
def test_weights_are_found_where_the_library_looks_for_them(tmp_path, place):
    x = activations("resid")
    coder = random_coder(x, act_fn="topk")
    write(coder, tmp_path / "sae")
    (tmp_path / "sae" / "sae_weights.safetensors").unlink()
    (tmp_path / "sae" / place).parent.mkdir(exist_ok=True)
    coder.save_checkpoint(tmp_path / "sae" / place)
    assert_as_the_library(tmp_path / "sae", x, x)


def test_a_trained_sae_that_the_library_has_encodes_and_explains_alike(tmp_path):
    """The shipped SAE of block 16, in the library's parameters: vectors scaled to the length sqrt(d)."""
    x = activations("resid")
    shipped = {
        name: array.float() for name, array in load_file(SAE_DIRECTORY / "layers.16" / "sae.safetensors").items()
    }
    length = float(x.norm(dim=1).mean())
    scale = D_MODEL**0.5 / length
    latents = len(shipped["encoder.bias"])
    coder = random_coder(x, act_fn="topk", top_k=32, expansion_factor=latents / D_MODEL)
    coder.set_dataset_average_activation_norm({RESID: length})
    weight = shipped["encoder.weight"]
    coder.W_E.copy_(weight.T)
    coder.b_E.copy_(scale * (shipped["encoder.bias"] - weight @ shipped["b_dec"]))
    coder.W_D.copy_(shipped["W_dec"])
    coder.b_D.copy_(scale * shipped["b_dec"])
    write(coder, tmp_path / "sae")
    assert_as_the_library(tmp_path / "sae", x, x)
    sae = described(llamascopium, tmp_path / "sae").load()
    fvu = (sae.decode(sae.encode(x), x) - x).pow(2).sum() / (x - x.mean(dim=0)).pow(2).sum()
    assert fvu < 0.5


def test_a_gated_encoder_counts_both_of_its_matrices(tmp_path):
    x = activations("resid")
    for gated in (False, True):
        write(random_coder(x, use_glu_encoder=gated), tmp_path / str(gated))
    one, two = (described(llamascopium, tmp_path / str(gated)).encoder_bytes for gated in (False, True))
    assert two == 2 * one == 2 * 4 * D_MODEL * int(EXPANSION * D_MODEL)


def linear_layers(folder: Path, threshold: str = "log_jumprelu_threshold", **settings: object) -> dict[str, Tensor]:
    """A checkpoint with the names that R1-Distill has, which the library no longer reads."""
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    width, length = int(EXPANSION * D_MODEL), float(activations("resid").norm(dim=1).mean())
    content = {
        "encoder.weight": torch.randn(width, D_MODEL, generator=generator) / D_MODEL**0.5,
        "encoder.bias": torch.randn(width, generator=generator),
        "decoder.weight": torch.randn(D_MODEL, width, generator=generator),
        "decoder.bias": torch.randn(D_MODEL, generator=generator),
        threshold: torch.randn(width, generator=generator) + 2,
        f"dataset_average_activation_norm.{RESID}": torch.tensor(length),
    }
    save_file(content, folder / "sae_weights.safetensors")
    config = {"d_model": D_MODEL, "expansion_factor": EXPANSION, "hook_point_in": RESID, "hook_point_out": RESID}
    config |= {"act_fn": "jumprelu", "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True}
    (folder / "config.json").write_text(json.dumps(config | settings))
    return content


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("threshold", ["log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"])
def test_r1_distill_encodes_as_its_formula_says_in_float64(tmp_path, include, threshold):
    """h = s x W + b with s = sqrt(d) / average norm; a latent has the value h where h |w_dec| > exp(log threshold)."""
    w = linear_layers(tmp_path / "sae", threshold, sparsity_include_decoder_norm=include)
    x, w = activations("resid"), {name: array.double() for name, array in w.items()}
    scale = math.sqrt(D_MODEL) / w[f"dataset_average_activation_norm.{RESID}"]
    h = scale * x.double() @ w["encoder.weight"].T + w["encoder.bias"]
    lengths = w["decoder.weight"].norm(dim=0) if include else torch.ones(len(h.T), dtype=torch.float64)
    latents = h * (h * lengths > w[threshold].exp())
    rebuilt = (latents @ w["decoder.weight"].T + w["decoder.bias"]) / scale
    sae = described(llamascopium, tmp_path / "sae").load()
    assert_same_latents(sae, x, latents, precision=2e-5)
    assert_same_vectors(sae.decode(sae.encode(x), x), rebuilt)
    assert float((latents > 0).double().sum(dim=1).mean()) > 10


REFUSED: dict[str, dict[str, object]] = {
    "a crosscoder of Llamascopium": {"sae_type": "crosscoder"},
    "a cross-layer transcoder of Llamascopium": {"sae_type": "clt"},
    "a sparse attention of Llamascopium": {"sae_type": "lorsa"},
    "a mixture of transforms of Llamascopium": {"sae_type": "molt"},
    "an unknown kind of Llamascopium": {"sae_type": "ocean"},
    "an SAE of Llamascopium that is normalised by batches": {"norm_activation": "batch-wise"},
    "an SAE of Llamascopium that picks latents over a batch": {"act_fn": "batchtopk"},
    "an SAE of Llamascopium with an unknown activation": {"act_fn": "swish"},
    "an SAE of Llamascopium with more k than latents": {"act_fn": "topk", "top_k": 4000},
    "a transcoder of Llamascopium that is normalised by tokens": {
        "norm_activation": "token-wise",
        "hook_point_in": NORMALISED,
    },
    "an SAE of Llamascopium that subtracts its decoder bias": {"apply_decoder_bias_to_pre_encoder": True},
    "an SAE of Llamascopium of another width than its tensors": {"expansion_factor": 2},
    "an SAE of Llamascopium without the norm of its vectors": {"hook_point_out": MLP_OUT},
    "an SAE of Llamascopium without d_model": {"d_model": None},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(tmp_path, documented, case):
    linear_layers(tmp_path / "sae", **REFUSED[case])
    line = refusal_of(lambda: described(llamascopium, tmp_path / "sae"))
    documented("SAE checkpoints", case, line)


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_an_average_norm_that_is_no_length_is_refused(tmp_path, number):
    content = linear_layers(tmp_path / "sae")
    content[f"dataset_average_activation_norm.{RESID}"] = torch.tensor(number)
    save_file(content, tmp_path / "sae" / "sae_weights.safetensors")
    refusal_of(lambda: described(llamascopium, tmp_path / "sae"))


def test_hooks_that_the_model_lacks_are_named(tmp_path):
    linear_layers(tmp_path / "sae", hook_point_in="blocks.16.hook_ocean")
    assert "(found: blocks.16.hook_ocean, " in refusal_of(lambda: found(llamascopium, tmp_path))
