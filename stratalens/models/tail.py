"""Run a model from the input of one of its blocks on: what comes before is known already.

The blocks below pass their input on, and the known vectors take its place at the first block that runs. So embeddings,
positions and masks are still made by the model's own code, whatever its family does with them.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stratalens.hookpoint import Hookpoint
from stratalens.models.families import blocks_name, decoder_of
from stratalens.models.hooks import Consumer, forward, hooked


class _AllSeen(Exception):  # noqa: N818 - it ends a forward pass as soon as everything wanted was seen
    pass


def vectors_at(
    model: nn.Module, input_ids: Int[Tensor, "batch seq"], hookpoints: Collection[Hookpoint]
) -> dict[Hookpoint, Float[Tensor, "batch seq width"]]:
    """Copy the vectors at some hookpoints; the model runs no further than it must.

    Args:
        model: with or without a head.
        input_ids: right-padded token ids.
        hookpoints: where.

    Raises:
        ModelError: the model has no such hookpoint.
    """
    seen: dict[Hookpoint, Tensor] = {}

    def keep(hookpoint: Hookpoint) -> Consumer:
        def consume(vectors: Tensor) -> None:
            seen[hookpoint] = vectors.clone()
            if len(seen) == len(set(hookpoints)):
                raise _AllSeen

        return consume

    try:
        with hooked(model, {hookpoint: keep(hookpoint) for hookpoint in hookpoints}):
            forward(decoder_of(model), input_ids)
    except _AllSeen:
        pass
    return seen


@dataclass(frozen=True)
class Tail:
    """A model from one block on, with its head."""

    model: nn.Module
    block: int
    """The first block that runs."""
    skips: bool
    """Whether the blocks below need not run; in a model whose blocks hand on more than one stream they must."""
    as_tuple: bool = False
    """Whether its blocks return a tuple."""

    @classmethod
    def of(cls, model: nn.Module, block: int, input_ids: Int[Tensor, "batch seq"]) -> "Tail":
        """Find out on some text whether the blocks below a block can be left out: the logits must stay the same."""
        start = vectors_at(model, input_ids, [block_input(block)])[block_input(block)]
        if block == 0:
            return cls(model, block, skips=False)
        returned: list[bool] = []
        hook = lambda _module, _x, output: returned.append(isinstance(output, tuple))  # noqa: E731
        handle = _blocks(model)[0].register_forward_hook(hook)
        try:
            whole = forward(model, input_ids).logits
        finally:
            handle.remove()
        tail = cls(model, block, skips=True, as_tuple=all(returned))
        try:
            same = torch.equal(whole, tail.logits(input_ids, start, {}))
        except Exception:  # whatever a family's code does with blocks that return nothing but their input
            same = False
        return tail if same else cls(model, block, skips=False)

    def logits(
        self,
        input_ids: Int[Tensor, "batch seq"],
        start: Float[Tensor, "batch seq d_model"],
        consumers: Mapping[Hookpoint, Consumer],
    ) -> Float[Tensor, "batch seq vocabulary"]:
        """Run the model.

        Args:
            input_ids: right-padded token ids.
            start: input of the first block that runs.
            consumers: hookpoint of that block or a later one -> function of its vectors.
        """
        with ExitStack() as stack:
            if self.skips:
                stack.enter_context(_passing_on(self.model, self.block, self.as_tuple))
                stack.enter_context(hooked(self.model, {block_input(self.block): lambda _: start}))
            stack.enter_context(hooked(self.model, consumers))
            return forward(self.model, input_ids).logits

    @property
    def share(self) -> float:
        """Share of the model's blocks that run."""
        number = len(_blocks(self.model))
        return (number - self.block) / number if self.skips else 1.0


def block_input(block: int) -> Hookpoint:
    """The hookpoint of a block's input."""
    return Hookpoint(block, "resid", "in")


def _blocks(model: nn.Module) -> Any:
    return decoder_of(model).get_submodule(blocks_name(model))


@contextmanager
def _passing_on(model: nn.Module, block: int, as_tuple: bool) -> Iterator[None]:
    """While open, the blocks below one return their input."""
    skipped = list(_blocks(model))[:block]
    kept = [vars(module).get("forward") for module in skipped]
    try:
        for module in skipped:
            module.forward = _first_argument(as_tuple)
        yield
    finally:
        for module, before in zip(skipped, kept, strict=True):
            del module.forward
            if before is not None:
                module.forward = before


def _first_argument(as_tuple: bool) -> Callable[..., object]:
    def passed(*arguments: Any, **options: Any) -> object:
        hidden = arguments[0] if arguments else options["hidden_states"]
        return (hidden,) if as_tuple else hidden

    return passed
