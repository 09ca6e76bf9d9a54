"""Running a model from one block on gives the logits of the whole model, whatever its blocks are given."""

import pytest
import torch
from every_family import tiny_config
from torch import nn
from transformers import AutoModelForCausalLM

from stratalens.hookpoint import Hookpoint
from stratalens.models.families import blocks_name, can_replace, decoder_of
from stratalens.models.hooks import forward, hooked
from stratalens.models.tail import Tail, block_input, vectors_at

FAMILIES = ("llama", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "opt", "bloom", "falcon", "mixtral", "mamba")
IDS = torch.randint(5, 90, (3, 12), generator=torch.Generator().manual_seed(1))
BLOCK = 3


def tiny(family: str) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(family)).eval().requires_grad_(False)


def counted(model: nn.Module) -> list[int]:
    """Numbers of the blocks that run from now on."""
    ran: list[int] = []
    blocks = decoder_of(model).get_submodule(blocks_name(model))
    for number, block in enumerate(blocks.children()):
        original = type(block).forward

        def note(*arguments, number=number, block=block, original=original, **options):
            ran.append(number)
            return original(block, *arguments, **options)

        block.forward = note
    return ran


@pytest.mark.parametrize("family", FAMILIES)
def test_the_logits_are_those_of_the_whole_model_and_the_first_blocks_do_not_run(family):
    model = tiny(family)
    start = vectors_at(model, IDS, [block_input(BLOCK)])[block_input(BLOCK)]
    tail = Tail.of(model, BLOCK, IDS)
    assert tail.skips
    ran = counted(model)
    assert torch.equal(tail.logits(IDS, start, {}), forward(model, IDS).logits)
    assert min(ran[: len(ran) // 2 - 1]) == BLOCK


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_what_is_replaced_after_the_first_block_acts_as_in_the_whole_model(family):
    model = tiny(family)
    start = vectors_at(model, IDS, [block_input(BLOCK)])[block_input(BLOCK)]
    place = Hookpoint(BLOCK)

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    with hooked(model, {place: double}):
        expected = forward(model, IDS).logits
    found = Tail.of(model, BLOCK, IDS).logits(IDS, start, {place: double})
    assert torch.equal(found, expected)
    assert not torch.allclose(expected, forward(model, IDS).logits)


def test_passages_may_be_repeated_in_another_order():
    model = tiny("llama")
    start = vectors_at(model, IDS, [block_input(BLOCK)])[block_input(BLOCK)]
    rows = [2, 0, 0, 1]
    found = Tail.of(model, BLOCK, IDS).logits(IDS[rows], start[rows], {})
    assert torch.allclose(found, forward(model, IDS).logits[rows], atol=1e-5)


def test_a_model_whose_blocks_hand_on_more_than_the_residual_stream_runs_whole():
    model = tiny("llama")
    first, last = (decoder_of(model).get_submodule(f"layers.{number}") for number in (0, 5))
    kept: list[torch.Tensor] = []
    first.register_forward_hook(lambda _module, _args, output: kept.append(output))

    def add(_module: nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        return output + kept[-1]

    last.register_forward_hook(add)
    tail = Tail.of(model, BLOCK, IDS)
    assert not tail.skips
    assert tail.share == 1
    start = vectors_at(model, IDS, [block_input(BLOCK)])[block_input(BLOCK)]
    assert torch.equal(tail.logits(IDS, start, {}), forward(model, IDS).logits)


def test_reading_stops_where_everything_was_seen():
    model = tiny("llama")
    ran = counted(model)
    seen = vectors_at(model, IDS, [block_input(2), Hookpoint(1)])
    assert torch.equal(seen[block_input(2)], seen[Hookpoint(1)])
    assert max(ran) <= 2


def test_vectors_before_the_gain_of_a_norm_cannot_be_replaced():
    model = tiny("llama")
    assert can_replace(model, Hookpoint.parse("2_mlp_norm"))
    assert not can_replace(model, Hookpoint.parse("2_mlp_norm_no_gain"))
