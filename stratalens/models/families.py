"""Where blocks, attention, MLP and norms stand in the decoder families of the Hugging Face library.

Module names are relative to the decoder, the model without its language-model head.
"""

import re
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.hookpoint import SITES, Hookpoint, Site

BLOCK_LISTS = ("layers", "h", "blocks", "decoder.layers", "language_model.layers", "encoder.layers", "encoder.layer")
"""Names of the list of blocks."""
FINAL_NORMS = ("norm", "final_layer_norm", "final_layernorm", "ln_f")
"""Names of the final norm of a decoder."""
ATTENTIONS = ("self_attn", "attn", "attention", "self_attention", "multi_head_attention", "linear_attn")
"""Names of the attention in a block; so are the next ones of its other modules."""
MLPS = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "mlp_block")
OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "attention.out_proj")
"""Names, within attention, of the projection that joins the heads."""
ATTENTION_NORMS = (
    *("input_layernorm", "ln_1", "self_attn_layer_norm", "norm_1", "attn_norm", "attention_layernorm"),
    *("operator_norm", "layernorm1"),
)
"""Names of the norm before attention."""
MLP_NORMS = (
    *("pre_feedforward_layernorm", "pre_mlp_layernorm", "pre_ff_layernorm", "ln_2", "norm_2", "mlp_norm"),
    *("feedforward_layernorm", "ffn_norm", "channel_pre_norm", "layernorm2", "final_layer_norm"),
)
"""Names of the norm before the MLP, besides `AMBIGUOUS_NORM`."""
ATTENTION_OUTPUT_NORMS = ("post_self_attn_layernorm", "post_norm1", "post_operator_norm")
"""Names of a norm of attention's output, besides `AMBIGUOUS_NORM`."""
MLP_OUTPUT_NORMS = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_norm2", "post_ffn_norm")
"""Names of a norm of the MLP's output."""
EPSILONS = ("eps", "variance_epsilon", "epsilon", "norm_eps")
"""Names of what a norm adds to the variance."""
FACTORS = ("residual_multiplier", "residual_scale")
"""Names of the factor by which a block multiplies what attention and MLP add to the residual stream."""
AMBIGUOUS_NORM = "post_attention_layernorm"
"""The norm of attention's output in a block that has another norm before the MLP, or one of the MLP's output and none
before it; else the norm before the MLP."""
ADDING_MODULES = {
    "BloomBlock": ("self_attention.dense", "mlp.dense_4h_to_h"),
    "MptBlock": ("attn.out_proj", "ffn.down_proj"),
}
"""Class of blocks whose attention and MLP add the residual stream themselves -> the modules of attention and MLP whose
outputs are the contributions."""
MODULE_NAME = re.compile(r"(?:(.+)\.)?(\d+)(?:\.(.+))?")
"""A module of a block: name of the list of blocks, number of the block, name in the block."""
OTHER_PARTS = re.compile(r".*(vision|visual|image|audio|video|speech|encoder|mtp|draft|embed).*")
"""Names of parts of a model beside its decoder."""
TEXT_MODEL = "language_model"
"""Name of what reads text in a model that reads images or sound too."""
NOT_FOR_TEXT = re.compile(r".*(vision|visual|image|audio|video|speech|pooler).*")
"""Names of parts that a model does without when it reads a text up to some block."""


class Tap(NamedTuple):
    """Where the vectors of a hookpoint are in a model."""

    module: str
    """Name of a module of the decoder."""
    side: Literal["in", "out"]
    """Whether they are its input or its output."""
    factor: float = 1.0
    """The vectors are the input or output times this."""
    without_gain: bool = False
    """Whether they are the module's input, normalised as the module, a norm, does it before it applies its gain."""


def decoder_of(model: nn.Module) -> nn.Module:
    """The decoder of a model that may have a language-model head."""
    return getattr(model, "base_model", model)


def blocks_name(model: nn.Module) -> str:
    """Name of the decoder's list of blocks.

    Raises:
        ModelError: it has none of a known name.
    """
    decoder = decoder_of(model)
    for name in BLOCK_LISTS:
        try:
            blocks = decoder.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            return name
    raise ModelError(
        f"{type(decoder).__name__} has no list of blocks of a known name ({', '.join(BLOCK_LISTS)}); "
        "this family of models is not supported"
    )


def is_for_text(model: nn.Module, name: str) -> bool:
    """Whether a module or tensor of the decoder, by its name, has to do with text up to the last block."""
    if blocks_name(model).startswith(f"{TEXT_MODEL}.") and not name.startswith(f"{TEXT_MODEL}."):
        return False
    return not any(NOT_FOR_TEXT.fullmatch(part) for part in name.split("."))


def number_of_blocks(model: nn.Module) -> int:
    """Number of the decoder's blocks."""
    blocks = decoder_of(model).get_submodule(blocks_name(model))
    assert isinstance(blocks, nn.ModuleList)
    return len(blocks)


def has_hookpoint(model: nn.Module, hookpoint: Hookpoint) -> bool:
    """Whether the decoder has a hookpoint."""
    return hookpoint.block < number_of_blocks(model) and _find(model, hookpoint) is not None


def locate(model: nn.Module, hookpoint: Hookpoint) -> Tap:
    """Find where the vectors of a hookpoint are.

    Raises:
        ModelError: the model has no such block, or the block no such site.
    """
    name = blocks_name(model)
    if hookpoint.block >= number_of_blocks(model):
        raise ModelError(f"the model has no module `{name}.{hookpoint.block}`; the SAEs were made for another model")
    tap = _find(model, hookpoint)
    if tap is None:
        there = [site for site in SITES if _find(model, Hookpoint(hookpoint.block, site))]
        raise ModelError(
            f"block {hookpoint.block} of {type(decoder_of(model)).__name__} has no known site {hookpoint.site_name}; "
            f"it has {', '.join(there)}"
        )
    return tap


def can_replace(model: nn.Module, hookpoint: Hookpoint) -> bool:
    """Whether the vectors of a hookpoint can be replaced: not those before the gain of a norm.

    Raises:
        ModelError: the model has no such block, or the block no such site.
    """
    return not locate(model, hookpoint).without_gain


def hookpoint_of(model: nn.Module, module: str, side: Literal["in", "out"]) -> Hookpoint | None:
    """The hookpoint whose vectors are the input or output of a module; None if there is none.

    Args:
        model: whose families of names decide; weights may be missing.
        module: name such as `layers.16.mlp`; names of modules around the decoder may stand before it
            (`model.layers.16.mlp`), and the path to the list of blocks may be cut short.
        side: whether the vectors are the module's input or its output.
    """
    match, blocks = MODULE_NAME.fullmatch(module), blocks_name(model)
    if match is None or not _names_blocks(model, (match[1] or "").split("."), blocks):
        return None
    number, part = int(match[2]), match[3]
    if part is None:
        return Hookpoint(number, "resid", side)
    like = min(number, number_of_blocks(model) - 1)  # a block that the model lacks is refused where it is asked for
    taps: dict[Site, Tap | None] = {site: _find(model, Hookpoint(like, site)) for site in SITES[1:]}
    wanted = Tap(f"{blocks}.{like}.{part}", side)
    return next((Hookpoint(number, site) for site, tap in taps.items() if tap == wanted), None)


def _names_blocks(model: nn.Module, path: list[str], blocks: str) -> bool:
    """Whether a path, which may begin further out or further in than the decoder, leads to its list of blocks."""
    own = blocks.split(".")
    if path[-1] != own[-1]:
        return False
    around = {part for part in path[:-1] if part not in own}
    if not around:
        return f".{blocks}".endswith("." + ".".join(path[-len(own) :]))
    outside = [name for name, _ in decoder_of(model).named_modules() if not f"{name}.".startswith(f"{blocks}.")]
    elsewhere = {part for name in outside for part in name.split(".") if part not in own} - {"model"}
    return not (around & elsewhere) and not any(OTHER_PARTS.fullmatch(part) for part in around)


def describe_blocks(model: nn.Module) -> str:
    """Names of the blocks, and of attention and MLP in the first of them."""
    name, last = blocks_name(model), number_of_blocks(model) - 1
    block = decoder_of(model).get_submodule(f"{name}.0")
    parts = [part for part in (_first(block, ATTENTIONS), _first(block, MLPS)) if part is not None]
    inside = f", and in each {' and '.join(parts)}" if parts else ""
    return f"{name}.0 to {name}.{last}{inside}"


def width_at(model: nn.Module, hookpoint: Hookpoint, d_model: int) -> int:
    """Width of the vectors at a hookpoint: of the input of a linear layer, else that of the residual stream.

    Args:
        model: its weights may be missing.
        hookpoint: one that the model has; else the width of the residual stream is returned.
        d_model: width of the residual stream.
    """
    if not has_hookpoint(model, hookpoint):
        return d_model
    tap = locate(model, hookpoint)
    module = decoder_of(model).get_submodule(tap.module)
    weight = getattr(module, "weight", None)
    if tap.side == "out" or not isinstance(weight, Tensor) or weight.ndim != 2:
        return d_model
    return weight.shape[1] if isinstance(module, nn.Linear) else weight.shape[0]


def without_gain(norm: nn.Module, x: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token d_model"]:
    """Normalise as a norm does it before its gain, in float32: by mean and variance, or by the mean square."""
    x = x.float()
    epsilon = next(float(getattr(norm, name)) for name in EPSILONS if hasattr(norm, name))
    if isinstance(norm, nn.LayerNorm) or "RMS" not in type(norm).__name__:
        x = x - x.mean(-1, keepdim=True)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def _find(model: nn.Module, hookpoint: Hookpoint) -> Tap | None:
    """Where the vectors of a hookpoint of an existing block are; None if the block has no such site of its own."""
    decoder, name = decoder_of(model), f"{blocks_name(model)}.{hookpoint.block}"
    if hookpoint.site == "resid":
        return Tap(name, hookpoint.side)
    block = decoder.get_submodule(name)
    tap = _in_block(block, hookpoint.site)
    return None if tap is None else tap._replace(module=f"{name}.{tap.module}")


def _in_block(block: nn.Module, site: Site) -> Tap | None:
    factor = next((float(getattr(block, name)) for name in FACTORS if hasattr(block, name)), 1.0)
    kind, _, place = site.partition("_")
    is_mlp = kind == "mlp"
    contribution = ADDING_MODULES.get(type(block).__name__)
    if contribution is not None and place in ("", "module"):
        return Tap(contribution[is_mlp], "out") if place == "" else None
    module = _first(block, MLPS if is_mlp else ATTENTIONS)
    if place == "norm_no_gain":
        norm = _mlp_norm(block) if is_mlp else _first(block, ATTENTION_NORMS)
        if norm is None or getattr(block.get_submodule(norm), "weight", None) is None:
            return None  # without a gain, its output is the same vectors
        return Tap(norm, "in", without_gain=True)
    if module is None:  # the two layers of the MLP may stand in the block itself
        tap = {"": Tap("fc2", "out", factor), "norm": Tap("fc1", "in")}.get(place)
        return tap if is_mlp and hasattr(block, "fc1") and hasattr(block, "fc2") else None
    if place == "heads":
        projection = _first(block.get_submodule(module), OUTPUT_PROJECTIONS)
        return None if projection is None else Tap(f"{module}.{projection}", "in")
    if place == "norm":
        return Tap(module, "in")
    norm = _output_norm(block, is_mlp)
    if place == "module":  # where nothing comes after the module, its output is the contribution and has that name
        return Tap(module, "out") if norm is not None or factor != 1 else None
    return Tap(norm or module, "out", factor)


def _output_norm(block: nn.Module, of_mlp: bool) -> str | None:
    if of_mlp:
        return _first(block, MLP_OUTPUT_NORMS)
    if hasattr(block, AMBIGUOUS_NORM) and _mlp_norm(block) != AMBIGUOUS_NORM:
        return AMBIGUOUS_NORM
    return _first(block, ATTENTION_OUTPUT_NORMS)


def _mlp_norm(block: nn.Module) -> str | None:
    if norm := _first(block, MLP_NORMS):
        return norm
    only_outputs = _first(block, MLP_OUTPUT_NORMS) and not _first(block, ATTENTION_NORMS)
    if hasattr(block, AMBIGUOUS_NORM):
        return None if only_outputs else AMBIGUOUS_NORM
    return _first(block, ATTENTION_NORMS)  # attention and MLP side by side read the same


def _first(module: nn.Module, names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            module.get_submodule(name)
        except AttributeError:
            continue
        return name
    return None
