"""A second real family, with norms after attention and MLP: SAEs of Gemma 3 belong where they were trained."""

from collections.abc import Iterator, Mapping

import gemma3
import pytest
import torch
from threads import one_thread
from torch import Tensor, nn

from stratalens.hookpoint import Hookpoint
from stratalens.models.hooks import forward, hooked
from stratalens.models.site_check import require_true_sites
from stratalens.saes.fit_check import FitCheck

pytestmark = pytest.mark.gemma3


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def fits() -> Mapping[tuple[str, str], FitCheck]:
    found = gemma3.fits()
    print(gemma3.table(found))
    return found


@pytest.mark.parametrize("own", ["9", "9_mlp", "9_attn"])
def test_an_sae_fits_where_it_was_trained(fits, own):
    check = fits[own, own]
    assert check.problem == ""
    assert check.own.fvu < 0.35
    assert check.own.mean_error_share < 0.001
    for other in (*check.neighbours, *check.siblings):
        assert other.mean_error_share > 1.5 * check.own.mean_error_share, other


@pytest.mark.parametrize(
    ("own", "used", "reason"),
    [
        ("9_mlp", "9_mlp_module", "these latents fit the MLP's output in block 9 after its norm, not before"),
        ("9_attn", "9_attn_module", "these latents fit attention's output in block 9 after its norm, not before"),
        ("9", "9_resid_in", "these latents fit the output of block 9, not its input"),
        ("9", "8", "these latents fit the output of block 9, the block above, not the output of block 8"),
        ("9", "10", "these latents fit the input of block 10, which is the output of block 9, not its output"),
        ("9_mlp", "8_mlp", "these latents fit the MLP's output in block 9, after its norm, the block above"),
        ("9_mlp", "10_mlp", "these latents fit the MLP's output in block 9, after its norm, the block below"),
        ("9_attn", "8_attn", "these latents fit attention's output in block 9, after its norm, the block above"),
        ("9_attn", "10_attn", "these latents fit attention's output in block 9, after its norm, the block below"),
    ],
)
def test_an_sae_on_another_tensor_is_refused_with_its_own(fits, own, used, reason):
    assert reason in fits[own, used].problem


def test_an_sae_fits_nowhere_but_at_its_own_hookpoint(fits):
    assert {(own, used) for (own, used), check in fits.items() if not check.problem} == {
        (place, place) for place in ("9", "9_mlp", "9_attn")
    }
    assert len(fits) == 3 * len(gemma3.ROUNDS)


def plain(model: nn.Module, module: str, side: str, ids: Tensor) -> Tensor:
    """What a module gets or gives, by a hook of PyTorch."""
    taken: list[Tensor] = []

    def keep(_module: nn.Module, given: tuple, output: object) -> None:
        value = given if side == "in" else output
        taken.append(value[0].clone() if isinstance(value, tuple) else value.clone())

    handle = model.get_submodule(module).register_forward_hook(keep)
    try:
        forward(model, ids)
    finally:
        handle.remove()
    return taken[0]


def test_what_is_captured_is_what_the_modules_of_the_real_model_get_and_give():
    model = gemma3.load_gemma(torch.float32)
    batch = gemma3.held_out_text()[0]
    ids = batch.input_ids[:2]
    modules = {
        "9": ("layers.9", "out"),
        "9_resid_in": ("layers.9", "in"),
        "9_mlp": ("layers.9.post_feedforward_layernorm", "out"),
        "9_attn": ("layers.9.post_attention_layernorm", "out"),
        "9_mlp_module": ("layers.9.mlp", "out"),
        "9_attn_module": ("layers.9.self_attn.o_proj", "out"),
        "9_attn_heads": ("layers.9.self_attn.o_proj", "in"),
        "9_mlp_norm": ("layers.9.pre_feedforward_layernorm", "out"),
        "9_attn_norm": ("layers.9.input_layernorm", "out"),
    }
    found: dict[str, Tensor] = {}
    places = [*modules, "9_mlp_norm_no_gain", "9_attn_norm_no_gain"]
    consumers = {Hookpoint.parse(name): (lambda x, name=name: found.update({name: x.clone()})) for name in places}
    with hooked(model, consumers):
        forward(model, ids)
    for name, (module, side) in modules.items():
        assert torch.equal(found[name], plain(model, module, side, ids)), name
    require_true_sites(model, consumers)
    for part, norm in (("mlp", "pre_feedforward_layernorm"), ("attn", "input_layernorm")):
        gain = 1 + model.get_parameter(f"layers.9.{norm}.weight")
        torch.testing.assert_close(
            found[f"9_{part}_norm_no_gain"] * gain, found[f"9_{part}_norm"], rtol=1e-5, atol=1e-4
        )
    total = found["9_resid_in"] + found["9_attn"] + found["9_mlp"]
    torch.testing.assert_close(total, found["9"], rtol=1e-5, atol=1e-2)
