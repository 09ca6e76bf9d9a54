"""Llamascopium (before: lm-saes): `config.json` beside `sae_weights.safetensors`; Llama Scope since R1-Distill.

h = x s W_E + b_E, times sigmoid(x s W_E_glu + b_E_glu) where there is a gate; the activation picks latents by
h |W_D| where the decoder's norms count, and they have the value h. With the average norm n of the vectors s is
sqrt(d) / n; token by token it is sqrt(d) / |x|.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.files.json_files import json_object
from stratalens.saes.activations import Activation, Divided, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.hook_points import of_hook_points
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, SaeFile
from stratalens.saes.settings import MAX_SIZE, read_table, validated_settings
from stratalens.saes.steps import GluLinear, Linear, Normalise, Rescale, Scale, Step
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header, read_numbers, row_norms

CONFIG_FILE = "config.json"
WEIGHTS_FILES = (
    *("sae_weights.safetensors", "sae_weights.pt"),
    *(f"checkpoints/{name}.{end}" for name in ("pruned", "final") for end in ("safetensors", "pt")),
)
"""In the order in which the library looks for them."""
TAKES_ACTIVATION: bool = False
KINDS = ("crosscoder", "clt", "lorsa", "molt")
"""Values of `sae_type` that are no SAE of one place, or not sparse in latents."""
ACTIVATIONS = ("relu", "jumprelu", "topk")
TOKEN_WISE, DATASET_WISE, INFERENCE = "token-wise", "dataset-wise", "inference"
NORMALISATIONS = (TOKEN_WISE, DATASET_WISE, INFERENCE)
THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
"""Names of the logarithms of the thresholds."""
NORM = "dataset_average_activation_norm."
"""What the name of the average norm at a hook begins with."""


class LlamascopiumConfig(BaseModel):
    """`config.json`; unknown keys are ignored, missing ones have the library's default."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    d_model: int = Field(gt=0, le=MAX_SIZE)
    expansion_factor: float = Field(gt=0, lt=1e6)
    hook_point_in: str
    hook_point_out: str
    act_fn: str = "relu"
    norm_activation: str = DATASET_WISE
    sparsity_include_decoder_norm: bool = True
    top_k: int = Field(50, gt=0, le=MAX_SIZE)
    use_decoder_bias: bool = True
    use_glu_encoder: bool = False
    apply_decoder_bias_to_pre_encoder: bool = False

    @property
    def width(self) -> int:
        """Number of latents."""
        return int(self.d_model * self.expansion_factor)

    @property
    def transcodes(self) -> bool:
        """Whether it reconstructs what is elsewhere."""
        return self.hook_point_in != self.hook_point_out


class _Coder(NamedTuple):
    """What is known of a checkpoint before its weights are read."""

    config: LlamascopiumConfig
    arrays: SaeArrays
    gate: SaeArrays | None
    """Names of the weight and bias of the gate, beside the same decoder."""
    threshold: str | None
    scales: tuple[float, float] | None
    """What vectors are multiplied by before they are encoded, and reconstructed ones were; None token by token."""


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(_configs(tree))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    configs = _configs(tree)
    for path in configs:
        _require_kind(path)
    return of_hook_points(tree, model, configs)


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    coder, header = _opened(checkpoint.path)
    config = coder.config
    kind = Kind(config.act_fn, config.top_k if config.act_fn == "topk" else None, config.model_dump_json())
    read = (partial(_encoder, coder), partial(_decoder, coder))
    file = sae_file(checkpoint, header, coder.arrays, kind, *read)
    return file if coder.gate is None else replace(file, products=2)


def _configs(tree: SaeTree) -> list[Path]:
    """The configurations of this library among files of the same name."""
    return [
        path
        for path in tree.named(r"config\.json")
        if {"hook_point_in", "hook_points"} & (content := json_object(path)).keys()
        or ("norm_activation" in content and "act_fn" in content)
    ]


def _require_kind(path: Path) -> None:
    """Refuse what is no SAE or transcoder."""
    kind = str(json_object(path).get("sae_type", "sae"))
    if kind != "sae":
        what = f"`{kind[:60]}` of Llamascopium" if kind in KINDS else f"`{kind[:60]}`"
        raise CheckpointError(f"{path}: sae_type {what} is not supported; read are SAEs and transcoders (sae)")


def _opened(folder: Path) -> tuple[_Coder, Header]:
    """The configuration of a checkpoint, the names of its arrays and what the file holds, all checked."""
    path = folder / CONFIG_FILE
    config = validated_settings(path, LlamascopiumConfig, read_table(path, "a checkpoint of Llamascopium needs it"))
    _require_supported(path, config)
    weights = next((folder / name for name in WEIGHTS_FILES if (folder / name).exists()), folder / WEIGHTS_FILES[0])
    header = read_header(weights)
    prefix = "sae." if any(name.startswith("sae.") for name in header.shapes) else ""
    old = f"{prefix}encoder.weight" in header.shapes
    arrays = _arrays(weights, prefix, old, config.use_decoder_bias)
    shape = (config.width, config.d_model)
    names = (arrays.encoder, arrays.decoder)
    header.require({name: shape[::-1] if name in arrays.turned else shape for name in names}, CONFIG_FILE)
    gate = None
    if config.use_glu_encoder:
        weight, bias = ("encoder_glu.weight", "encoder_glu.bias") if old else ("W_E_glu", "b_E_glu")
        turned = arrays.turned - {arrays.encoder} | (frozenset() if old else {prefix + weight})
        gate = replace(arrays, encoder=prefix + weight, encoder_bias=prefix + bias, turned=turned)
        gate.sizes(header)
    threshold = _threshold(header, prefix, config)
    return _Coder(config, arrays, gate, threshold, _scales(header, prefix, config)), header


def _arrays(path: Path, prefix: str, old: bool, with_bias: bool) -> SaeArrays:
    """Names of the arrays; `old` ones, of R1-Distill, are those of linear layers."""
    names = (
        ("encoder.weight", "decoder.weight", "encoder.bias", "decoder.bias") if old else ("W_E", "W_D", "b_E", "b_D")
    )
    encoder, decoder, encoder_bias, decoder_bias = (prefix + name for name in names)
    turned = frozenset({decoder if old else encoder})
    return SaeArrays(path, encoder, decoder, encoder_bias, decoder_bias if with_bias else None, turned=turned)


def _threshold(header: Header, prefix: str, config: LlamascopiumConfig) -> str | None:
    if config.act_fn != "jumprelu":
        return None
    name = next((prefix + name for name in THRESHOLDS if prefix + name in header.shapes), prefix + THRESHOLDS[0])
    header.require({name: (config.width,)}, CONFIG_FILE)
    return name


def _scales(header: Header, prefix: str, config: LlamascopiumConfig) -> tuple[float, float] | None:
    if config.norm_activation == TOKEN_WISE:
        return None
    if config.norm_activation == INFERENCE:
        return 1.0, 1.0
    scales = []
    for hook in (config.hook_point_in, config.hook_point_out):
        header.shape(f"{prefix}{NORM}{hook}")
        norms = read_numbers(header.path, f"{prefix}{NORM}{hook}")
        if len(norms) != 1 or norms[0] <= 0:
            raise CheckpointError(f"{header.path}: `{NORM}{hook}` must be a number above 0")
        scales.append(config.d_model**0.5 / norms[0])
    return scales[0], scales[1]


def _require_supported(path: Path, config: LlamascopiumConfig) -> None:
    """Refuse by name what is not read."""
    if config.act_fn in ("batchtopk", "layertopk", "batchlayertopk"):
        raise CheckpointError(
            f"{path}: act_fn `{config.act_fn}` picks latents over a batch of tokens, which is not supported; "
            "convert it to jumprelu with Llamascopium"
        )
    if config.act_fn not in ACTIVATIONS:
        raise CheckpointError(f"{path}: act_fn `{config.act_fn[:60]}` is unknown; expected {', '.join(ACTIVATIONS)}")
    if config.act_fn == "topk" and config.top_k > config.width:
        raise CheckpointError(f"{path}: top_k = {config.top_k} exceeds the {config.width} latents")
    if config.norm_activation not in NORMALISATIONS:
        what = config.norm_activation[:60]
        raise CheckpointError(
            f"{path}: norm_activation `{what}` is not supported; read are {', '.join(NORMALISATIONS)}"
        )
    if config.norm_activation == TOKEN_WISE and config.transcodes:
        raise CheckpointError(f"{path}: norm_activation {TOKEN_WISE} of a transcoder is not supported")
    if config.apply_decoder_bias_to_pre_encoder:
        raise CheckpointError(f"{path}: `apply_decoder_bias_to_pre_encoder` is not supported")


def _encoder(coder: _Coder) -> Encoder:
    before: Step = Normalise(centred=False) if coder.scales is None else Rescale(coder.scales[0], 1 / coder.scales[1])
    product: Linear | GluLinear = coder.arrays.linear()
    if coder.gate is not None:
        product = GluLinear(product, coder.gate.linear())
    activation, scale = _activation(coder)
    steps: tuple[Step, ...] = (before, product) if scale is None else (before, product, Scale(scale))
    return Encoder(coder.config.d_model, steps, activation)


def _activation(coder: _Coder) -> tuple[Activation, Float[Tensor, "latent"] | None]:
    """The activation, and what pre-activations are multiplied by before it."""
    config = coder.config
    norms = None
    if config.sparsity_include_decoder_norm and config.act_fn != "relu":
        norms = row_norms(coder.arrays.decoder_rows()).clamp(min=torch.finfo(torch.float32).tiny)
    if config.act_fn == "topk":
        return (TopK(config.top_k), None) if norms is None else (Divided(TopK(config.top_k), norms), norms)
    if coder.threshold is None:
        return Threshold.relu(config.width), None
    threshold = read_array(coder.arrays.path, coder.threshold).exp()
    return Threshold.of(threshold if norms is None else threshold / norms), None


def _decoder(coder: _Coder) -> Decoder:
    return coder.arrays.decode()
