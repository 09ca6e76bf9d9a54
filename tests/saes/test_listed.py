"""Layer, site, L0 and files of an SAE are read from the names of the suites that people publish."""

import pytest

from stratalens.saes.listed import (
    ListedSae,
    at_layers,
    at_sites,
    layer_of,
    listed_saes,
    site_of,
    without_other_seeds,
)

SECOND = ("params.safetensors", "config.json")
SUITES: dict[str, tuple[str, list[str], ListedSae]] = {
    "Gemma Scope": (
        "google/gemma-scope-2b-pt-res",
        ["layer_12/width_16k/average_l0_82/params.npz"],
        ListedSae("layer_12/width_16k/average_l0_82", (), 12, "resid", 82),
    ),
    "Gemma Scope, MLP": (
        "google/gemma-scope-2b-pt-mlp",
        ["layer_0/width_65k/average_l0_9/params.npz"],
        ListedSae("layer_0/width_65k/average_l0_9", (), 0, "mlp", 9),
    ),
    "Gemma Scope, attention": (
        "google/gemma-scope-9b-pt-att",
        ["layer_41/width_16k/average_l0_127/params.npz"],
        ListedSae("layer_41/width_16k/average_l0_127", (), 41, "attn_heads", 127),
    ),
    "Gemma Scope, embedding": (
        "google/gemma-scope-2b-pt-res",
        ["embedding/width_4k/average_l0_111/params.npz"],
        ListedSae("embedding/width_4k/average_l0_111", (), 0, "embedding", 111),
    ),
    "Gemma Scope, transcoders": (
        "google/gemma-scope-2b-pt-transcoders",
        ["layer_3/width_16k/average_l0_5/params.npz"],
        ListedSae("layer_3/width_16k/average_l0_5", (), 3, "transcoder", 5),
    ),
    "Gemma Scope 2": (
        "google/gemma-scope-2-270m-pt",
        [f"resid_post/layer_5_width_16k_l0_small/{name}" for name in ("params.safetensors", "config.json")],
        ListedSae("resid_post/layer_5_width_16k_l0_small", (), 5, "resid", None),
    ),
    "Gemma Scope 2, attention": (
        "google/gemma-scope-2-4b-it",
        [f"attn_out_all/layer_0_width_1m_l0_big/{name}" for name in ("params.safetensors", "config.json")],
        ListedSae("attn_out_all/layer_0_width_1m_l0_big", (), 0, "attn", None),
    ),
    "Gemma Scope 2, transcoders": (
        "google/gemma-scope-2-270m-pt",
        [
            f"transcoder_all/layer_17_width_16k_l0_medium_affine/{name}"
            for name in ("params.safetensors", "config.json")
        ],
        ListedSae("transcoder_all/layer_17_width_16k_l0_medium_affine", (), 17, "transcoder", None),
    ),
    "SAELens": (
        "jbloom/GPT2-Small-SAEs-Reformatted",
        [f"blocks.8.hook_resid_pre/{name}" for name in ("sae_weights.safetensors", "cfg.json")],
        ListedSae("blocks.8.hook_resid_pre", (), 8, "resid_in", None),
    ),
    "SAELens, heads": (
        "someone/saes",
        [f"gpt2/blocks.11.attn.hook_z/{name}" for name in ("sae_weights.safetensors", "cfg.json")],
        ListedSae("gpt2/blocks.11.attn.hook_z", (), 11, "attn_heads", None),
    ),
    "sparsify": (
        "EleutherAI/sae-llama-3-8b-32x",
        [f"layers.16/{name}" for name in ("sae.safetensors", "cfg.json")],
        ListedSae("layers.16", (), 16, "resid", None),
    ),
    "sparsify, MLP": (
        "EleutherAI/sae-pythia-70m-32k",
        [f"layers.3.mlp/{name}" for name in ("sae.safetensors", "cfg.json")],
        ListedSae("layers.3.mlp", (), 3, "mlp", None),
    ),
    "sparsify, GPT-2": (
        "someone/saes",
        [f"h.3.attn/seed0/{name}" for name in ("sae.safetensors", "cfg.json")],
        ListedSae("h.3.attn/seed0", (), 3, "attn", None),
    ),
    "Qwen-Scope": (
        "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50",
        ["layer7.sae.pt"],
        ListedSae("layer7.sae.pt", (), 7, "resid", None),
    ),
    "Llama Scope": (
        "fnlp/Llama3_1-8B-Base-LXR-8x",
        [f"Llama3_1-8B-Base-L0R-8x/{name}" for name in ("checkpoints/final.safetensors", "hyperparams.json")],
        ListedSae("Llama3_1-8B-Base-L0R-8x", (), 0, "resid", None),
    ),
    "Llama Scope, MLP": (
        "fnlp/Llama3_1-8B-Base-LXM-8x",
        [f"Llama3_1-8B-Base-L15M-8x/{name}" for name in ("checkpoints/final.safetensors", "hyperparams.json")],
        ListedSae("Llama3_1-8B-Base-L15M-8x", (), 15, "mlp", None),
    ),
    "Llama Scope, transcoders": (
        "fnlp/Llama3_1-8B-Base-LXTC-8x",
        [f"Llama3_1-8B-Base-L18TC-8x/{name}" for name in ("checkpoints/final.safetensors", "hyperparams.json")],
        ListedSae("Llama3_1-8B-Base-L18TC-8x", (), 18, "transcoder", None),
    ),
    "dictionary_learning": (
        "someone/saes_pythia-160m",
        [f"resid_post_layer_8/trainer_3/{name}" for name in ("ae.pt", "config.json")],
        ListedSae("resid_post_layer_8/trainer_3", (), 8, "resid", None),
    ),
    "Goodfire": (
        "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
        ["Llama-3.1-8B-Instruct-SAE-l19.pth"],
        ListedSae("Llama-3.1-8B-Instruct-SAE-l19.pth", (), 19, "", None),
    ),
    "circuit-tracer": (
        "mntss/transcoder-Llama-3.2-1B",
        ["layer_5.safetensors", "config.yaml"],
        ListedSae("layer_5.safetensors", (), 5, "transcoder", None),
    ),
}
"""Suite -> repository, files of one SAE of it, and what their names say; the files are those."""


@pytest.mark.parametrize("suite", SUITES)
def test_the_names_of_a_suite_say_layer_site_l0_and_files(suite):
    repository, files, said = SUITES[suite]
    others = [".gitattributes", "README.md", "optimizer_0.pt", "rank_0_state.safetensors", "fig/l0.png"]
    (found,) = listed_saes([*files, *others], repository)
    assert found._replace(files=()) == said
    assert set(found.files) == set(files)


def test_what_is_not_final_or_not_an_sae_is_left_out():
    names = ["L15R/checkpoints/step_100.safetensors", "L15R/checkpoints/final.safetensors", "L15R/hyperparams.json"]
    names += ["layers.1/sae.safetensors", "layers.1/optimizer.pt", "layers.1/sparsity.safetensors", "model.safetensors"]
    assert [sae.path for sae in listed_saes(names)] == ["L15R", "layers.1"]
    assert listed_saes(["config.json", "model-00001-of-00002.safetensors", "tokenizer.json"]) == []


def test_of_a_run_each_sae_has_the_configurations_above_it_and_not_those_beside():
    names = [f"{name}/{file}" for name in ("a/l1", "a/l2") for file in ("ae.pt", "config.json")]
    first, second = listed_saes([*names, "a/c.json", "b/c.json"])
    assert first.files == ("a/l1/ae.pt", "a/c.json", "a/l1/config.json")
    assert second.files == ("a/l2/ae.pt", "a/c.json", "a/l2/config.json")


def test_a_folder_that_was_named_says_layer_and_site_of_what_is_in_it():
    (found,) = listed_saes(["average_l0_5/params.npz"], "someone/x", "mlp_out/layer_3/width_16k")
    assert (found.layer, found.site, found.path) == (3, "mlp", "average_l0_5")


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("average_l0_82", None),
        ("width_16k_l0_small", None),
        ("sae-l0.pth", 0),
        ("x-L0R-8x", 0),
        ("l12_l0_50", 12),
        ("layer_3/l0_50", 3),
        ("model_layers_26/resid_post_layer_8", 8),
        ("trainer_7", None),
        ("LAYER-4", 4),
        ("player_4", None),
        ("layer_12345", None),
    ],
)
def test_an_l0_is_no_layer(path, layer):
    assert layer_of(path) == layer


def test_sites_of_names():
    assert site_of("model.layers.3") == site_of("base/h.11") == "resid"
    assert site_of("gemma-scope-2b-pt-res") == "resid"
    assert site_of("results/3") == ""
    assert site_of("layers.9.post_feedforward_layernorm") == "mlp"


def saes(*names: str) -> list[ListedSae]:
    return listed_saes([f"{name}/params.npz" for name in names], "someone/x")


def paths(found: list[ListedSae]) -> list[str]:
    return [sae.path for sae in found]


def test_layers_are_chosen_by_their_names_and_all_are_taken_where_none_says_a_layer():
    found = saes("layer_1", "layer_11", "extra")
    assert paths(at_layers(found, [1])) == ["layer_1"]
    assert paths(at_layers(found, None)) == ["layer_1", "layer_11"]
    assert paths(at_layers(saes("one", "two"), [1])) == ["one", "two"]


def test_sites_are_chosen_by_their_names_and_what_says_none_stays():
    found = saes("attn_out/layer_1", "layer_1", "mlp_out/layer_1", "resid_post/layer_1", "embedding/a")
    assert paths(at_sites(found, [])) == ["resid_post/layer_1"]
    assert paths(at_sites(found, ["mlp"])) == ["layer_1", "mlp_out/layer_1"]
    for site in ("attn_module", "attn_heads"):  # libraries call both the output of attention
        assert paths(at_sites(found, [site])) == ["attn_out/layer_1", "layer_1"]
    assert paths(at_sites(found, ["resid_in"])) == ["embedding/a", "layer_1"]
    assert paths(at_sites(saes("transcoder/layer_1", "mlp_out/layer_1"), ["mlp_norm"])) == ["transcoder/layer_1"]
    assert paths(at_sites(saes("mlp_out/layer_1", "embedding/a"), [])) == ["mlp_out/layer_1"]


def test_of_several_seeds_the_first_is_taken():
    assert without_other_seeds(["a/seed1", "b/seed2", "a/seed0", "c"]) == ["a/seed0", "b/seed2", "c"]
