"""A hook may replace the vectors at a hookpoint: an identity changes no bit, and a sum equals one made by biases."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import TINY_VOCABULARY, TINY_WIDTH
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from stratalens.errors import ModelError
from stratalens.hookpoint import SITE_NAMES, Hookpoint
from stratalens.models.families import has_hookpoint
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_model

IDS = torch.randint(5, TINY_VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(3))
ADDED = torch.randn(TINY_WIDTH, generator=torch.Generator().manual_seed(4))
BLOCK = 1


@pytest.fixture
def whole(tiny_model) -> nn.Module:
    """The whole model with its head."""
    return load_model(tiny_model, blocks=None, head=True, placement=Placement(torch.device("cpu"), torch.float32))


def replaceable(model: nn.Module) -> list[Hookpoint]:
    places = [Hookpoint.at(BLOCK, name) for name in SITE_NAMES if not name.endswith("no_gain")]
    return [place for place in places if has_hookpoint(model, place)]


def logits(model: nn.Module) -> Tensor:
    return forward(model, IDS).logits


def test_a_model_is_loaded_whole_with_its_head(whole, tiny_model):
    expected = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        assert torch.equal(logits(whole), expected(IDS).logits)


def test_an_identity_replacement_changes_no_bit_of_the_logits(whole):
    before, places = logits(whole), replaceable(whole)
    assert len(places) == 7
    for same in (lambda x: x, lambda x: x.clone()):
        for place in places:
            with hooked(whole, {place: same}):
                assert torch.equal(logits(whole), before)


def test_an_identity_replacement_changes_no_bit_where_a_block_scales_what_it_adds():
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = GraniteConfig(**sizes, vocab_size=TINY_VOCABULARY, residual_multiplier=0.22)
    model = GraniteForCausalLM(config).eval()
    before = logits(model)
    for place in replaceable(model):
        with hooked(model, {place: lambda x: x.clone()}):
            assert torch.equal(logits(model), before)
    with hooked(model, {Hookpoint(BLOCK, "mlp"): lambda x: x + ADDED}):
        added = logits(model)
    with hooked(model, {Hookpoint(BLOCK): lambda x: x + ADDED}):
        torch.testing.assert_close(added, logits(model), rtol=1e-4, atol=1e-4)


def with_bias(linear: Any, bias: Tensor) -> None:
    linear.bias = nn.Parameter(bias.clone(), requires_grad=False)


def add_to_mlp(model: Any, added: Tensor) -> None:
    with_bias(model.model.layers[BLOCK].mlp.down_proj, added)


def add_to_attention(model: Any, added: Tensor) -> None:
    with_bias(model.model.layers[BLOCK].self_attn.o_proj, added)


def add_to_heads(model: Any, added: Tensor) -> None:
    projection = model.model.layers[BLOCK].self_attn.o_proj
    with_bias(projection, projection.weight @ added)


def add_to_what_the_mlp_reads(model: Any, added: Tensor) -> None:
    mlp = model.model.layers[BLOCK].mlp
    with_bias(mlp.gate_proj, mlp.gate_proj.weight @ added)
    with_bias(mlp.up_proj, mlp.up_proj.weight @ added)


def add_to_what_attention_reads(model: Any, added: Tensor) -> None:
    attention = model.model.layers[BLOCK].self_attn
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        with_bias(linear, linear.weight @ added)


def add_before_the_block(model: Any, added: Tensor) -> None:
    with_bias(model.model.layers[BLOCK - 1].mlp.down_proj, added)


BY_BIASES: dict[str, Callable[[Any, Tensor], None]] = {
    "resid": add_to_mlp,
    "resid_in": add_before_the_block,
    "mlp": add_to_mlp,
    "attn": add_to_attention,
    "attn_heads": add_to_heads,
    "mlp_norm": add_to_what_the_mlp_reads,
    "attn_norm": add_to_what_attention_reads,
}


@pytest.mark.parametrize("site", BY_BIASES)
def test_adding_a_vector_equals_adding_it_by_biases(whole, site):
    before = logits(whole)
    with hooked(whole, {Hookpoint.at(BLOCK, site): lambda x: x + ADDED}):
        hooked_logits = logits(whole)
    BY_BIASES[site](whole, ADDED)
    by_hand = logits(whole)
    torch.testing.assert_close(hooked_logits, by_hand, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(by_hand, before, atol=0.01)


def test_a_hookpoint_before_a_gain_can_be_read_but_not_replaced(whole):
    place = Hookpoint(BLOCK, "mlp_norm_no_gain")
    with hooked(whole, {place: lambda _x: None}):
        forward(whole, IDS)
    with (
        pytest.raises(ModelError, match="before the gain of a norm cannot be replaced"),
        hooked(whole, {place: lambda x: x}),
    ):
        forward(whole, IDS)
