"""Checkpoints that SAELens wrote: latents and reconstructions equal the library's own, scale included."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from oracles import assert_same_latents, assert_same_vectors, real_activations, sparse
from safetensors.torch import load_file, save_file
from threads import one_thread
from torch import Tensor
from transformers import AutoConfig, AutoModel

from stratalens.errors import CheckpointError
from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.saes.activations import Threshold
from stratalens.saes.formats import saelens
from stratalens.saes.sae import Checkpoint, Sae
from stratalens.saes.tree import SaeTree

sae_lens = pytest.importorskip("sae_lens")

BLOCK = 16
READ, ADDED = Hookpoint(BLOCK, "mlp_norm"), Hookpoint(BLOCK, "mlp")
D_IN, D_SAE = 576, 700
NORMALISATIONS = ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"]
ARCHITECTURES = ["standard", "topk", "jumprelu", "gated"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def activations(embedded_model, real_tokenizer) -> dict[Hookpoint, Tensor]:
    return real_activations(embedded_model, real_tokenizer, [Hookpoint(BLOCK), READ, ADDED])


@pytest.fixture(scope="module")
def x(activations) -> Tensor:
    return activations[Hookpoint(BLOCK)]


@pytest.fixture(autouse=True)
def _no_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def fill(sae, seed: int = 0) -> None:
    """Random weights under which some latents fire on real activations, and decoder rows of different lengths."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    d_in, d_sae = sae.W_enc.shape
    rows = random(d_sae, sae.W_dec.shape[1])
    lengths = random(d_sae).exp()[:, None]
    new = {"W_enc": random(d_in, d_sae) / math.sqrt(d_in), "W_dec": lengths * rows / rows.norm(dim=1, keepdim=True)}
    new |= {"b_enc": 0.1 * random(d_sae), "b_dec": 2 * random(sae.W_dec.shape[1])}
    new |= {"b_gate": 0.1 * random(d_sae), "b_mag": 0.1 * random(d_sae), "r_mag": 0.3 * random(d_sae)}
    new |= {"threshold": 0.5 * random(d_sae).abs(), "W_skip": 0.1 * random(sae.W_dec.shape[1], d_in)}
    for name, parameter in sae.named_parameters():
        parameter.data.copy_(new[name])


def written(folder: Path, architecture: str, seed: int = 0, hook: str = "blocks.16.hook_resid_post", **settings):
    """An SAE of the library with random weights, and the folder into which the library wrote it."""
    sae_class, config_class = sae_lens.registry.get_sae_class(architecture)
    settings = {"d_in": D_IN, "d_sae": D_SAE, **({"k": 24} if architecture == "topk" else {}), **settings}
    metadata = sae_lens.saes.sae.SAEMetadata(hook_name=hook, hook_name_out="blocks.16.hook_mlp_out", model_name="x")
    sae = sae_class(config_class(**settings, metadata=metadata))
    fill(sae, seed)
    sae.save_model(folder)
    return sae_lens.SAE.load_from_disk(folder)


def loaded(folder: Path) -> Sae:
    place = Hookpoint(BLOCK)
    return saelens.describe(Checkpoint(folder, place, place, "blocks.16.hook_resid_post")).load()


def assert_judged_alike(folder: Path, theirs, x: Tensor) -> None:
    """Latents and reconstruction of a folder equal those of the library's SAE."""
    ours, x = loaded(folder), x.float()
    expected = theirs.encode(x)
    assert_same_latents(ours, x, expected)
    assert_same_vectors(ours.decode(sparse(expected), x), theirs(x))


@pytest.mark.parametrize("apply_b_dec_to_input", [False, True])
@pytest.mark.parametrize("normalize_activations", NORMALISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_random_saes_encode_and_decode_as_the_library_does(
    tmp_path, x, architecture, normalize_activations, apply_b_dec_to_input
):
    settings = {"normalize_activations": normalize_activations, "apply_b_dec_to_input": apply_b_dec_to_input}
    theirs = written(tmp_path, architecture, **settings)
    assert_judged_alike(tmp_path, theirs, x)


@pytest.mark.parametrize("normalize_activations", ["none", "layer_norm"])
def test_a_rescaled_topk_has_latents_times_the_decoder_norms(tmp_path, x, normalize_activations):
    settings = {"rescale_acts_by_decoder_norm": True, "normalize_activations": normalize_activations}
    theirs = written(tmp_path, "topk", **settings)
    assert_judged_alike(tmp_path, theirs, x)
    plain = written(tmp_path / "plain", "topk", normalize_activations=normalize_activations)
    assert not torch.allclose(plain.encode(x.float()), theirs.encode(x.float())), "the factor matters"
    torch.testing.assert_close(loaded(tmp_path).decoder.norms(), torch.ones(D_SAE))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("architecture", ["standard", "jumprelu"])
def test_weights_of_other_types_are_read(tmp_path, x, architecture, dtype):
    written(tmp_path, architecture, dtype=dtype)
    assert_judged_alike(tmp_path, sae_lens.SAE.load_from_disk(tmp_path, dtype="float32"), x)


@pytest.mark.parametrize(
    "architecture", ["transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder"]
)
@pytest.mark.parametrize("normalize_activations", ["none", "layer_norm"])
def test_transcoders_map_as_the_library_does(tmp_path, activations, architecture, normalize_activations):
    settings = {"apply_b_dec_to_input": False, "d_out": D_IN, "normalize_activations": normalize_activations}
    theirs = written(tmp_path, architecture, hook="blocks.16.ln2.hook_normalized", **settings)
    assert_judged_alike(tmp_path, theirs, activations[READ])


@pytest.mark.parametrize("layer", [4, 16, 28])
@pytest.mark.parametrize("architecture", ["topk", "standard", "jumprelu", "gated"])
def test_trained_saes_that_the_library_wrote_encode_alike(
    tmp_path, embedded_model, real_tokenizer, layer, architecture
):
    """The shipped SAEs, trained for this project in sparsify's format, under the names of SAELens."""
    trained = {
        name: array.float() for name, array in load_file(SAE_DIRECTORY / f"layers.{layer}/sae.safetensors").items()
    }
    width, d_in = trained["encoder.weight"].shape
    theirs = written(tmp_path, architecture, d_in=d_in, d_sae=width, **({"k": 32} if architecture == "topk" else {}))
    new = {"W_enc": trained["encoder.weight"].T, "b_enc": trained["encoder.bias"]}
    new |= {"W_dec": trained["W_dec"], "b_dec": trained["b_dec"], "b_gate": trained["encoder.bias"] - 1}
    new |= {"b_mag": trained["encoder.bias"], "r_mag": 0.1 * torch.ones(width), "threshold": 2 * torch.ones(width)}
    for name, parameter in theirs.named_parameters():
        parameter.data.copy_(new[name])
    theirs.save_model(tmp_path)
    place = Hookpoint(layer)
    vectors = real_activations(embedded_model, real_tokenizer, [place])[place]
    assert_judged_alike(tmp_path, theirs, vectors)


@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK", "TopK", "JumpReLU", "Gated", "Standard"])
def test_what_a_training_saves_for_inference_encodes_as_the_library_does(tmp_path, x, kind):
    extra = {"MatryoshkaBatchTopK": {"matryoshka_widths": [256, D_SAE]}}.get(kind, {})
    config = getattr(sae_lens, f"{kind}TrainingSAEConfig")(d_in=D_IN, d_sae=D_SAE, **extra)
    sae = getattr(sae_lens, f"{kind}TrainingSAE")(config)
    fill(sae)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.7)
    sae.save_inference_model(tmp_path)
    assert_judged_alike(tmp_path, sae_lens.SAE.load_from_disk(tmp_path), x)


BEFORE_6: dict[str, dict[str, object]] = {
    "standard": {"activation_fn_str": "relu"},
    "topk": {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 24}},
    "topk of version 5": {"activation_fn": "topk", "activation_fn_kwargs": {"k": 24}, "sae_lens_version": "5.3.1"},
    "jumprelu": {"architecture": "jumprelu", "activation_fn_str": "relu"},
    "gated": {"architecture": "gated", "activation_fn_str": "relu"},
    "layer norm": {"normalize_activations": "layer_norm"},
    "rescaled": {"normalize_activations": "constant_norm_rescale", "apply_b_dec_to_input": False},
    "normalised, as a switch": {"normalize_activations": True},
    "not normalised, as a switch": {"normalize_activations": False},
}


@pytest.mark.parametrize("name", ["hook_point", "hook_name"])
@pytest.mark.parametrize("case", BEFORE_6)
def test_flat_configurations_of_earlier_versions_are_read_as_the_library_reads_them(tmp_path, x, case, name):
    """A TopK was stored as "standard": read as ReLU it has twenty times the latents."""
    settings = {"architecture": "standard", **BEFORE_6[case]}
    written(tmp_path, str(settings["architecture"]))
    flat = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", "hook_point_layer": BLOCK}
    flat |= {name: "blocks.16.hook_resid_post", "model_name": "x", "prepend_bos": True, "context_size": 128}
    (tmp_path / "cfg.json").write_text(json.dumps(flat | settings))
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    save_file({**tensors, "scaling_factor": torch.ones(D_SAE)}, tmp_path / "sae_weights.safetensors")
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    assert_judged_alike(tmp_path, theirs, x)
    if case.startswith("topk"):
        assert float((theirs.encode(x.float()) > 0).double().sum(1).mean()) <= 24


def test_a_scalar_rescale_multiplies_what_is_encoded_and_divides_what_is_decoded(tmp_path, x):
    """No class of the library that is read here has it any more: derived in float64."""
    written(tmp_path, "standard")
    config = json.loads((tmp_path / "cfg.json").read_text())
    config |= {"normalize_activations": "constant_scalar_rescale", "activation_normalization_factor": 0.05}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    w = {name: array.double() for name, array in load_file(tmp_path / "sae_weights.safetensors").items()}
    latents = torch.relu((0.05 * x.double() - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    ours = loaded(tmp_path)
    assert_same_latents(ours, x, latents)
    assert_same_vectors(ours.decode(ours.encode(x), x), (latents @ w["W_dec"] + w["b_dec"]) / 0.05)


@pytest.mark.parametrize("normalize_activations", ["none", "layer_norm", "constant_norm_rescale"])
def test_an_sae_of_a_centred_model_reads_vectors_without_their_mean(tmp_path, x, normalize_activations):
    """As TransformerLens gives them with `center_writing_weights`; what it then reconstructs gets the mean back."""
    theirs, x = written(tmp_path, "standard", normalize_activations=normalize_activations), x.float() + 3
    place = Hookpoint(BLOCK)
    ours = saelens.describe(Checkpoint(tmp_path, place, place, "x", without_mean=True)).load()
    mean = x.mean(-1, keepdim=True)
    expected = theirs.encode(x - mean)
    assert_same_latents(ours, x, expected)
    assert_same_vectors(ours.decode(sparse(expected), x), theirs(x - mean) + mean)


@pytest.mark.parametrize(
    ("family", "hook", "centred"),
    [
        ("gpt2", "blocks.1.hook_resid_pre", True),
        ("gpt2", "blocks.1.hook_mlp_out", True),
        ("gpt2", "blocks.1.attn.hook_z", False),
        ("llama", "blocks.1.hook_resid_pre", False),
    ],
)
def test_only_models_with_layer_norms_are_centred_and_only_where_they_are_told_to_be(tmp_path, family, hook, centred):
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model(family, num_hidden_layers=2, hidden_size=384))
    written(tmp_path, "standard", hook=hook)
    for told in (False, True):
        config = json.loads((tmp_path / "cfg.json").read_text())
        config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": told}
        (tmp_path / "cfg.json").write_text(json.dumps(config))
        (found,) = saelens.checkpoints(SaeTree.of(tmp_path), model, None)
        assert found.without_mean == (told and centred)


def test_heads_side_by_side_are_encoded_as_the_library_encodes_them_apart(tmp_path, activations):
    hook = "blocks.16.attn.hook_z"
    theirs = written(tmp_path, "standard", hook=hook, reshape_activations="hook_z", dtype="float32")
    x = activations[Hookpoint(BLOCK)].float()
    expected = theirs.encode(x.unflatten(1, (9, 64)))
    ours = loaded(tmp_path)
    assert_same_latents(ours, x, expected)
    assert_same_vectors(ours.decode(sparse(expected), x), theirs(x.unflatten(1, (9, 64))).flatten(1))


def test_thresholds_of_a_training_are_logarithms(tmp_path):
    written(tmp_path, "jumprelu")
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    expected = tensors.pop("threshold").clamp(min=1e-6)
    save_file({**tensors, "log_threshold": expected.log()}, tmp_path / "sae_weights.safetensors")
    activation = loaded(tmp_path).activation
    assert isinstance(activation, Threshold)
    torch.testing.assert_close(activation.threshold, expected)


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "temporal": (
        {"architecture": "temporal"},
        "architecture `temporal` of SAELens is not supported; read are standard",
    ),
    "matching pursuit": ({"architecture": "matching_pursuit"}, "architecture `matching_pursuit` of SAELens is not"),
    "signed topk": ({"architecture": "abstopk"}, "architecture `abstopk` of SAELens is not supported"),
    "a training": ({"architecture": "batchtopk"}, "is a checkpoint of a training; save it with save_inference_model"),
    "tanh": ({"metadata": {}, "activation_fn_str": "tanh-relu"}, "activation `tanh-relu` is unknown"),
    "another norm": ({"normalize_activations": "batch"}, "normalize_activations `batch` is unknown; expected none"),
    "no factor": ({"normalize_activations": "constant_scalar_rescale"}, "no activation_normalization_factor"),
    "no k": ({"architecture": "topk"}, "a topk without a whole number k"),
    "a fraction of k": ({"architecture": "topk", "k": 8.5}, "a topk without a whole number k"),
    "k of 2000": ({"architecture": "topk", "k": 2000}, "k = 2000 exceeds the 700 latents"),
    "one head": ({"metadata": {"hook_head_index": 3}}, "an SAE of the single head 3, which is not supported"),
    "a transcoder": ({"architecture": "transcoder", "apply_b_dec_to_input": True}, "apply_b_dec_to_input of a"),
    "another width": ({"d_sae": 512}, r"`W_enc` has shape \[576, 700\], but cfg.json says \[576, 512\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(tmp_path, case):
    written(tmp_path, "standard")
    changes, message = REFUSED[case]
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=message):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["scaling_factor", "finetuning_scaling_factor"])
def test_factors_of_a_finetuning_are_refused(tmp_path, name):
    written(tmp_path, "standard")
    tensors = load_file(tmp_path / "sae_weights.safetensors")
    save_file({**tensors, name: torch.full((D_SAE,), 1.5)}, tmp_path / "sae_weights.safetensors")
    with pytest.raises(CheckpointError, match=f"`{name}` of a finetuning is not all ones"):
        loaded(tmp_path)
