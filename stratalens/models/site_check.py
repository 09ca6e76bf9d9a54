"""Check, on a loaded model, that the sites of its blocks are what their names say."""

from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint, Site
from stratalens.models.families import decoder_of, has_hookpoint, locate
from stratalens.models.hooks import forward, hooked

TOKENS = 8
"""Positions of the one passage that is read."""
MAX_ROUNDING = 4.0
"""Differences above this many roundings of the numbers involved are not due to rounding."""


def require_true_sites(model: nn.Module, hookpoints: Iterable[Hookpoint]) -> None:
    """Check each hookpoint in a block: contributions add up to what the block adds, and a norm feeds its module.

    Raises:
        ModelError: one is something else in this family of models.
    """
    for hookpoint in hookpoints:
        if hookpoint.site in ("attn", "mlp"):
            _require_sum(model, hookpoint)
        elif hookpoint.site.endswith("_no_gain"):
            _require_norm_before(model, hookpoint)


def true_sites(model: nn.Module, hookpoints: Iterable[Hookpoint]) -> set[Hookpoint]:
    """Those hookpoints whose vectors can be read and are what their names say."""
    true = set[Hookpoint]()
    for hookpoint in hookpoints:
        with suppress(ModelError):
            require_true_sites(model, [hookpoint])
            _read(model, [hookpoint])
            true.add(hookpoint)
    return true


def _require_sum(model: nn.Module, hookpoint: Hookpoint) -> None:
    block = hookpoint.block
    parts = [Hookpoint(block, "resid", "in"), Hookpoint(block, "attn"), Hookpoint(block, "mlp")]
    parts = [part for part in parts if has_hookpoint(model, part)]
    out, *inputs = _read(model, [Hookpoint(block), *parts])
    if len(parts) < 3 or not _equal(out, inputs):
        raise _untrue(model, hookpoint, "attention and MLP do not add up to what the block adds")


def _require_norm_before(model: nn.Module, hookpoint: Hookpoint) -> None:
    reads: Site = "attn_norm" if hookpoint.site.startswith("attn") else "mlp_norm"
    norm = decoder_of(model).get_submodule(locate(model, hookpoint).module)
    outputs: list[Tensor] = []
    handle = norm.register_forward_hook(lambda _module, _args, output: outputs.append(output.clone()))
    try:
        (read,) = _read(model, [Hookpoint(hookpoint.block, reads)])
    finally:
        handle.remove()
    if not outputs or outputs[0].shape != read.shape or not torch.equal(outputs[0], read):
        raise _untrue(model, hookpoint, "the norm of that name does not feed the module")


def _read(model: nn.Module, hookpoints: list[Hookpoint]) -> list[Tensor]:
    read: dict[Hookpoint, Tensor] = {}

    def keep(hookpoint: Hookpoint):
        def consumer(vectors: Tensor) -> None:
            read[hookpoint] = vectors.clone()

        return consumer

    with hooked(model, {hookpoint: keep(hookpoint) for hookpoint in hookpoints}):
        forward(model, torch.arange(1, TOKENS + 1)[None])
    return [read[hookpoint] for hookpoint in hookpoints]


def _equal(total: Tensor, parts: list[Tensor]) -> bool:
    """Whether parts add up to a total, but for rounding in its type."""
    exact = torch.stack([part.to(total.device).double() for part in parts])
    allowed = MAX_ROUNDING * torch.finfo(total.dtype).eps * exact.abs().sum(0)
    return bool(((total.double() - exact.sum(0)).abs() <= allowed).all())


def _untrue(model: nn.Module, hookpoint: Hookpoint, reason: str) -> ModelError:
    return ModelError(
        f"site {hookpoint.site_name} of {type(decoder_of(model)).__name__} is not known ({reason} in block "
        f"{hookpoint.block}); choose another with --sites"
    )
