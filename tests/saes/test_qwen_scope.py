"""Qwen-Scope: files without a configuration; k is in the name of the repository or told, and never guessed."""

from pathlib import Path

import pytest
import torch
from library_files import activations, described, found, refusal_of
from oracles import assert_same_latents, assert_same_vectors
from safetensors.torch import load_file
from torch import Tensor

from stratalens.config.sae_activation import SaeActivation
from stratalens.hookpoint import Hookpoint
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.saes.formats import qwen_scope

D_MODEL, WIDTH, K = 576, 1024, 50
REPOSITORY = f"SAE-Res-Qwen3-8B-Base-W1K-L0_{K}"


def random_arrays(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (WIDTH, D_MODEL), "W_dec": (D_MODEL, WIDTH), "b_enc": (WIDTH,), "b_dec": (D_MODEL,)}
    arrays = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    arrays["b_enc"] *= 50
    return {name: array.to(dtype) for name, array in arrays.items()}


def trained_arrays() -> dict[str, Tensor]:
    """The shipped SAE of block 16, with b_dec in the bias, as Qwen-Scope does not subtract it."""
    shipped = {
        name: array.float() for name, array in load_file(SAE_DIRECTORY / "layers.16" / "sae.safetensors").items()
    }
    bias = shipped["encoder.bias"] - shipped["encoder.weight"] @ shipped["b_dec"]
    decoder = shipped["W_dec"].T.contiguous()
    return {"W_enc": shipped["encoder.weight"], "W_dec": decoder, "b_enc": bias, "b_dec": shipped["b_dec"]}


def write(folder: Path, arrays: dict[str, Tensor], layer: int = 16) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(arrays, folder / f"layer{layer}.sae.pt")
    return folder


def derived(arrays: dict[str, Tensor], x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """relu(topk(x W_enc^T + b_enc)) and its reconstruction, in float64."""
    w = {name: array.double() for name, array in arrays.items()}
    h = x.double() @ w["W_enc"].T + w["b_enc"]
    latents = torch.zeros_like(h).scatter(1, h.topk(k).indices, 1.0) * h.clamp(min=0)
    return latents, latents @ w["W_dec"].T + w["b_dec"]


@pytest.mark.parametrize("make", [random_arrays, lambda: random_arrays(torch.bfloat16), trained_arrays])
@pytest.mark.parametrize("told", [None, SaeActivation("topk", K)])
def test_latents_and_reconstructions_are_those_of_the_formula(tmp_path, make, told):
    arrays, x = make(), activations("resid")
    root = write(tmp_path / ("saes" if told else REPOSITORY), arrays)
    file = described(qwen_scope, root, told)
    latents, rebuilt = derived(arrays, x, K)
    sae = file.load()
    assert (file.k, file.hookpoint, file.target) == (K, Hookpoint(16), Hookpoint(16))
    assert_same_latents(sae, x, latents, precision=2e-5)
    assert_same_vectors(sae.decode(sae.encode(x), x), rebuilt)


def test_k_is_that_of_the_repository_in_the_cache_of_the_hub(tmp_path):
    blobs = tmp_path / f"models--Qwen--{REPOSITORY}" / "blobs"
    root = tmp_path / f"models--Qwen--{REPOSITORY}" / "snapshots" / "0a1b"
    write(blobs, random_arrays())
    root.mkdir(parents=True)
    (root / "layer16.sae.pt").symlink_to(Path("../../blobs/layer16.sae.pt"))
    assert described(qwen_scope, root).k == K


def test_every_file_is_of_its_layer(tmp_path):
    root = tmp_path / REPOSITORY
    for layer in (0, 7, 28):
        write(root, random_arrays(), layer)
    assert {name: one.hookpoint for name, one in found(qwen_scope, root).items()} == {
        f"layer{layer}.sae.pt": Hookpoint(layer) for layer in (0, 7, 28)
    }


def without(name: str) -> dict[str, Tensor]:
    return {other: array for other, array in random_arrays().items() if other != name}


REFUSED = {
    "an SAE of Qwen-Scope that nothing tells the k of": ("saes", random_arrays(), None),
    "an SAE of Qwen-Scope with another k than its folder": (REPOSITORY, random_arrays(), SaeActivation("topk", 100)),
    "an SAE of Qwen-Scope with another activation": ("saes", random_arrays(), SaeActivation("relu")),
    "an SAE of Qwen-Scope that would subtract its bias": (
        "saes",
        random_arrays(),
        SaeActivation("topk", 50, centred=True),
    ),
    "an SAE of Qwen-Scope with more k than latents": ("saes", random_arrays(), SaeActivation("topk", 1025)),
    "an SAE of Qwen-Scope without a bias": (REPOSITORY, without("b_enc"), None),
    "an SAE of Qwen-Scope with a decoder that is not transposed": (
        REPOSITORY,
        random_arrays() | {"W_dec": torch.zeros(WIDTH, D_MODEL)},
        None,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_sure_is_refused(tmp_path, documented, case):
    folder, arrays, told = REFUSED[case]
    root = write(tmp_path / folder, arrays)
    documented("SAE checkpoints", case, refusal_of(lambda: described(qwen_scope, root, told)))


@pytest.mark.parametrize("name", ["W_enc", "W_dec", "b_enc", "b_dec"])
def test_numbers_that_are_not_finite_are_refused(tmp_path, name):
    arrays = random_arrays()
    arrays[name].view(-1)[3] = float("nan")
    file = described(qwen_scope, write(tmp_path / REPOSITORY, arrays))
    assert "holds NaN or infinite values" in refusal_of(file.load)


def test_code_in_a_file_is_refused_unread(tmp_path):
    root = write(tmp_path / REPOSITORY, random_arrays() | {"more": Path("/")})  # pyright: ignore[reportArgumentType]
    assert "could run code" in refusal_of(lambda: described(qwen_scope, root))
