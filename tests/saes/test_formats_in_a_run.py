"""Checkpoints of other libraries, in the layout in which they are published, given to `--sae_model`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from refusal import refusal, with_options
from safetensors.torch import save_file
from tiny import TINY_K, TINY_LATENTS, TINY_WIDTH
from torch import Tensor

from stratalens.cli.main import main
from stratalens.config.options import RunConfig
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import find_model
from stratalens.saes.source import find_saes

LAYERS = (0, 2)


def arrays(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(TINY_LATENTS, TINY_WIDTH, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    return {
        "encoder": rows,
        "decoder": rows.clone(),
        "b_enc": torch.zeros(TINY_LATENTS),
        "b_dec": torch.zeros(TINY_WIDTH),
    }


def turned(array: Tensor) -> Tensor:
    return array.T.contiguous()


def dictionary_learning(root: Path, layer: int, w: dict[str, Tensor]) -> None:
    folder = root / f"resid_post_layer_{layer}" / "trainer_0"
    folder.mkdir(parents=True)
    state = {"encoder.weight": w["encoder"], "encoder.bias": w["b_enc"], "decoder.weight": turned(w["decoder"])}
    state |= {"b_dec": w["b_dec"], "k": torch.tensor(TINY_K), "threshold": torch.tensor(0.1)}
    torch.save(state, folder / "ae.pt")
    trainer = {
        "dict_class": "AutoEncoderTopK",
        "k": TINY_K,
        "layer": layer,
        "submodule_name": f"resid_post_layer_{layer}",
    }
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))


def llama_scope(root: Path, layer: int, w: dict[str, Tensor]) -> None:
    folder = root / f"Llama3_1-8B-Base-L{layer}R-8x"
    (folder / "checkpoints").mkdir(parents=True)
    hook = f"blocks.{layer}.hook_resid_post"
    config = {"hook_point_in": hook, "hook_point_out": hook, "d_model": TINY_WIDTH, "d_sae": TINY_LATENTS}
    config |= {"act_fn": "jumprelu", "jump_relu_threshold": 0.5, "norm_activation": "dataset-wise", "top_k": 50}
    config |= {"dataset_average_activation_norm": {"in": 5.0, "out": 5.0}, "sparsity_include_decoder_norm": True}
    (folder / "hyperparams.json").write_text(json.dumps(config))
    content = {"encoder.weight": w["encoder"], "encoder.bias": w["b_enc"]}
    content |= {"decoder.weight": turned(w["decoder"]), "decoder.bias": w["b_dec"]}
    save_file(content, folder / "checkpoints" / "final.safetensors")


def llamascopium(root: Path, layer: int, w: dict[str, Tensor]) -> None:
    folder = root / "transcoder" / f"layer{layer}"
    folder.mkdir(parents=True)
    hook = f"blocks.{layer}.hook_resid_post"
    config = {"sae_type": "sae", "hook_point_in": hook, "hook_point_out": hook, "d_model": TINY_WIDTH, "top_k": TINY_K}
    config |= {"expansion_factor": TINY_LATENTS / TINY_WIDTH, "act_fn": "topk", "norm_activation": "token-wise"}
    (folder / "config.json").write_text(json.dumps(config))
    content = {"W_E": turned(w["encoder"]), "b_E": w["b_enc"], "W_D": w["decoder"], "b_D": w["b_dec"]}
    save_file(content, folder / "sae_weights.safetensors")


def qwen_scope(root: Path, layer: int, w: dict[str, Tensor]) -> None:
    root.mkdir(exist_ok=True)
    content = {"W_enc": w["encoder"], "W_dec": turned(w["decoder"]), "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    torch.save(content, root / f"layer{layer}.sae.pt")


def circuit_tracer(root: Path, layer: int, w: dict[str, Tensor]) -> None:
    root.mkdir(exist_ok=True)
    config = {"model_name": "tiny", "model_kind": "transcoder_set"}
    config |= {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "mlp.hook_out"}
    (root / "config.yaml").write_text(yaml.safe_dump(config))
    content = {"W_enc": w["encoder"], "W_dec": w["decoder"], "b_enc": w["b_enc"], "b_dec": w["b_dec"]}
    save_file(content, root / f"layer_{layer}.safetensors")


LAYOUTS: dict[str, Callable[[Path, int, dict[str, Tensor]], None]] = {
    "dictionary_learning": dictionary_learning,
    "llama_scope": llama_scope,
    "llamascopium": llamascopium,
    "qwen_scope": qwen_scope,
    "circuit_tracer": circuit_tracer,
}


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path) -> Path:
    """A folder of SAEs of the tiny model in one of the layouts."""
    root = tmp_path / "saes"
    for layer in LAYERS:
        LAYOUTS[request.param](root, layer, arrays(layer))
    return root


def options(root: Path, layout: str, **more: object) -> dict:
    told = {"sae_activation": f"topk:{TINY_K}"} if layout == "qwen_scope" else {}
    return {"sae_model": str(root), **told, **more}


@pytest.mark.parametrize("told", [False, True])
def test_each_layer_is_found_in_the_published_layout(layout, request, tiny_model, told):
    kind = request.node.callspec.params["layout"]
    more = options(layout, kind, sae_format=kind if told else None)
    config = RunConfig(domain_data="d.jsonl", general_data="g.jsonl", base_model=str(tiny_model), **more)
    saes = find_saes(config, find_model(config))
    site = "mlp_norm" if kind == "circuit_tracer" else "resid"
    assert list(saes) == [Hookpoint(layer, site) for layer in LAYERS]
    assert all((sae.d_model, sae.num_latents) == (TINY_WIDTH, TINY_LATENTS) for sae in saes.values())
    x = torch.randn(5, TINY_WIDTH)
    for sae in saes.values():
        whole = sae.load()
        assert whole.decode(whole.encode(x), x).shape == x.shape


def test_a_run_is_analysed_with_each(layout, request, tiny_arguments, capsys, tmp_path):
    kind = request.node.callspec.params["layout"]
    changed = {name: str(value) for name, value in options(layout, kind).items()}
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, changed)]) == 0, capsys.readouterr().err


def test_another_format_than_the_files_have_is_refused(layout, request, tiny_arguments, capsys):
    kind = request.node.callspec.params["layout"]
    other = "saelens" if kind == "sparsify" else "sparsify"
    changed = {name: str(value) for name, value in options(layout, kind, sae_format=other).items()}
    refusal(with_options(tiny_arguments, changed), capsys)
