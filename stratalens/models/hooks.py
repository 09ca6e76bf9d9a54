"""Hooks that pass on the vectors at hookpoints during a forward pass, and may replace them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import Tap, blocks_name, decoder_of, locate, without_gain

Consumer = Callable[[Float[Tensor, "batch seq d_model"]], Float[Tensor, "batch seq d_model"] | None]
"""A function that receives the vectors at a hookpoint; what it returns takes their place, None leaves them."""


@contextmanager
def hooked(model: nn.Module, consumers: Mapping[Hookpoint, Consumer]) -> Iterator[None]:
    """While open, pass the vectors at each hookpoint to its consumer in every forward pass.

    Args:
        model: a decoder, with or without a language-model head.
        consumers: hookpoint -> function of its vectors, `[batch, seq, d_model]`.

    Raises:
        ModelError: the model has no such hookpoint, or a consumer replaces vectors before a norm's gain.
    """
    handles: list[RemovableHandle] = []
    try:
        for hookpoint, consumer in consumers.items():
            tap = locate(model, hookpoint)
            handles.append(_attach(decoder_of(model).get_submodule(tap.module), tap, consumer))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attach(module: nn.Module, tap: Tap, consumer: Consumer) -> RemovableHandle:
    def replaced(x: Tensor) -> Tensor | None:
        """What takes the place of a module's input or output; None if it stays."""
        if x.ndim != 3:
            raise ModelError(f"`{tap.module}` has vectors of shape {list(x.shape)}, not passage x position x component")
        if tap.without_gain:
            if consumer(without_gain(module, x)) is not None:
                raise ModelError("vectors before the gain of a norm cannot be replaced; replace those after it")
            return None
        vectors = x if tap.factor == 1 else x * tap.factor
        new = consumer(vectors)
        if new is None or tap.factor == 1:
            return new
        return x + (new - vectors) / tap.factor  # and not new / factor, which may change bits that nobody changed

    def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if args and isinstance(args[0], Tensor | tuple | list | Mapping):
            new = _with_first_tensor(args[0], tap, replaced)
            return None if new is None else ((new, *args[1:]), kwargs)
        names = ("hidden_states", *kwargs)
        name = next((name for name in names if isinstance(kwargs.get(name), Tensor) and kwargs[name].ndim == 3), None)
        if name is None:
            raise ModelError(f"`{tap.module}` is not given vectors of passage x position x component")
        new = replaced(kwargs[name])
        return None if new is None else (args, kwargs | {name: new})

    def after(_module: nn.Module, _args: object, output: Any) -> object:
        return _with_first_tensor(output, tap, replaced)

    if tap.side == "in":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)


def _with_first_tensor(value: Any, tap: Tap, replaced: Callable[[Tensor], Tensor | None]) -> object:
    """Pass on the first tensor of a module's input or output, which may be a list, a tuple or a mapping.

    Returns:
        the input or output with another tensor in its place; None if it stays.
    """
    if isinstance(value, Tensor):
        return replaced(value)
    if isinstance(value, Mapping) and value:
        name, first = next(iter(value.items()))
        new = _with_first_tensor(first, tap, replaced)
        return None if new is None else _copy_with(value, name, new)
    if isinstance(value, tuple | list) and value:
        new = _with_first_tensor(value[0], tap, replaced)
        if new is None:
            return None
        kind: Any = type(value)
        return kind(new, *value[1:]) if hasattr(value, "_fields") else kind((new, *value[1:]))
    raise ModelError(f"`{tap.module}` has {type(value).__name__}, in which no vectors of tokens were found")


def _copy_with(mapping: Mapping[str, Any], name: str, value: object) -> Mapping[str, Any]:
    """A copy of a mapping, such as an output of transformers, with another value."""
    changed: Any = copy(mapping)
    changed[name] = value
    return changed


def drop_blocks_above(model: nn.Module, block: int) -> None:
    """Remove, in place, the blocks above a block."""
    path, _, name = blocks_name(model).rpartition(".")
    parent = decoder_of(model).get_submodule(path)
    setattr(parent, name, getattr(parent, name)[: block + 1])


@torch.inference_mode()
def forward(model: nn.Module, input_ids: Int[Tensor, "batch seq"]) -> Any:
    """Run one bare forward pass: no cache, no attention mask (right padding under causal attention).

    Returns:
        what the model returns: with a language-model head, `logits` among it.
    """
    return differentiable_forward(model, input_ids)


def differentiable_forward(model: nn.Module, input_ids: Int[Tensor, "batch seq"]) -> Any:
    """Run the same forward pass in the caller's mode: where gradients are enabled, they flow to what hooks put in."""
    return model(input_ids=input_ids.to(next(model.parameters()).device), use_cache=False)
