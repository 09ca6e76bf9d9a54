"""Goodfire's files, and plain files of named arrays with an activation that the user tells: derived in float64."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import assert_same_latents, assert_same_vectors, real_activations, sparse
from safetensors.torch import save_file
from threads import one_thread
from torch import Tensor

from stratalens.config.sae_activation import parse_activation
from stratalens.config.validation import make_config
from stratalens.errors import CheckpointError, ConfigError
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import find_model
from stratalens.saes import find_saes
from stratalens.saes.formats import goodfire, tensors
from stratalens.saes.sae import Checkpoint, SaeFile

D, L = 576, 700
PLACE = Hookpoint(16)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def x(embedded_model, real_tokenizer) -> Tensor:
    return real_activations(embedded_model, real_tokenizer, [PLACE])[PLACE]


def arrays(d: int = D, width: int = L) -> dict[str, Tensor]:
    """W_enc and W_dec with a row for each latent."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    scale = 1 / math.sqrt(d)
    own = {"W_enc": scale * random(width, d), "W_dec": scale * random(width, d), "b_enc": random(width)}
    return own | {"b_dec": 3 * random(d), "threshold": random(width).abs()}


@pytest.mark.parametrize("prefix", ["_linear", ""])
@pytest.mark.parametrize("end", [".pth", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_goodfire_saes_are_a_relu_of_a_linear_layer(tmp_path, x, prefix, end, dtype):
    own = {name: tensor.to(dtype) for name, tensor in arrays().items()}
    path = tmp_path / f"Llama-3.1-8B-Instruct-SAE-l16{end}"
    linear = {f"encoder{prefix}.weight": own["W_enc"], f"encoder{prefix}.bias": own["b_enc"]}
    linear |= {f"decoder{prefix}.weight": own["W_dec"].T.contiguous(), f"decoder{prefix}.bias": own["b_dec"]}
    torch.save(linear, path)
    sae = goodfire.describe(Checkpoint(path, PLACE, PLACE, "x")).load()
    w = {name: tensor.double() for name, tensor in own.items()}
    latents = torch.relu(x.double() @ w["W_enc"].T + w["b_enc"])
    assert_same_latents(sae, x, latents)
    assert_same_vectors(sae.decode(sparse(latents), x), latents @ w["W_dec"] + w["b_dec"])


def test_the_name_of_a_goodfire_file_says_the_layer(tmp_path, tiny_model):
    own = arrays(32, 64)
    linear = {"encoder_linear.weight": own["W_enc"], "encoder_linear.bias": own["b_enc"]}
    linear |= {"decoder_linear.weight": own["W_dec"].T.contiguous(), "decoder_linear.bias": own["b_dec"]}
    torch.save(linear, tmp_path / "Tiny-1B-SAE-l2.pth")
    config = make_config(base_model=str(tiny_model), sae_model=str(tmp_path))
    (sae,) = find_saes(config, find_model(config)).values()
    assert (str(sae.hookpoint), sae.activation, sae.num_latents) == ("2", "relu", 64)


def activation(pre: Tensor, told: str, threshold: Tensor) -> Tensor:
    kind, _, number = told.removesuffix(",centred").partition(":")
    if kind == "topk":
        lowest = pre.topk(int(number), dim=1).values[:, -1:]
        return torch.where(pre >= lowest, pre.relu(), 0)
    if kind == "groupmax":
        groups = pre.unflatten(1, (int(number), -1))
        return torch.where(groups == groups.amax(2, keepdim=True), groups.relu(), 0).flatten(1)
    if kind == "jumprelu":
        return torch.where(pre > (float(number) if number else threshold), pre.relu(), 0)
    return pre.relu()


def write(path: Path, own: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in own.items()})
    elif path.suffix == ".pt":
        torch.save(own, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in own.items()}, path)
    return path


def described(path: Path, told: str | None) -> SaeFile:
    return tensors.describe(Checkpoint(path, PLACE, PLACE, "x", told=parse_activation(told)))


@pytest.mark.parametrize("told", ["relu", "topk:24", "groupmax:28", "jumprelu", "jumprelu:0.7", "topk:24,centred"])
@pytest.mark.parametrize(("end", "turned"), [(".safetensors", "W_enc"), (".npz", "W_dec"), (".pt", "")])
def test_plain_files_have_the_activation_that_is_told(tmp_path, x, end, turned, told):
    own = arrays()
    stored = {name: tensor.T if name == turned else tensor for name, tensor in own.items()}
    sae = described(write(tmp_path / f"layer_16{end}", stored), told).load()
    w = {name: tensor.double() for name, tensor in own.items()}
    vectors = x.double() - w["b_dec"] if told.endswith("centred") else x.double()
    latents = activation(vectors @ w["W_enc"].T + w["b_enc"], told, w["threshold"])
    assert_same_latents(sae, x, latents)
    assert_same_vectors(sae.decode(sparse(latents), x), latents @ w["W_dec"] + w["b_dec"])


def test_what_is_told_is_a_part_of_the_identity(tmp_path):
    path = write(tmp_path / "layer_16.npz", arrays(8, 16))
    told = ["relu", "topk:2", "topk:3", "topk:3,centred", "jumprelu", "jumprelu:0.5", "jumprelu:0.50000001"]
    assert len({described(path, text).digest for text in told}) == len(told)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (None, "does not say which activation it has; give --sae_activation relu, topk:32"),
        ("topk:17", "topk:17 does not go with its 16 latents"),
        ("groupmax:5", "groupmax:5 does not go with its 16 latents"),
    ],
)
def test_an_activation_that_is_missing_or_impossible_is_refused(tmp_path, told, message):
    path = write(tmp_path / "layer_16.npz", arrays(8, 16))
    with pytest.raises(CheckpointError, match=message):
        described(path, told)


def test_what_cannot_be_told_apart_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="`W_enc` is square, so that its axes cannot be told apart"):
        described(write(tmp_path / "layer_16.npz", arrays(16, 16)), "relu")
    own = arrays(8, 16)
    del own["threshold"]
    with pytest.raises(CheckpointError, match="no tensor `threshold`"):
        described(write(tmp_path / "layer_17.npz", own), "jumprelu")
    del own["W_dec"]
    with pytest.raises(CheckpointError, match="no decoder; expected a tensor named W_dec, w_dec"):
        described(write(tmp_path / "layer_18.npz", own), "relu")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layer_2.safetensors", "2"),
        ("layers.2/sae.npz", "2"),
        ("layer_002/weights.pt", "2"),
        ("blocks.2.hook_mlp_out.npz", "2_mlp"),
        ("layer_2_attn.safetensors", "2_attn"),
        ("layers.2.mlp/weights.npz", "2_mlp"),
        ("width_16k/resid_layer2_l0_71.npz", "2"),
    ],
)
def test_the_path_of_a_plain_file_says_where_it_reads(tmp_path, tiny_model, name, place):
    path = write(tmp_path / "saes" / name, arrays(32, 64))
    assert path.exists()
    config = make_config(base_model=str(tiny_model), sae_model=str(tmp_path / "saes"), sae_activation="topk:4")
    (sae,) = find_saes(config, find_model(config)).values()
    assert (str(sae.hookpoint), sae.activation, sae.k) == (place, "topk", 4)


@pytest.mark.parametrize(
    "text", ["", "topk", "topk:0", "topk:-1", "topk:1.5", "topk:99999999999", "relu:3", "jumprelu:x", "gelu", "topk:3,"]
)
def test_other_forms_of_an_activation_are_refused(text):
    with pytest.raises(ConfigError, match=r"sae_activation: `.*` is unknown; expected relu, topk:32"):
        parse_activation(text)
