"""circuit-tracer's transcoders of single layers: what its own library wrote and encoded, trained and random."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from library_files import ORACLES, activations, described, expected, found, llama_without_weights, refusal_of
from oracles import assert_same_latents, assert_same_vectors
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from stratalens.config.sae_activation import SaeActivation
from stratalens.hookpoint import Hookpoint
from stratalens.saes.formats import circuit_tracer
from stratalens.saes.sae import SaeFile

FILES = ORACLES / "circuit_tracer"
RANDOM_COMPONENTS = 24
WRITTEN = sorted(
    path.relative_to(FILES).as_posix() for path in FILES.rglob("layer_*.safetensors") if "expected" not in path.name
)
RELU, TOPK, JUMPRELU = (FILES / "random" / name for name in ("relu", "topk", "jumprelu_skip"))


def read(root: Path, name: str, told: SaeActivation | None = None) -> SaeFile:
    return circuit_tracer.describe(found(circuit_tracer, root, told)[name])


def assert_as_its_library(file: SaeFile, written: Path) -> None:
    x = activations("mlp_norm", RANDOM_COMPONENTS if "random" in written.parts else None)
    theirs, sae = expected(written.with_name(f"{written.stem}_expected.safetensors")), file.load()
    assert_same_latents(sae, x, theirs.latents, precision=2e-5)
    few = x[: len(theirs.reconstructions)]
    assert_same_vectors(sae.decode(sae.encode(few), few), theirs.reconstructions)


@pytest.mark.parametrize("written", WRITTEN)
def test_latents_and_reconstructions_are_those_of_its_own_library(written):
    path = FILES / written
    assert_as_its_library(read(path.parent, path.name), path)


def test_each_file_reads_what_the_mlp_reads_and_rebuilds_what_it_adds():
    places = {name: (one.hookpoint, one.target) for name, one in found(circuit_tracer, RELU).items()}
    assert places == {
        f"layer_{block}.safetensors": (Hookpoint(block, "mlp_norm"), Hookpoint(block, "mlp")) for block in (0, 1)
    }
    activation = [
        (read(root, "layer_1.safetensors").activation, read(root, "layer_1.safetensors").k)
        for root in (RELU, TOPK, JUMPRELU)
    ]
    assert activation == [("relu", None), ("topk", 6), ("jumprelu", None)]


def gemma3() -> nn.Module:
    with torch.device("meta"):
        config = Gemma3TextConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=2)
        return Gemma3ForCausalLM(config)


@pytest.mark.parametrize(
    ("model", "hook", "place"),
    [
        (llama_without_weights, "mlp.hook_in", Hookpoint(1, "mlp_norm")),
        (llama_without_weights, "ln2.hook_normalized", Hookpoint(1, "mlp_norm_no_gain")),
        (llama_without_weights, "hook_mlp_out", Hookpoint(1, "mlp")),
        (llama_without_weights, "mlp.hook_out", Hookpoint(1, "mlp")),
        (gemma3, "mlp.hook_in", Hookpoint(1, "mlp_norm")),
        (gemma3, "hook_mlp_out", Hookpoint(1, "mlp")),
        (gemma3, "mlp.hook_out", Hookpoint(1, "mlp_module")),
    ],
)
def test_a_hook_is_what_it_is_in_the_family_of_the_model(tmp_path, model, hook, place):
    root = changed(tmp_path / "saes", RELU, feature_input_hook=hook)
    sources = found(circuit_tracer, root, model=model())
    assert sources["layer_1.safetensors"].hookpoint == place


def changed(root: Path, source: Path, **settings: object) -> Path:
    """A copy with other settings; None takes one away."""
    shutil.copytree(source, root)
    content = yaml.safe_load((root / "config.yaml").read_text()) | settings
    kept = {name: value for name, value in content.items() if value is not None}
    (root / "config.yaml").write_text(yaml.safe_dump(kept))
    return root


def with_arrays(root: Path, **arrays: Tensor) -> Path:
    path = root / "layer_0.safetensors"
    save_file(load_file(path) | arrays, path)
    return root


def test_an_encoder_with_exchanged_axes_is_told_by_the_length_of_its_bias(tmp_path):
    root = changed(tmp_path / "saes", RELU)
    weight = load_file(root / "layer_0.safetensors")["W_enc"]
    with_arrays(root, W_enc=weight.T.contiguous())
    assert_as_its_library(read(root, "layer_0.safetensors"), RELU / "layer_0.safetensors")


def test_without_an_activation_a_transcoder_has_relu_and_the_user_can_say_topk(tmp_path):
    root = changed(tmp_path / "saes", TOPK, activation=None, k=None)
    told = read(root, "layer_0.safetensors", SaeActivation("topk", 6))
    assert_as_its_library(told, TOPK / "layer_0.safetensors")
    assert read(root, "layer_0.safetensors").activation == "relu"


def square(root: Path) -> Path:
    square = {
        "W_enc": torch.ones(24, 24),
        "W_dec": torch.ones(24, 24),
        "b_enc": torch.ones(24),
        "b_dec": torch.ones(24),
    }
    save_file(square, root / "layer_0.safetensors")
    return root


def cross_layer(root: Path) -> Path:
    root.mkdir()
    save_file({"W_enc_0": torch.ones(8, 4)}, root / "W_enc_0.safetensors")
    return root


REFUSED = {
    "a cross-layer transcoder": (cross_layer, None),
    "a cross-layer transcoder by its config": (lambda at: changed(at, RELU, model_kind="cross_layer_transcoder"), None),
    "a transcoder whose axes nothing tells": (lambda at: square(changed(at, RELU)), None),
    "a transcoder between hooks that the model lacks": (
        lambda at: changed(at, RELU, feature_input_hook="hook_resid_mid"),
        None,
    ),
    "a transcoder that names no hook": (lambda at: changed(at, RELU, feature_input_hook=None), None),
    "transcoders that are elsewhere": (lambda at: changed(at, RELU, transcoders=["hf://a/b/layer_0.npz"]), None),
    "a transcoder with an unknown activation": (lambda at: changed(at, RELU, activation="swish"), None),
    "a transcoder of topk without k": (lambda at: changed(at, TOPK, k=None), None),
    "a transcoder with more k than latents": (lambda at: changed(at, TOPK, k=41), None),
    "a transcoder of jumprelu without thresholds": (lambda at: changed(at, RELU, activation="jumprelu"), None),
    "a transcoder of relu with thresholds": (lambda at: changed(at, JUMPRELU, activation="relu"), None),
    "a transcoder with logarithms of thresholds": (
        lambda at: with_arrays(changed(at, RELU), log_thresholds=torch.ones(40)),
        None,
    ),
    "an activation that a transcoder says itself": (lambda at: changed(at, TOPK), SaeActivation("topk", 6)),
    "an activation that does not fit a transcoder": (lambda at: changed(at, RELU), SaeActivation("jumprelu")),
    "a transcoder that would subtract its bias": (lambda at: changed(at, RELU), SaeActivation("relu", centred=True)),
    "a transcoder with a skip of another width": (
        lambda at: with_arrays(changed(at, RELU), W_skip=torch.ones(24, 23)),
        None,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(tmp_path, documented, case):
    make, told = REFUSED[case]
    root = make(tmp_path / "saes")
    documented("SAE checkpoints", case, refusal_of(lambda: read(root, "layer_0.safetensors", told)))


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "model_kind: [", "model_kind: !!python/object/apply:os.system [ls]", "\x00"]
)
def test_a_configuration_that_is_none_is_refused(tmp_path, text):
    root = changed(tmp_path / "saes", RELU)
    (root / "config.yaml").write_text(text)
    assert "config.yaml" in refusal_of(lambda: found(circuit_tracer, root))


def test_a_trained_one_is_the_only_one_of_its_folder():
    assert described(circuit_tracer, FILES / "trained").hookpoint == Hookpoint(16, "mlp_norm")
