"""Names of hooks in TransformerLens, which many libraries of SAEs write: what they are in a Hugging Face model."""

import re

from torch import nn

from stratalens.hookpoint import Hookpoint, Side, Site
from stratalens.models.families import decoder_of, has_hookpoint, hookpoint_of, locate

HOOK_NAME = re.compile(r"blocks\.(\d{1,6})\.(.+)")
HOOKS: dict[str, tuple[Site, Side]] = {
    "hook_resid_post": ("resid", "out"),
    "hook_resid_pre": ("resid", "in"),
    "hook_mlp_out": ("mlp", "out"),
    "hook_attn_out": ("attn", "out"),
    "attn.hook_z": ("attn_heads", "out"),
    "ln1.hook_normalized": ("attn_norm", "out"),
    "ln2.hook_normalized": ("mlp_norm", "out"),
}
"""Name of a hook in a block -> site and side. After a norm of their output, `hook_mlp_out` and `hook_attn_out` are what
comes out of that, so they are the contributions in every family."""


def hookpoint_of_hook(model: nn.Module, name: str) -> Hookpoint | None:
    """The hookpoint whose vectors a hook of TransformerLens has; None if there is none.

    `hook_normalized` is after the gain in a LayerNorm, and before it in an RMSNorm: so TransformerLens computes them.

    Args:
        model: tells the kind of norm; its weights may be missing.
        name: such as `blocks.5.hook_resid_post`.
    """
    match = HOOK_NAME.fullmatch(name)
    if match is None or match[2] not in HOOKS:
        return None
    site, side = HOOKS[match[2]]
    block = int(match[1])
    if site in ("attn_norm", "mlp_norm"):
        before = Hookpoint(block, "mlp_norm_no_gain" if site == "mlp_norm" else "attn_norm_no_gain")
        if has_hookpoint(model, before) and _is_rms(model, before):
            return before
    return Hookpoint(block, site, side)


def hookpoint_named(model: nn.Module, name: str) -> Hookpoint | None:
    """The hookpoint of a name in either way: a hook of TransformerLens, or a module, of which it is the output."""
    return hookpoint_of_hook(model, name) or hookpoint_of(model, name, "out")


def _is_rms(model: nn.Module, before_gain: Hookpoint) -> bool:
    norm = decoder_of(model).get_submodule(locate(model, before_gain).module)
    return not isinstance(norm, nn.LayerNorm) and "RMS" in type(norm).__name__
