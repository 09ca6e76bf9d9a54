"""Names of hooks in TransformerLens, which many libraries of SAEs write: what they are in a Hugging Face model."""

import re

from torch import nn

from stratalens.hookpoint import Hookpoint, Side, Site
from stratalens.models.families import MODULE_NAME, decoder_of, has_hookpoint, hookpoint_of, locate

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


BRIDGED: dict[str, tuple[Site, Site]] = {"mlp.hook_in": ("mlp_norm", "mlp_norm"), "mlp.hook_out": ("mlp_module", "mlp")}
"""Name of a hook of a module itself -> its site, and what that is in a block without a norm of the module's output."""

NORMS: dict[Site, Site] = {"mlp_norm": "mlp_norm_no_gain", "attn_norm": "attn_norm_no_gain"}
"""What a norm gives out -> what it is before the gain."""


def hookpoint_of_hook(model: nn.Module, name: str) -> Hookpoint | None:
    """The hookpoint whose vectors a hook of TransformerLens has; None if there is none.

    `hook_normalized` is after the gain in a LayerNorm, and before it in an RMSNorm: so TransformerLens computes them.

    Args:
        model: tells the kind of norm; its weights may be missing.
        name: such as `blocks.5.hook_resid_post`.
    """
    match = HOOK_NAME.fullmatch(name)
    if match is None:
        return None
    block = int(match[1])
    if match[2] in BRIDGED:
        own, plain = (Hookpoint(block, site) for site in BRIDGED[match[2]])
        return own if has_hookpoint(model, own) else plain
    if match[2] not in HOOKS:
        return None
    site, side = HOOKS[match[2]]
    if site in NORMS:
        before = Hookpoint(block, NORMS[site])
        if has_hookpoint(model, before) and is_rms(model, block):
            return before
    return Hookpoint(block, site, side)


def hookpoint_named(model: nn.Module, name: str) -> Hookpoint | None:
    """The hookpoint of a name: a hook of TransformerLens, a module, of which it is the output, or one with its side."""
    return hookpoint_of_hook(model, name) or hookpoint_of(model, name, "out") or hookpoint_of_side(model, name)


def hookpoint_of_side(model: nn.Module, name: str) -> Hookpoint | None:
    """The hookpoint of a module's name with its side, such as `model.layers.9.self_attn.o_proj.input`.

    What a norm gives out is what the module after it reads.
    """
    module, _, side = name.rpartition(".")
    if side not in ("input", "output"):
        return None
    found = hookpoint_of(model, module, "in" if side == "input" else "out")
    match = MODULE_NAME.fullmatch(module)
    if found is not None or match is None or side == "input":
        return found
    block = hookpoint_of(model, module.removesuffix(f".{match[3]}"), "out")
    for site, before in (NORMS if block is not None else {}).items():
        norm = Hookpoint(int(match[2]), before)
        if has_hookpoint(model, norm) and locate(model, norm).module.endswith(f".{match[2]}.{match[3]}"):
            return Hookpoint(norm.block, site)
    return None


def is_rms(model: nn.Module, block: int) -> bool:
    """Whether the norms of a block are RMSNorms; False where they are LayerNorms."""
    for site in NORMS.values():
        if has_hookpoint(model, before := Hookpoint(block, site)):
            norm = decoder_of(model).get_submodule(locate(model, before).module)
            return not isinstance(norm, nn.LayerNorm) and "RMS" in type(norm).__name__
    return True
