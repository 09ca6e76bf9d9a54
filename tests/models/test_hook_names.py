"""Names of hooks in TransformerLens, and of modules with a side, are the hookpoints that they stand for."""

import pytest
import torch
from every_family import write_tiny
from transformers import AutoConfig, AutoModel

from stratalens.models.hook_names import hookpoint_named, hookpoint_of_hook, hookpoint_of_side

EVERYWHERE = {
    "blocks.2.hook_resid_post": "2",
    "blocks.2.hook_resid_pre": "2_resid_in",
    "blocks.3.hook_mlp_out": "3_mlp",
    "blocks.3.hook_attn_out": "3_attn",
    "blocks.0.attn.hook_z": "0_attn_heads",
    "blocks.1.mlp.hook_in": "1_mlp_norm",
}
NO_HOOKPOINTS = ["blocks.2.hook_resid_mid", "blocks.2.mlp.hook_post", "hook_embed", "blocks.x.hook_mlp_out", ""]
FAMILIES = ["llama", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "olmo2"]
NORMALISED = {"llama": "_no_gain", "gemma2": "_no_gain", "gemma3_text": "_no_gain", "gpt2": "", "gpt_neox": ""}
"""Family -> end of the site's name of `hook_normalized`: before the gain of an RMSNorm, after that of a LayerNorm."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory) -> tuple[str, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("model")
    write_tiny(request.param, folder)
    with torch.device("meta"):
        return request.param, AutoModel.from_config(AutoConfig.from_pretrained(folder))


def test_hooks_of_transformer_lens_are_hookpoints_in_every_family(family):
    name, model = family
    assert {hook: str(hookpoint_of_hook(model, hook)) for hook in EVERYWHERE} == EVERYWHERE
    assert [hookpoint_of_hook(model, hook) for hook in NO_HOOKPOINTS] == [None] * len(NO_HOOKPOINTS)
    if name in NORMALISED:
        expected = f"1_mlp_norm{NORMALISED[name]}", f"1_attn_norm{NORMALISED[name]}"
        found = (hookpoint_of_hook(model, f"blocks.1.ln{number}.hook_normalized") for number in (2, 1))
        assert tuple(map(str, found)) == expected


def test_the_output_of_the_mlp_itself_is_before_a_norm_of_it(family):
    name, model = family
    expected = "1_mlp_module" if name in ("gemma2", "gemma3_text", "olmo2") else "1_mlp"
    assert str(hookpoint_of_hook(model, "blocks.1.mlp.hook_out")) == expected


def test_either_kind_of_name_is_understood():
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("llama", num_hidden_layers=3, hidden_size=32))
    names = {"blocks.1.hook_resid_post": "1", "model.layers.1": "1", "model.layers.2.mlp": "2_mlp"}
    names |= {"model.layers.1.input": "1_resid_in", "model.layers.1.post_attention_layernorm.output": "1_mlp_norm"}
    assert {name: str(hookpoint_named(model, name)) for name in names} == names


SIDES = {
    "model.layers.1.output": "1",
    "model.layers.1.input": "1_resid_in",
    "model.layers.1.self_attn.o_proj.input": "1_attn_heads",
    "model.layers.1.post_feedforward_layernorm.output": "1_mlp",
    "model.layers.1.post_attention_layernorm.output": "1_attn",
    "model.layers.1.pre_feedforward_layernorm.output": "1_mlp_norm",
    "model.layers.1.input_layernorm.output": "1_attn_norm",
    "model.layers.1.mlp.input": "1_mlp_norm",
    "model.layers.1.mlp.output": "1_mlp_module",
    "model.language_model.layers.1.self_attn.output": "1_attn_module",
}


def test_modules_with_a_side_are_hookpoints_of_gemma_3():
    with torch.device("meta"):
        sizes = {"num_hidden_layers": 3, "hidden_size": 32, "intermediate_size": 48, "vocab_size": 99}
        model = AutoModel.from_config(AutoConfig.for_model("gemma3_text", **sizes))
    assert {name: str(hookpoint_of_side(model, name)) for name in SIDES} == SIDES
    for name in ("model.layers.1", "model.layers.1.mlp.act_fn.output", "output", "vision_tower.layers.1.output"):
        assert hookpoint_of_side(model, name) is None
