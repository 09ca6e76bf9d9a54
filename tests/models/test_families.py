"""The sites of a block are what their names say, in families of very different shapes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from stratalens.errors import ModelError
from stratalens.hookpoint import SITES, Hookpoint
from stratalens.models import families
from stratalens.models.families import (
    blocks_name,
    decoder_of,
    has_hookpoint,
    hookpoint_of,
    locate,
    number_of_blocks,
    width_at,
)
from stratalens.models.hooks import forward, hooked
from stratalens.models.site_check import require_true_sites

WIDTH, VOCABULARY, BLOCK = 32, 99, 1
USUAL = {
    **{"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "vocab_size": VOCABULARY, "head_dim": 16},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}
WITHOUT_HEAD_SIZE = {name: size for name, size in USUAL.items() if name != "head_dim"}
OF_GPT2 = {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
PLAIN = {"attn", "mlp", "attn_heads", "attn_norm", "mlp_norm", "attn_norm_no_gain", "mlp_norm_no_gain"}
SANDWICH = PLAIN | {"attn_module", "mlp_module"}
KINDS: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "llama": (USUAL, "layers", PLAIN),
    "qwen3": (USUAL, "layers", PLAIN),
    "mistral": (USUAL, "layers", PLAIN),
    "gemma2": (USUAL, "layers", SANDWICH),
    "gemma3_text": (USUAL, "layers", SANDWICH),
    "glm4": (USUAL, "layers", SANDWICH),
    "granite": (USUAL | {"residual_multiplier": 0.22}, "layers", SANDWICH),
    "olmo": (USUAL, "layers", PLAIN - {"attn_norm_no_gain", "mlp_norm_no_gain"}),
    "olmo2": (USUAL, "layers", SANDWICH - {"attn_norm_no_gain", "mlp_norm_no_gain"}),
    "mixtral": (USUAL | {"num_local_experts": 4}, "layers", PLAIN),
    "phi": (USUAL, "layers", PLAIN),
    "cohere": (USUAL, "layers", PLAIN),
    "gpt2": (OF_GPT2, "h", PLAIN),
    "gptj": (OF_GPT2 | {"rotary_dim": 4}, "h", PLAIN),
    "gpt_neox": (USUAL, "layers", PLAIN),
    "falcon": (WITHOUT_HEAD_SIZE, "h", PLAIN),
    "bloom": ({"hidden_size": WIDTH, "n_layer": 3, "n_head": 4, "vocab_size": VOCABULARY}, "h", PLAIN),
    "mpt": ({"d_model": WIDTH, "n_layers": 3, "n_heads": 4, "vocab_size": VOCABULARY}, "blocks", PLAIN),
}


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.inference_mode():
        yield


def build(kind: str) -> nn.Module:
    """A tiny random decoder whose norms have gains of their own."""
    settings, _, _ = KINDS[kind]
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
            else:
                parameter.mul_(5)
    return model


def read(model: nn.Module, places: list[Hookpoint]) -> list[Tensor]:
    found: dict[Hookpoint, Tensor] = {}
    with hooked(model, {place: lambda x, place=place: found.update({place: x.clone()}) for place in places}):
        forward(model, torch.arange(3, 17).reshape(2, 7))
    return [found[place] for place in places]


@pytest.mark.parametrize("kind", KINDS)
def test_the_sites_of_a_family_are_what_their_names_say(kind):
    model, (_, blocks, sites) = build(kind), KINDS[kind]
    assert (blocks_name(model), number_of_blocks(model)) == (blocks, 3)
    found = [Hookpoint(BLOCK, site) for site in SITES[1:] if has_hookpoint(model, Hookpoint(BLOCK, site))]
    assert {place.site for place in found} == sites
    require_true_sites(model, found)
    before, attention, mlp, after, nxt = read(
        model,
        [
            Hookpoint(BLOCK, "resid", "in"),
            Hookpoint(BLOCK, "attn"),
            Hookpoint(BLOCK, "mlp"),
            Hookpoint(BLOCK),
            Hookpoint(BLOCK + 1, "resid", "in"),
        ],
    )
    torch.testing.assert_close(before + attention + mlp, after, rtol=1e-5, atol=1e-5)
    assert torch.equal(after, nxt)
    assert attention.abs().mean() > 1e-3 < mlp.abs().mean()
    for part in ("attn", "mlp"):
        if f"{part}_norm_no_gain" in sites:
            bare, gained = read(model, [Hookpoint(BLOCK, f"{part}_norm_no_gain"), Hookpoint(BLOCK, f"{part}_norm")])
            norm: Any = decoder_of(model).get_submodule(locate(model, Hookpoint(BLOCK, f"{part}_norm_no_gain")).module)
            gain = norm.weight + (1 if "Gemma" in type(norm).__name__ else 0)
            bias = getattr(norm, "bias", None)
            torch.testing.assert_close(bare * gain + (0 if bias is None else bias), gained, rtol=1e-5, atol=1e-5)
    (heads,) = read(model, [Hookpoint(BLOCK, "attn_heads")])
    assert heads.shape[-1] == width_at(model, Hookpoint(BLOCK, "attn_heads"), WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_name_and_its_hookpoint_tell_each_other(kind):
    model, (_, blocks, sites) = build(kind), KINDS[kind]
    assert hookpoint_of(model, f"{blocks}.2", "out") == Hookpoint(2)
    assert hookpoint_of(model, f"{blocks}.2", "in") == Hookpoint(2, "resid", "in")
    assert hookpoint_of(model, f"{blocks}.12", "out") == Hookpoint(12), "of a block that the model lacks"
    for site in sites - {"attn_norm_no_gain", "mlp_norm_no_gain"}:
        tap = locate(model, Hookpoint(BLOCK, site))
        if tap.factor == 1:
            assert hookpoint_of(model, tap.module, tap.side) == Hookpoint(BLOCK, site)
    for name in ("embed_tokens", f"{blocks}.x", f"{blocks}.1.nothing", "other.1", f"x{blocks}.1"):
        assert hookpoint_of(model, name, "out") is None


def test_the_path_to_the_blocks_may_be_cut_short():
    config = AutoConfig.for_model("opt", hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48)
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    assert blocks_name(model) == "decoder.layers"
    assert hookpoint_of(model, "layers.1", "out") == hookpoint_of(model, "decoder.layers.1", "out") == Hookpoint(1)


def test_a_name_that_means_something_else_in_a_family_is_refused(monkeypatch):
    model = build("gemma2")
    monkeypatch.setattr(families, "MLP_OUTPUT_NORMS", ())
    with pytest.raises(ModelError, match=r"site mlp of Gemma2Model is not known \(attention and MLP do not add up"):
        require_true_sites(model, [Hookpoint(BLOCK, "mlp")])
    model = build("llama")
    monkeypatch.setattr(families, "ATTENTION_NORMS", ("post_attention_layernorm",))
    with pytest.raises(ModelError, match=r"site attn_norm_no_gain of LlamaModel is not known \(the norm of that name"):
        require_true_sites(model, [Hookpoint(BLOCK, "attn_norm_no_gain")])


def test_a_site_that_a_block_lacks_is_named_with_those_that_it_has():
    model = build("olmo")
    with pytest.raises(ModelError, match="has no known site mlp_norm_no_gain; it has resid, attn, mlp, attn_heads"):
        locate(model, Hookpoint(BLOCK, "mlp_norm_no_gain"))


def test_a_model_without_a_known_list_of_blocks_is_refused():
    with pytest.raises(ModelError, match="Linear has no list of blocks of a known name"):
        blocks_name(nn.Linear(2, 2))


class Passing(nn.Module):
    """A block that gives its attention the vectors under some name."""

    def __init__(self, name: str):
        super().__init__()
        self.self_attn, self.name = nn.Identity(), name
        self.self_attn.forward = lambda **given: given[name]

    def forward(self, x: Tensor) -> Tensor:
        vectors = x if self.name == "stream" else x[0]
        return x + self.self_attn(**{self.name: vectors})


@pytest.mark.parametrize("name", ["stream", "flat"])
def test_vectors_that_attention_gets_by_another_name_are_read_and_others_are_refused(name):
    model: Any = nn.Module()
    model.layers = nn.ModuleList([Passing(name)])
    model.embedding = nn.Embedding(20, 8)
    model.forward = lambda input_ids, use_cache: model.layers[0](model.embedding(input_ids))
    place = Hookpoint(0, "attn_norm")
    if name == "stream":
        (found,) = read(model, [place])
        assert found.shape == (2, 7, 8)
    else:
        with pytest.raises(ModelError, match=r"`layers.0.self_attn` is not given vectors of passage x position"):
            read(model, [place])
