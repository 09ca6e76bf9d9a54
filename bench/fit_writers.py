"""One SAE in the files of every format that is read: of the output of a block, and with the latents that it has.

A format takes part by one line of `WRITERS`. A TopK is a JumpReLU with one threshold, above which as many latents
fire, in formats of threshold SAEs; in Goodfire's, a ReLU.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RELU_FACTOR = 4
"""How many times k latents fire of the ReLU, whose latents are lower by its threshold. With 4 times k its FVU is 0.08
to 0.28 where that of the TopK is 0.09 to 0.36, and its reconstructions are of the right length; with k too short."""


@dataclass(frozen=True)
class Weights:
    """A TopK SAE, in sparsify's convention: latents are the k largest of encoder (x - b_dec) + bias."""

    encoder: Tensor
    """`[latent, width]`."""
    bias: Tensor
    decoder: Tensor
    """`[latent, width]`."""
    b_dec: Tensor
    k: int
    threshold: float
    """Above which as many latents fire as k, of a JumpReLU with these weights."""
    relu_threshold: float
    """Above which `RELU_FACTOR` k latents fire."""
    relu_shift: Tensor
    """Mean error of the ReLU that has this threshold subtracted, to be added to its decoder bias."""
    rms: float
    """Root of the mean square of the vectors that it was trained on."""

    @classmethod
    def read(cls, folder: Path, x: Tensor) -> "Weights":
        """Read a checkpoint of sparsify.

        Args:
            folder: of the checkpoint.
            x: some of the vectors that it was trained for, `[token, width]`.
        """
        arrays = {name: array.float() for name, array in load_file(folder / "sae.safetensors").items()}
        names = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
        encoder, bias, decoder, b_dec = (arrays[name] for name in names)
        k, x = json.loads((folder / "cfg.json").read_text())["k"], x.float()
        pre = (x - b_dec) @ encoder.T + bias
        highest = pre.flatten().topk(RELU_FACTOR * k * len(x)).values
        threshold, relu_threshold = (max(float(highest[count * len(x) - 1]), 1e-4) for count in (k, RELU_FACTOR * k))
        shift = (x - (pre - relu_threshold).relu() @ decoder - b_dec).mean(0)
        rms = float(x.pow(2).mean().sqrt())
        return cls(encoder, bias, decoder, b_dec, k, threshold, relu_threshold, shift, rms)

    @property
    def folded_bias(self) -> Tensor:
        """The bias of an encoder that subtracts nothing."""
        return self.bias - self.encoder @ self.b_dec if self.encoder.shape == self.decoder.shape else self.bias

    @property
    def width(self) -> int:
        """Of the vectors."""
        return len(self.b_dec)


class Written(NamedTuple):
    """A checkpoint on disk, and the options by which it is read."""

    root: Path
    options: Mapping[str, object]


Write = Callable[[Weights, int, Path], Written]
"""Writes weights as an SAE of the output of a block."""


def _saved(path: Path, arrays: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {name: array.contiguous() for name, array in arrays.items()}
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)


def _configured(path: Path, config: Mapping[str, object]) -> None:
    path.write_text(json.dumps(config))


def _sparsify(w: Weights, block: int, root: Path) -> Written:
    folder = root / f"layers.{block}"
    arrays = {"encoder.weight": w.encoder, "encoder.bias": w.bias, "W_dec": w.decoder, "b_dec": w.b_dec}
    _saved(folder / "sae.safetensors", arrays)
    _configured(folder / "cfg.json", {"activation": "topk", "num_latents": len(w.bias), "k": w.k, "d_in": w.width})
    return Written(root, {})


def _saelens(architecture: str) -> Write:
    def write(w: Weights, block: int, root: Path) -> Written:
        arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.bias, "b_dec": w.b_dec}
        settings: dict[str, object] = {"k": w.k, "rescale_acts_by_decoder_norm": False}
        if architecture == "jumprelu":
            settings = {}
            arrays["threshold"] = torch.full_like(w.bias, w.threshold)
        _saved(root / f"block_{block}" / "sae_weights.safetensors", arrays)
        sizes = {"d_in": w.width, "d_sae": len(w.bias), "architecture": architecture, "dtype": "float32"}
        steps = {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
        metadata = {"hook_name": f"blocks.{block}.hook_resid_post", "model_name": "any"}
        _configured(root / f"block_{block}" / "cfg.json", sizes | steps | settings | {"metadata": metadata})
        return Written(root, {})

    return write


def _gemma_scope(w: Weights, block: int, root: Path) -> Written:
    repository = root / "gemma-scope-pt-res"
    folder = repository / f"layer_{block}" / "width_2k" / f"average_l0_{w.k}"
    folder.mkdir(parents=True)
    arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    arrays["threshold"] = torch.full_like(w.bias, w.threshold)
    np.savez(folder / "params.npz", **{name: array.numpy() for name, array in arrays.items()})  # pyright: ignore[reportArgumentType]
    return Written(repository, {})


def _gemma_scope_2(w: Weights, block: int, root: Path) -> Written:
    folder = root / "resid_post" / f"layer_{block}_width_2k_l0_small"
    arrays = {"w_enc": w.encoder.T, "w_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    _saved(folder / "params.safetensors", {**arrays, "threshold": torch.full_like(w.bias, w.threshold)})
    hook = f"model.layers.{block}.output"
    hooks = {"hf_hook_point_in": hook, "hf_hook_point_out": hook}
    _configured(folder / "config.json", {"architecture": "jump_relu", "l0": w.k, "width": len(w.bias), **hooks})
    return Written(root, {})


def _dictionary_learning(kind: str) -> Write:
    def write(w: Weights, block: int, root: Path) -> Written:
        folder = root / f"resid_post_layer_{block}" / "trainer_0"
        arrays = {"encoder.weight": w.encoder, "encoder.bias": w.bias, "decoder.weight": w.decoder.T, "b_dec": w.b_dec}
        _saved(folder / "ae.pt", {**arrays, "k": torch.tensor(w.k), "threshold": torch.tensor(w.threshold)})
        trainer = {"dict_class": kind, "k": w.k, "layer": block, "submodule_name": f"resid_post_layer_{block}"}
        _configured(folder / "config.json", {"trainer": trainer})
        return Written(root, {})

    return write


def _llama_scope(w: Weights, block: int, root: Path) -> Written:
    """Vectors are brought to a mean square of 1, which biases say; norms of decoder rows count for the threshold."""
    folder = root / f"L{block}R-4x"
    arrays = {"encoder.weight": w.encoder, "decoder.weight": w.decoder.T}
    biases = {"encoder.bias": w.folded_bias / w.rms, "decoder.bias": w.b_dec / w.rms}
    _saved(folder / "checkpoints" / "final.safetensors", arrays | biases)
    hook, norm = f"blocks.{block}.hook_resid_post", w.rms * w.width**0.5
    settings = {"act_fn": "jumprelu", "jump_relu_threshold": w.threshold, "sparsity_include_decoder_norm": True}
    scale = {"norm_activation": "dataset-wise", "dataset_average_activation_norm": {"in": norm, "out": norm}}
    sizes = {"d_model": w.width, "d_sae": len(w.bias), "hook_point_in": hook, "hook_point_out": hook}
    _configured(folder / "hyperparams.json", {**sizes, **settings, **scale})
    return Written(root, {})


def _llamascopium(w: Weights, block: int, root: Path) -> Written:
    """Vectors are brought to a mean square of 1, to which biases belong; norms of decoder rows count for the choice."""
    folder, hook = root / f"layer{block}", f"blocks.{block}.hook_resid_post"
    arrays = {"W_E": w.encoder.T, "b_E": w.folded_bias / w.rms, "W_D": w.decoder, "b_D": w.b_dec / w.rms}
    norm = torch.tensor(w.rms * w.width**0.5)
    _saved(folder / "sae_weights.safetensors", {**arrays, f"dataset_average_activation_norm.{hook}": norm})
    settings = {"sae_type": "sae", "act_fn": "topk", "top_k": w.k, "norm_activation": "dataset-wise"}
    sizes = {"d_model": w.width, "expansion_factor": len(w.bias) / w.width}
    _configured(folder / "config.json", {**settings, **sizes, "hook_point_in": hook, "hook_point_out": hook})
    return Written(root, {})


def _qwen_scope(w: Weights, block: int, root: Path) -> Written:
    repository = root / f"SAE-Res-any-W2K-L0_{w.k}"
    arrays = {"W_enc": w.encoder, "W_dec": w.decoder.T, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    _saved(repository / f"layer{block}.sae.pt", arrays)
    return Written(repository, {})


def _circuit_tracer(w: Weights, block: int, root: Path) -> Written:
    """A transcoder from the output of a block to itself, which is what an SAE of it is."""
    arrays = {"W_enc": w.encoder, "W_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    _saved(root / f"layer_{block}.safetensors", arrays)
    hooks = {"feature_input_hook": "hook_resid_post", "feature_output_hook": "hook_resid_post"}
    _configured(root / "config.yaml", {"model_kind": "transcoder_set", "activation": "topk", "k": w.k, **hooks})
    return Written(root, {})


def _goodfire(w: Weights, block: int, root: Path) -> Written:
    encoder = {"encoder_linear.weight": w.encoder, "encoder_linear.bias": w.folded_bias - w.relu_threshold}
    decoder = {"decoder_linear.weight": w.decoder.T, "decoder_linear.bias": w.b_dec + w.relu_shift}
    _saved(root / f"any-SAE-l{block}.pth", encoder | decoder)
    return Written(root, {})


def _arrays(w: Weights, block: int, root: Path) -> Written:
    arrays = {"W_enc": w.encoder.T, "W_dec": w.decoder, "b_enc": w.folded_bias, "b_dec": w.b_dec}
    _saved(root / f"layer_{block}" / "arrays.safetensors", arrays)
    return Written(root, {"sae_activation": f"topk:{w.k}"})


WRITERS: dict[str, Write] = {
    "sparsify": _sparsify,
    "SAELens topk": _saelens("topk"),
    "SAELens jumprelu": _saelens("jumprelu"),
    "Gemma Scope": _gemma_scope,
    "Gemma Scope 2": _gemma_scope_2,
    "dictionary_learning TopK": _dictionary_learning("AutoEncoderTopK"),
    "dictionary_learning BatchTopK": _dictionary_learning("BatchTopKSAE"),
    "Llama Scope": _llama_scope,
    "Llamascopium": _llamascopium,
    "Qwen-Scope": _qwen_scope,
    "circuit-tracer": _circuit_tracer,
    "Goodfire": _goodfire,
    "named arrays": _arrays,
}
"""Format -> how an SAE is written in it."""
