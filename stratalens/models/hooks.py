"""Hooks that pass on the input and output of modules during a forward pass."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.errors import ModelError
from stratalens.models.families import BlockModule

Consumer = Callable[[Float[Tensor, "batch seq d_model"], Float[Tensor, "batch seq d_model"]], None]
"""A function that receives a module's input and output during the forward pass."""


@contextmanager
def hooked(model: nn.Module, consumers: Mapping[str, Consumer]) -> Iterator[None]:
    """While open, pass the input and output of each named module to its consumer in every forward pass.

    Args:
        model: the decoder; hookpoints are module names relative to it, such as `layers.16`.
        consumers: hookpoint -> function of the module's input and output, both `[batch, seq, d_model]`.

    Raises:
        ModelError: the model has no module of that name.
    """
    handles = []

    def hook(consumer: Consumer):
        def on_forward(_module, args, kwargs, output):
            source = args[0] if args else kwargs["hidden_states"]
            consumer(source, output[0] if isinstance(output, tuple) else output)

        return on_forward

    try:
        for hookpoint, consumer in consumers.items():
            try:
                module = model.get_submodule(hookpoint)
            except AttributeError:
                raise ModelError(
                    f"the model has no module `{hookpoint}`; the SAEs were made for another model"
                ) from None
            handles.append(module.register_forward_hook(hook(consumer), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def drop_blocks_above(model: nn.Module, hookpoint: str) -> None:
    """Remove, in place, the blocks above the one that contains a hookpoint such as `layers.16.mlp`."""
    module = BlockModule.parse(hookpoint)
    assert module is not None, hookpoint
    setattr(model, module.blocks, getattr(model, module.blocks)[: module.number + 1])


@torch.inference_mode()
def forward(model: nn.Module, input_ids: Int[Tensor, "batch seq"]) -> None:
    """Run one bare forward pass: no head, no cache, no attention mask (right padding under causal attention)."""
    model(input_ids=input_ids.to(next(model.parameters()).device), use_cache=False)
