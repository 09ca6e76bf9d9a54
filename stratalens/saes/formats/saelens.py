"""SAELens: a folder with `cfg.json` and `sae_weights.safetensors`, of version 6 or before.

Before version 6 the configuration is flat and has other names, and a TopK has the architecture "standard".
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.files.json_files import json_object
from stratalens.hookpoint import Hookpoint
from stratalens.models.hook_names import hookpoint_named, is_rms
from stratalens.saes.activations import Activation, Gated, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Decoder, Encoder, SaeFile
from stratalens.saes.settings import MAX_SIZE, no_known_place, read_table, validated_settings
from stratalens.saes.steps import Centre, Normalise, Rescale, Scale, Step
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header, read_numbers, row_norms

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
TAKES_ACTIVATION: bool = False
RELU, TOPK, JUMPRELU, GATED = "relu", "topk", "jumprelu", "gated"
ARCHITECTURES = {
    "standard": RELU,
    "topk": TOPK,
    "jumprelu": JUMPRELU,
    "gated": GATED,
    "transcoder": RELU,
    "skip_transcoder": RELU,
    "jumprelu_transcoder": JUMPRELU,
    "jumprelu_skip_transcoder": JUMPRELU,
}
"""Architecture -> activation."""
IN_TRAINING = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of checkpoints of a training, which the library itself saves as jumprelu when it ends."""
NOT_APPLIED = ("none", "expected_average_only_in", "covariance_whitening")
"""Normalisations that the library does not apply to what is encoded: they are folded into the weights before."""
NORMALISATIONS = ("layer_norm", "constant_norm_rescale", "constant_scalar_rescale")
SCALING_FACTORS = ("scaling_factor", "finetuning_scaling_factor")
"""Arrays of factors that a finetuning learned for the latents."""
NAMES_BEFORE_6 = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}


class SaeLensConfig(BaseModel):
    """`cfg.json`, with the metadata in it beside the rest; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    architecture: str = "standard"
    d_in: int = Field(gt=0, le=MAX_SIZE)
    d_sae: int = Field(gt=0, le=MAX_SIZE)
    d_out: int | None = Field(None, gt=0, le=MAX_SIZE)
    k: float | None = Field(None, gt=0, le=MAX_SIZE)
    """Of a topk a whole number; of what was a batchtopk perhaps a fraction, which counts no more."""
    rescale_acts_by_decoder_norm: bool = False
    apply_b_dec_to_input: bool | None = None
    normalize_activations: str = "none"
    activation_normalization_factor: float | None = Field(None, gt=0, lt=1e30)
    activation_fn: str = "relu"
    """Before version 6."""
    hook_name: str = ""
    hook_name_out: str = ""
    hook_head_index: int | None = None

    @property
    def transcodes(self) -> bool:
        """Whether it reconstructs what is elsewhere."""
        return "transcoder" in self.architecture

    @property
    def skips(self) -> bool:
        """Whether it has a skip weight."""
        return "skip" in self.architecture

    @property
    def activation(self) -> str:
        """Name of the activation."""
        return ARCHITECTURES[self.architecture]

    @property
    def places(self) -> int | None:
        """Most latents that fire on a token; None without such a limit."""
        return None if self.activation != TOPK or self.k is None else int(self.k)

    @property
    def centred(self) -> bool:
        """Whether the decoder bias is subtracted before encoding."""
        return not self.transcodes and self.apply_b_dec_to_input is not False

    @property
    def factor(self) -> float:
        """By which vectors are multiplied first."""
        scalar = self.normalize_activations == "constant_scalar_rescale"
        return self.activation_normalization_factor or 1.0 if scalar else 1.0

    def before(self) -> tuple[Step, ...]:
        """What is done to vectors first."""
        if self.normalize_activations == "constant_scalar_rescale":
            return (Rescale(self.factor, 1.0),)
        if self.normalize_activations in NOT_APPLIED:
            return ()
        return (Normalise(self.normalize_activations == "layer_norm", undone=not self.transcodes),)


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    return bool(_folders(tree))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    found, names = list[Checkpoint](), list[str]()
    for folder in _folders(tree):
        content = _flat(json_object(folder / CONFIG_FILE))
        name, source = _place(model, content, "hook_name", "hf_hook_name") or (folder.name, None)
        source = source or hookpoint_named(model, folder.name)
        names.append(name)
        target = source
        if "transcoder" in str(content.get("architecture")):
            out, target = _place(model, content, "hook_name_out", "hf_hook_name_out") or ("", None)
            names.append(out or "a transcoder without hook_name_out")
        if source is not None and target is not None:
            centred = source == target and _is_centred(model, content, source)
            found.append(Checkpoint(folder, source, target, name, tree.within(folder), without_mean=centred))
    if not found:
        raise no_known_place(tree.root, names, model)
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    config, arrays, header = _opened(checkpoint.path)
    first: tuple[Step, ...] = (Centre(),) if checkpoint.without_mean else ()
    settings = f"{config.model_dump_json(exclude={'hook_name', 'hook_name_out'})} {first}"
    kind = Kind(config.activation, config.places, settings)
    read = (partial(_encoder, config, arrays, first), partial(_decoder, config, arrays))
    return sae_file(checkpoint, header, arrays, kind, *read)


def _folders(tree: SaeTree) -> list[Path]:
    weights = {path.parent for path in tree.named(re.escape(WEIGHTS_FILE))}
    configs = tree.named(re.escape(CONFIG_FILE))
    return [path.parent for path in configs if path.parent in weights or "d_sae" in json_object(path)]


def _place(model: nn.Module, content: dict[str, Any], *keys: str) -> tuple[str, Hookpoint | None] | None:
    """The name of a place under the first of some keys, and its hookpoint by any of them; None without a name."""
    names = [str(content[key]) for key in keys if content.get(key)]
    found = (hookpoint_named(model, name) for name in names)
    return (names[0], next((place for place in found if place is not None), None)) if names else None


def _is_centred(model: nn.Module, content: dict[str, Any], place: Hookpoint) -> bool:
    """Whether the library took the mean out of what the blocks write, as it does with LayerNorms where it is told."""
    arguments = content.get("model_from_pretrained_kwargs")
    is_told = isinstance(arguments, dict) and bool(arguments.get("center_writing_weights"))
    return is_told and place.site in ("resid", "mlp", "attn") and not is_rms(model, place.block)


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration with its metadata beside the rest, under the names of version 6."""
    metadata = content.get("metadata")
    merged: dict[str, Any] = {**(metadata if isinstance(metadata, dict) else {}), **content}
    flat = {NAMES_BEFORE_6.get(name, name): value for name, value in merged.items() if value is not None}
    if _version(flat) >= 6:
        flat.pop("activation_fn", None)
        return flat
    arguments = flat.get("activation_fn_kwargs")
    k = arguments.get("k") if isinstance(arguments, dict) else None
    if flat.get("activation_fn") == TOPK:
        flat |= {"architecture": TOPK, "activation_fn": "relu"} | ({"k": k} if k is not None else {})
    if isinstance(flat.get("normalize_activations"), bool):
        flat["normalize_activations"] = "expected_average_only_in" if flat["normalize_activations"] else "none"
    return flat


def _version(flat: dict[str, Any]) -> int:
    match = re.match(r"\d{1,4}", str(flat.get("sae_lens_version") or ""))
    return int(match[0]) if match else 0


def _opened(folder: Path) -> tuple[SaeLensConfig, SaeArrays, Header]:
    """The configuration of a checkpoint, the names of its arrays and what the file holds, all checked."""
    path = folder / CONFIG_FILE
    content = read_table(path, f"a checkpoint of SAELens needs it beside {WEIGHTS_FILE}")
    config = validated_settings(path, SaeLensConfig, _flat(content))
    _require_supported(path, config)
    gated = config.activation == GATED
    turned = frozenset({"W_enc"})
    skip = "W_skip" if config.skips else None
    arrays = SaeArrays(folder / WEIGHTS_FILE, encoder_bias=None if gated else "b_enc", skip=skip, turned=turned)
    header = read_header(arrays.path)
    wanted = {"W_enc": (config.d_in, config.d_sae), "W_dec": (config.d_sae, config.d_out or config.d_in)}
    if gated:
        wanted |= dict.fromkeys(("b_gate", "b_mag", "r_mag"), (config.d_sae,))
    if config.activation == JUMPRELU:
        wanted |= {_threshold(header): (config.d_sae,)}
    header.require(wanted, CONFIG_FILE)
    for name in SCALING_FACTORS:
        if name in header.shapes and any(number != 1 for number in read_numbers(arrays.path, name)):
            raise CheckpointError(f"{arrays.path}: `{name}` of a finetuning is not all ones, which is not supported")
    return config, arrays, header


def _require_supported(path: Path, config: SaeLensConfig) -> None:
    """Refuse by name what is not read."""
    kind = config.architecture[:60]
    if kind in IN_TRAINING:
        raise CheckpointError(
            f"{path}: architecture `{kind}` is a checkpoint of a training; save it with save_inference_model of "
            "SAELens, as jumprelu"
        )
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{path}: architecture `{kind}` of SAELens is not supported; read are {known}")
    if config.activation_fn != "relu":
        raise CheckpointError(f"{path}: activation `{config.activation_fn[:60]}` is unknown; expected relu or topk")
    known = (*NOT_APPLIED, *NORMALISATIONS)
    if config.normalize_activations not in known:
        what = config.normalize_activations[:60]
        raise CheckpointError(f"{path}: normalize_activations `{what}` is unknown; expected {', '.join(known)}")
    if config.normalize_activations == NORMALISATIONS[2] and config.activation_normalization_factor is None:
        raise CheckpointError(f"{path}: no activation_normalization_factor, which constant_scalar_rescale needs")
    if config.activation == TOPK and (config.places is None or config.places != config.k):
        raise CheckpointError(f"{path}: a topk without a whole number k")
    if config.places is not None and config.places > config.d_sae:
        raise CheckpointError(f"{path}: k = {config.places} exceeds the {config.d_sae} latents")
    if config.transcodes and config.apply_b_dec_to_input:
        raise CheckpointError(f"{path}: apply_b_dec_to_input of a transcoder, whose b_dec is of its output")
    if config.hook_head_index is not None:
        raise CheckpointError(f"{path}: an SAE of the single head {config.hook_head_index}, which is not supported")


def _threshold(header: Header) -> str:
    """Name of the array of thresholds: their logarithms in a checkpoint of a training."""
    return "log_threshold" if "threshold" not in header.shapes and "log_threshold" in header.shapes else "threshold"


def _encoder(config: SaeLensConfig, arrays: SaeArrays, first: tuple[Step, ...]) -> Encoder:
    linear = arrays.linear(centred=config.centred)
    steps: tuple[Step, ...] = (*first, *config.before(), linear)
    if config.activation == TOPK and config.rescale_acts_by_decoder_norm:
        steps = (*steps, Scale(row_norms(arrays.decoder_rows())))
    return Encoder(config.d_in, steps, _activation(config, arrays.path))


def _activation(config: SaeLensConfig, path: Path) -> Activation:
    if config.activation == TOPK:
        assert config.places is not None
        return TopK(config.places)
    if config.activation == GATED:
        gate, magnitude, rescale = (read_array(path, name) for name in ("b_gate", "b_mag", "r_mag"))
        return Gated(gate, rescale.exp(), magnitude)
    if config.activation == JUMPRELU:
        name = _threshold(read_header(path))
        threshold = read_array(path, name)
        return Threshold.of(threshold.exp() if name != "threshold" else threshold)
    return Threshold.relu(config.d_sae)


def _decoder(config: SaeLensConfig, arrays: SaeArrays) -> Decoder:
    back = 1.0 if config.transcodes else 1 / config.factor
    if not (config.activation == TOPK and config.rescale_acts_by_decoder_norm):
        return arrays.decode(factor=back)
    return arrays.decode(_reciprocal(row_norms(arrays.decoder_rows())), back)


def _reciprocal(norms: Tensor) -> Tensor:
    return 1 / norms.clamp(min=torch.finfo(torch.float32).tiny)
