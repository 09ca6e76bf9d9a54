"""Checkpoints of the tiny model in the layouts in which other libraries' SAEs are published."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from tiny import TINY_K, TINY_LATENTS, TINY_WIDTH
from torch import Tensor

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


def write_layout(root: Path, layout: str) -> None:
    """Write random SAEs of the layers `LAYERS`."""
    for layer in LAYERS:
        LAYOUTS[layout](root, layer, arrays(layer))
