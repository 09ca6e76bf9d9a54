"""Llama Scope of 2024: `<folder>/{hyperparams.json, checkpoints/final.safetensors}`.

What its library does as it loads one, in this order: with s = sqrt(d) / average norm, of input and output,
b_enc /= s_in, b_dec /= s_out, W_dec *= s_in / s_out; then, where the decoder's norms count, the norms of *that* W_dec
are folded into W_enc and b_enc, and its rows become unit vectors. Pre-activations are compared with the threshold
after that.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.saes.activations import Activation, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.hook_points import of_hook_points
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, SaeFile
from stratalens.saes.settings import MAX_SIZE, read_table, validated_settings
from stratalens.saes.steps import Scale, Step
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_header, row_norms

CONFIG_FILE = "hyperparams.json"
WEIGHTS_FILES = ("checkpoints/final.safetensors", "checkpoints/pruned.safetensors", "final.safetensors")
TAKES_ACTIVATION: bool = False
ACTIVATIONS = ("jumprelu", "topk", "relu")
DATASET_WISE, INFERENCE = "dataset-wise", "inference"


class AverageNorms(BaseModel):
    """Mean norm of the vectors that an SAE reads, and of those that it reconstructs."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    of_input: float = Field(gt=0, lt=1e30, alias="in")
    of_output: float = Field(gt=0, lt=1e30, alias="out")


class LlamaScopeConfig(BaseModel):
    """`hyperparams.json`; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    d_model: int = Field(gt=0, le=MAX_SIZE)
    d_sae: int = Field(gt=0, le=MAX_SIZE)
    act_fn: str
    jump_relu_threshold: float = Field(0.0, ge=0, lt=1e30)
    top_k: int = Field(50, gt=0, le=MAX_SIZE)
    norm_activation: str
    dataset_average_activation_norm: AverageNorms | None = None
    sparsity_include_decoder_norm: bool
    use_decoder_bias: bool = True
    use_glu_encoder: bool = False
    apply_decoder_bias_to_pre_encoder: bool = False
    hook_point_in: str = ""
    hook_point_out: str = ""

    def scales(self) -> tuple[float, float]:
        """What vectors were multiplied by in the training: those that were read, and those that were reconstructed."""
        norms = self.dataset_average_activation_norm
        if self.norm_activation == INFERENCE or norms is None:
            return 1.0, 1.0
        return self.d_model**0.5 / norms.of_input, self.d_model**0.5 / norms.of_output


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(tree.named(re.escape(CONFIG_FILE)))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    return of_hook_points(tree, model, tree.named(re.escape(CONFIG_FILE)))


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    config, arrays = _opened(checkpoint.path)
    header = read_header(arrays.path)
    header.require(
        {"encoder.weight": (config.d_sae, config.d_model), "decoder.weight": (config.d_model, config.d_sae)},
        CONFIG_FILE,
    )
    kind = Kind(config.act_fn, config.top_k if config.act_fn == "topk" else None, config.model_dump_json())
    return sae_file(
        checkpoint, header, arrays, kind, partial(_encoder, config, arrays), partial(_decoder, config, arrays)
    )


def _opened(folder: Path) -> tuple[LlamaScopeConfig, SaeArrays]:
    path = folder / CONFIG_FILE
    config = validated_settings(path, LlamaScopeConfig, read_table(path, "a checkpoint of Llama Scope needs it"))
    _require_supported(path, config)
    weights = next((folder / name for name in WEIGHTS_FILES if (folder / name).exists()), folder / WEIGHTS_FILES[0])
    bias = "decoder.bias" if config.use_decoder_bias else None
    turned = frozenset({"decoder.weight"})
    return config, SaeArrays(weights, "encoder.weight", "decoder.weight", "encoder.bias", bias, turned=turned)


def _require_supported(path: Path, config: LlamaScopeConfig) -> None:
    """Refuse by name what is not read."""
    if config.act_fn not in ACTIVATIONS:
        raise CheckpointError(f"{path}: act_fn `{config.act_fn[:60]}` is unknown; expected {', '.join(ACTIVATIONS)}")
    if config.act_fn == "topk" and config.top_k > config.d_sae:
        raise CheckpointError(f"{path}: top_k = {config.top_k} exceeds the {config.d_sae} latents")
    if config.norm_activation not in (DATASET_WISE, INFERENCE):
        raise CheckpointError(
            f"{path}: norm_activation `{config.norm_activation[:60]}` is not supported; read are {DATASET_WISE}, "
            f"{INFERENCE}"
        )
    if config.norm_activation == DATASET_WISE and config.dataset_average_activation_norm is None:
        raise CheckpointError(f"{path}: no dataset_average_activation_norm, which {DATASET_WISE} needs")
    if config.use_glu_encoder or config.apply_decoder_bias_to_pre_encoder:
        name = "use_glu_encoder" if config.use_glu_encoder else "apply_decoder_bias_to_pre_encoder"
        raise CheckpointError(f"{path}: `{name}` is not supported")


def _encoder(config: LlamaScopeConfig, arrays: SaeArrays) -> Encoder:
    scale_in, scale_out = config.scales()
    linear = arrays.linear()
    steps: tuple[Step, ...] = (replace(linear, bias=linear.bias / scale_in),)
    if config.sparsity_include_decoder_norm:
        steps = (*steps, Scale(row_norms(arrays.decoder_rows()) * (scale_in / scale_out)))
    return Encoder(config.d_model, steps, _activation(config))


def _activation(config: LlamaScopeConfig) -> Activation:
    if config.act_fn == "topk":
        return TopK(config.top_k)
    threshold = config.jump_relu_threshold if config.act_fn == "jumprelu" else 0.0
    return Threshold(torch.full((config.d_sae,), threshold))


def _decoder(config: LlamaScopeConfig, arrays: SaeArrays) -> Decoder:
    scale_in, scale_out = config.scales()
    if config.sparsity_include_decoder_norm:
        scale = 1 / row_norms(arrays.decoder_rows()).clamp(min=torch.finfo(torch.float32).tiny)
    else:
        scale = torch.full((config.d_sae,), scale_in / scale_out)
    decoder = arrays.decode(scale)
    return replace(decoder, bias=decoder.bias / scale_out)
