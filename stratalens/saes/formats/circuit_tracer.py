"""circuit-tracer's transcoders of single layers: `config.yaml` beside `layer_N.safetensors`.

`W_enc` has the name that it has in SAELens, with exchanged axes: `[L, d]`. The length of b_enc tells.
"""

import re
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from stratalens.config.sae_activation import SaeActivation
from stratalens.errors import CheckpointError
from stratalens.models.hook_names import hookpoint_of_hook
from stratalens.saes.activations import Activation, Threshold, TopK
from stratalens.saes.arrays import Kind, SaeArrays, encoder_of, sae_file
from stratalens.saes.containers.header import Header
from stratalens.saes.sae import Checkpoint, Encoder, SaeFile
from stratalens.saes.settings import MAX_SIZE, no_known_place, read_table, validated_settings
from stratalens.saes.tree import SaeTree
from stratalens.saes.weights import read_array, read_header

CONFIG_FILE = "config.yaml"
TAKES_ACTIVATION: bool = True
FILE = re.compile(r"layer_(\d{1,6})\.safetensors")
CROSS_LAYER_FILE = r"W_(enc|dec)_\d{1,6}\.safetensors"
PER_LAYER = "transcoder_set"
THRESHOLD, LOG_THRESHOLDS = "activation_function.threshold", "log_thresholds"
ACTIVATIONS = ("relu", "jumprelu", "topk")


class CircuitTracerConfig(BaseModel):
    """`config.yaml`; unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    model_kind: str
    feature_input_hook: str
    feature_output_hook: str
    activation: str | None = None
    k: int | None = Field(None, gt=0, le=MAX_SIZE)
    transcoders: list[str] | None = None


def recognises(tree: SaeTree) -> bool:
    """See `Format`."""
    configs = {path.parent for path in tree.named(re.escape(CONFIG_FILE))}
    return any(path.parent in configs for path in tree.named(FILE.pattern)) or bool(tree.named(CROSS_LAYER_FILE))


def checkpoints(tree: SaeTree, model: nn.Module, told: SaeActivation | None) -> list[Checkpoint]:
    """See `Format`."""
    cross = tree.named(CROSS_LAYER_FILE)
    if cross:
        raise CheckpointError(f"{cross[0]}: a cross-layer transcoder of circuit-tracer, which is not supported")
    found, names = list[Checkpoint](), list[str]()
    for path in tree.named(FILE.pattern):
        match = FILE.fullmatch(path.name)
        assert match is not None
        config, block = _config(path), int(match[1])
        source = hookpoint_of_hook(model, f"blocks.{block}.{config.feature_input_hook}")
        target = hookpoint_of_hook(model, f"blocks.{block}.{config.feature_output_hook}")
        names += [config.feature_input_hook, config.feature_output_hook]
        if source is not None and target is not None:
            module = f"blocks.{block}.{config.feature_input_hook}"
            found.append(Checkpoint(path, source, target, module, tree.within(path), told=told))
    if not found:
        raise no_known_place(tree.root, names, model)
    return found


def describe(checkpoint: Checkpoint) -> SaeFile:
    """See `Format`."""
    path = checkpoint.path
    header = read_header(path)
    arrays = _arrays(header)
    num_latents = arrays.sizes(header).num_latents
    activation = _activation_of(path, header, checkpoint.told)
    if activation.k is not None and activation.k > num_latents:
        raise CheckpointError(f"{path}: k = {activation.k} exceeds the {num_latents} latents")
    if activation.kind == "jumprelu" and header.shapes[THRESHOLD] != ():  # one for all, or one of each
        header.require({THRESHOLD: (num_latents,)}, "the rest of the file")
    kind = Kind(activation.kind, activation.k, str(activation))
    return sae_file(checkpoint, header, arrays, kind, partial(_encoder, arrays, activation), arrays.decode)


def _config(path: Path) -> CircuitTracerConfig:
    """The configuration beside a file of weights."""
    place = path.with_name(CONFIG_FILE)
    content = read_table(place, f"transcoders of circuit-tracer need it beside {path.name}")
    config = validated_settings(place, CircuitTracerConfig, content)
    if config.model_kind != PER_LAYER:
        raise CheckpointError(
            f"{place}: model_kind `{config.model_kind[:60]}` of circuit-tracer is not supported; read is {PER_LAYER}"
        )
    if config.transcoders:
        raise CheckpointError(f"{place}: it names files that are elsewhere (transcoders); give their folder instead")
    return config


def _arrays(header: Header) -> SaeArrays:
    """Names of the arrays, and whether the axes of the encoder are exchanged.

    Raises:
        CheckpointError: there are as many latents as components, so that nothing tells.
    """
    (num_latents,) = header.shape("b_enc", axes=1)
    shape = header.shape("W_enc", axes=2)
    if shape == (num_latents, num_latents):
        raise CheckpointError(
            f"{header.path}: `W_enc` has shape {list(shape)}, so that nothing tells which axis is that of the latents"
        )
    turned = frozenset({"W_enc"}) if shape[1] == num_latents else frozenset[str]()
    return SaeArrays(header.path, skip="W_skip" if "W_skip" in header.shapes else None, turned=turned)


def _activation_of(path: Path, header: Header, told: SaeActivation | None) -> SaeActivation:
    """What the configuration, the tensors or the user say of the activation; ReLU where none does, as the library."""
    config = _config(path)
    if LOG_THRESHOLDS in header.shapes:
        raise CheckpointError(f"{path}: `{LOG_THRESHOLDS}` is not supported, nor by circuit-tracer itself")
    if config.activation is not None and config.activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise CheckpointError(f"{path}: activation `{config.activation[:60]}` is unknown; expected {known}")
    says = config.activation or ("jumprelu" if THRESHOLD in header.shapes else None)
    if told is not None and says is not None:
        raise CheckpointError(f"{path}: says itself that it is {says}; leave out --sae_activation")
    if (says == "jumprelu") != (THRESHOLD in header.shapes):
        raise CheckpointError(
            f"{path}: activation `{says or told}` does not fit its tensors: jumprelu has `{THRESHOLD}`"
        )
    if says == "topk":
        if config.k is None:
            raise CheckpointError(f"{path}: {CONFIG_FILE} says topk without k")
        return SaeActivation("topk", config.k)
    if told is not None and (told.kind not in ("topk", "relu") or told.centred):
        raise CheckpointError(f"{path}: --sae_activation {told} does not fit a transcoder without thresholds")
    return told or SaeActivation("jumprelu" if says == "jumprelu" else "relu")


def _encoder(arrays: SaeArrays, told: SaeActivation) -> Encoder:
    linear = arrays.linear()
    activation: Activation = Threshold.relu(len(linear.bias))
    if told.kind == "topk":
        assert told.k is not None
        activation = TopK(told.k)
    elif told.kind == "jumprelu":
        activation = Threshold.of(read_array(arrays.path, THRESHOLD).expand(len(linear.bias)).clone())
    return encoder_of((), linear, activation)
