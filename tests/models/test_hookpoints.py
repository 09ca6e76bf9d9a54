"""What is captured at each site is what an independent hook of PyTorch sees, in the families that SAEs are made of.

The modules are written out here by hand, from the code of each family, and not found by the names that the package
looks for. Norms without gain are computed from the norm's input.
"""

from typing import Any

import pytest
import torch
from every_family import VOCABULARY, tiny_config
from torch import Tensor, nn
from transformers import AutoModel

from stratalens.hookpoint import SITES, Hookpoint
from stratalens.models.batches import pack_batches
from stratalens.models.families import blocks_name, has_hookpoint
from stratalens.models.hooks import forward, hooked
from stratalens.models.site_check import require_true_sites

WINDOW, TOKENS, SHORT = 8, 20, 11
Sites = dict[str, tuple[str, str]]
"""Name of a site -> module in the block, and whether its input or its output is meant."""
LLAMA: Sites = {
    "attn": ("self_attn", "out"),
    "mlp": ("mlp", "out"),
    "attn_heads": ("self_attn.o_proj", "in"),
    "attn_norm": ("input_layernorm", "out"),
    "mlp_norm": ("post_attention_layernorm", "out"),
    "attn_norm_no_gain": ("input_layernorm", "bare"),
    "mlp_norm_no_gain": ("post_attention_layernorm", "bare"),
}
GEMMA2: Sites = {
    **LLAMA,
    "attn": ("post_attention_layernorm", "out"),
    "mlp": ("post_feedforward_layernorm", "out"),
    "attn_module": ("self_attn.o_proj", "out"),
    "mlp_module": ("mlp", "out"),
    "mlp_norm": ("pre_feedforward_layernorm", "out"),
    "mlp_norm_no_gain": ("pre_feedforward_layernorm", "bare"),
}
OLMO2: Sites = {
    "attn": ("post_attention_layernorm", "out"),
    "mlp": ("post_feedforward_layernorm", "out"),
    "attn_module": ("self_attn.o_proj", "out"),
    "mlp_module": ("mlp.down_proj", "out"),
    "attn_heads": ("self_attn.o_proj", "in"),
    "attn_norm": ("self_attn.q_proj", "in"),
    "mlp_norm": ("mlp.gate_proj", "in"),
}
GPT2: Sites = {
    "attn": ("attn.c_proj", "out"),
    "mlp": ("mlp.c_proj", "out"),
    "attn_heads": ("attn.c_proj", "in"),
    "attn_norm": ("ln_1", "out"),
    "mlp_norm": ("ln_2", "out"),
    "attn_norm_no_gain": ("ln_1", "bare"),
    "mlp_norm_no_gain": ("ln_2", "bare"),
}
NEOX: Sites = {
    **LLAMA,
    "attn": ("attention.dense", "out"),
    "attn_heads": ("attention.dense", "in"),
    "mlp": ("mlp.dense_4h_to_h", "out"),
}
PHI: Sites = {
    **LLAMA,
    "attn": ("self_attn.dense", "out"),
    "attn_heads": ("self_attn.dense", "in"),
    "mlp": ("mlp.fc2", "out"),
    "mlp_norm": ("input_layernorm", "out"),
    "mlp_norm_no_gain": ("input_layernorm", "bare"),
}
LINEAR: Sites = {**LLAMA, "attn": ("linear_attn.out_proj", "out"), "attn_heads": ("linear_attn.out_proj", "in")}
CASES: dict[str, tuple[str, int, Sites]] = {
    **{name: (name, 1, LLAMA) for name in ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma")},
    "gemma2, sliding": ("gemma2", 2, GEMMA2),
    "gemma2, full": ("gemma2", 1, GEMMA2),
    "gemma3, sliding": ("gemma3_text", 1, GEMMA2),
    "gemma3, full": ("gemma3_text", 5, GEMMA2),
    "gpt2": ("gpt2", 1, GPT2),
    "gpt_neox": ("gpt_neox", 1, NEOX),
    "phi": ("phi", 1, PHI),
    "olmo2": ("olmo2", 1, OLMO2),
    "gpt_oss, sliding": ("gpt_oss", 2, LLAMA),
    "gpt_oss, full": ("gpt_oss", 1, LLAMA),
    "qwen3_next, recurrent": ("qwen3_next", 1, LINEAR),
    "qwen3_next, full": ("qwen3_next", 3, LLAMA),
}
"""Name -> family, block and its sites. Qwen2.5 has the code of Qwen2; Qwen3-Next is a hybrid of two kinds of blocks."""
FAMILIES = sorted({family for family, _, _ in CASES.values()} | {"opt"})
SLIDING = ("mistral", "gemma2", "gemma3_text", "gpt_oss")


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.inference_mode():
        yield


def build(family: str, **sizes: object) -> Any:
    """A tiny random model whose norms have gains of their own."""
    sizes = {"sliding_window": WINDOW, "head_dim": 16 if family == "gpt_oss" else 8, **sizes}
    torch.manual_seed(0)
    model = AutoModel.from_config(tiny_config(family, **sizes)).float().eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def ids(rows: int = 2, tokens: int = TOKENS) -> Tensor:
    return torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(1))


def captured(model: nn.Module, places: list[Hookpoint], input_ids: Tensor) -> dict[Hookpoint, Tensor]:
    found: dict[Hookpoint, Tensor] = {}
    with hooked(model, {place: lambda x, place=place: found.update({place: x.clone()}) for place in places}):
        forward(model, input_ids)
    return found


def seen(model: nn.Module, module: str, side: str, input_ids: Tensor) -> Tensor:
    """What a module gets or gives, by a hook of PyTorch; `bare` is a norm's input, normalised in float64."""
    part, taken = model.get_submodule(module), []

    def keep(_module: nn.Module, given: tuple, named: dict, output: object) -> None:
        value: Any = output if side == "out" else given[0] if given else named["hidden_states"]
        taken.append((value[0] if isinstance(value, tuple) else value).clone())

    handle = part.register_forward_hook(keep, with_kwargs=True)
    try:
        model(input_ids=input_ids, use_cache=False)
    finally:
        handle.remove()
    return normalised(part, taken[0]) if side == "bare" else taken[0]


def normalised(norm: Any, x: Tensor) -> Tensor:
    x = x.double()
    if isinstance(norm, nn.LayerNorm):
        x, epsilon = x - x.mean(-1, keepdim=True), norm.eps
    else:
        epsilon = getattr(norm, "variance_epsilon", None) or norm.eps
    return (x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt()).float()


@pytest.mark.parametrize("case", CASES)
def test_what_is_captured_is_what_an_independent_hook_sees_at_every_site(case):
    family, block, sites = CASES[case]
    model, input_ids = build(family), ids()
    blocks = blocks_name(model)
    there = {site for site in SITES[1:] if has_hookpoint(model, Hookpoint(block, site))}
    assert there == set(sites)
    places = {Hookpoint.at(block, site): (f"{blocks}.{block}.{module}", side) for site, (module, side) in sites.items()}
    before, after = Hookpoint(block, "resid", "in"), Hookpoint(block)
    places |= {before: (f"{blocks}.{block}", "in"), after: (f"{blocks}.{block}", "out")}
    found = captured(model, list(places), input_ids)
    require_true_sites(model, places)
    for place, (module, side) in places.items():
        expected = seen(model, module, side, input_ids).reshape(found[place].shape)
        if side == "bare":
            torch.testing.assert_close(found[place], expected, rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(found[place], expected), place
    total = found[before] + found[Hookpoint(block, "attn")] + found[Hookpoint(block, "mlp")]
    torch.testing.assert_close(total, found[after], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_block_outputs_are_the_hidden_states_that_the_library_gives_with_a_mask(family):
    model, input_ids = build(family), ids()
    mask = torch.ones_like(input_ids)
    states = model(input_ids=input_ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
    found = captured(model, [Hookpoint(block) for block in range(4)], input_ids)
    for block in range(4):
        torch.testing.assert_close(found[Hookpoint(block)], states[block + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_right_padding_without_a_mask_changes_nothing_at_any_site(family):
    """Learned positions, sliding windows, experts and recurrent blocks included."""
    model = build(family)
    passages = [row[:length].numpy() for row, length in zip(ids(3), (TOKENS, SHORT, 15), strict=True)]
    (batch,) = pack_batches(passages, 1000, ())
    flat = ("mlp", "mlp_norm", "mlp_norm_no_gain") if family == "opt" else ()  # its MLP knows no passages
    places = [Hookpoint(block, site) for block in (1, 3) for site in SITES if site not in flat]
    places = [place for place in places if has_hookpoint(model, place)]
    together = captured(model, places, batch.input_ids)
    for row, index in enumerate(batch.rows):
        alone = captured(model, places, torch.from_numpy(passages[index])[None])
        for place in places:
            own = together[place].reshape(3, TOKENS, -1)[row, : len(passages[index])]
            torch.testing.assert_close(own, alone[place].reshape(own.shape), rtol=1e-4, atol=1e-5, msg=str(place))


@pytest.mark.parametrize("family", SLIDING)
def test_a_sliding_window_is_in_force_without_a_mask(family):
    near, far = (
        captured(build(family, sliding_window=window), [Hookpoint(0)], ids())[Hookpoint(0)] for window in (8, 64)
    )
    torch.testing.assert_close(near[:, :WINDOW], far[:, :WINDOW], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(near[:, WINDOW:], far[:, WINDOW:], rtol=1e-3, atol=1e-3)


def test_learned_positions_count_from_the_first_token_of_a_passage():
    model, input_ids = build("gpt2"), ids(1)
    found = captured(model, [Hookpoint(0, "resid", "in")], input_ids)[Hookpoint(0, "resid", "in")]
    expected = model.wte(input_ids) + model.wpe(torch.arange(TOKENS)[None])
    torch.testing.assert_close(found, expected)
