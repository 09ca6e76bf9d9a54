"""SAEs of other suites that SAELens loaded and saved again: its names of their places, judged by the library."""

import pytest
import torch
from oracles import assert_same_latents, assert_same_vectors, sparse
from transformers import AutoConfig, AutoModel

from stratalens.saes.formats import saelens
from stratalens.saes.tree import SaeTree

sae_lens = pytest.importorskip("sae_lens")

D_IN, D_OUT, D_SAE = 24, 20, 40
PLACES = {
    "resid_post": ("blocks.2.hook_resid_post", "model.layers.2.output", ("2", "2")),
    "attn_out": ("blocks.2.attn.hook_z", "model.layers.2.self_attn.o_proj.input", ("2_attn_heads", "2_attn_heads")),
    "mlp_out": ("blocks.2.hook_mlp_out", "model.layers.2.post_feedforward_layernorm.output", ("2_mlp", "2_mlp")),
    "transcoder": (
        "blocks.2.hook_mlp_in",
        "model.layers.2.pre_feedforward_layernorm.output",
        ("2_mlp_norm", "2_mlp"),
    ),
    "transcoder of a bridge": ("blocks.2.mlp.hook_in", None, ("2_mlp_norm", "2_mlp")),
}
"""Site -> the library's name of it, that of the module, and where the SAE reads and reconstructs."""


@pytest.mark.parametrize("site", PLACES)
def test_the_module_tells_where_the_name_of_the_hook_is_none_of_the_model(tmp_path, site):
    """`hook_mlp_in` is before the norm in TransformerLens, and SAELens has it for what comes out of the norm."""
    hook, module, places = PLACES[site]
    kind = "jumprelu_skip_transcoder" if site.startswith("transcoder") else "jumprelu"
    sae_class, config_class = sae_lens.registry.get_sae_class(kind)
    metadata = sae_lens.saes.sae.SAEMetadata(
        hook_name=hook, hf_hook_name=module, hook_name_out="blocks.2.hook_mlp_out", model_name="google/gemma-3-270m"
    )
    sizes = {"d_in": D_IN, "d_sae": D_SAE, **({"d_out": D_OUT} if "skip" in kind else {})}
    theirs = sae_class(config_class(**sizes, apply_b_dec_to_input=False, metadata=metadata))
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    theirs.save_model(tmp_path)
    with torch.device("meta"):
        model = AutoModel.from_config(AutoConfig.for_model("gemma3_text", num_hidden_layers=3, hidden_size=32))
    (found,) = saelens.checkpoints(SaeTree.of(tmp_path), model, None)
    assert (str(found.hookpoint), str(found.target)) == places
    x = torch.randn(30, D_IN, generator=generator)
    with torch.no_grad():
        latents, rebuilt = theirs.encode(x), theirs(x)
    ours = saelens.describe(found).load()
    assert_same_latents(ours, x, latents)
    assert_same_vectors(ours.decode(sparse(latents), x), rebuilt)
