"""What the hooks pass on, what a truncated model computes, and that no hook is left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tiny import TINY_BLOCKS, TINY_VOCABULARY
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_outputs import BaseModelOutput

from stratalens.errors import ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.families import number_of_blocks
from stratalens.models.hooks import Consumer, drop_blocks_above, forward, hooked
from stratalens.models.loading import Placement, choose_dtype, load_model

CPU = torch.device("cpu")
IDS = torch.randint(5, TINY_VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(3))


def tiny(source: Path, blocks: int | None = None) -> nn.Module:
    return load_model(source, blocks=blocks, placement=Placement(CPU, torch.float32))


def capture(model: nn.Module, ids: Tensor, *names: str) -> dict[str, Tensor]:
    """Name of a hookpoint -> its vectors in one forward pass."""
    taken: dict[str, Tensor] = {}
    with hooked(model, {Hookpoint.parse(name): lambda x, name=name: taken.update({name: x}) for name in names}):
        forward(model, ids)
    return taken


def hooks_left(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_hook_passes_on_block_output_which_is_the_next_hidden_state_and_not_that_of_its_own_index(tiny_model):
    taken = capture(tiny(tiny_model), IDS, *(f"{n}{side}" for n in range(TINY_BLOCKS) for side in ("", "_resid_in")))
    whole = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        hidden = whole(IDS, output_hidden_states=True).hidden_states
        assert len(hidden) == TINY_BLOCKS + 1
        for n in range(TINY_BLOCKS):
            block_input, block_output = taken[f"{n}_resid_in"], taken[str(n)]
            torch.testing.assert_close(block_input, hidden[n])
            assert not torch.allclose(block_output, hidden[n], atol=0.01)
            if n + 1 < TINY_BLOCKS:
                torch.testing.assert_close(block_output, hidden[n + 1])
        last = taken[str(TINY_BLOCKS - 1)]
        assert not torch.allclose(last, hidden[-1], atol=0.01), "the last entry has passed the final norm"
        torch.testing.assert_close(whole.model.norm(last), hidden[-1])


def test_hook_on_a_part_of_a_block_passes_on_that_parts_input_and_output(tiny_model):
    model = tiny(tiny_model)
    source, result = capture(model, IDS, "1_mlp_norm", "1_mlp").values()
    torch.testing.assert_close(model.get_submodule("layers.1.mlp")(source), result)


@pytest.mark.parametrize("blocks", range(1, TINY_BLOCKS))
def test_truncated_model_gives_the_same_block_outputs_as_the_whole_one(tiny_model, blocks):
    names = [str(n) for n in range(blocks)]
    whole, truncated = capture(tiny(tiny_model), IDS, *names), capture(tiny(tiny_model, blocks), IDS, *names)
    for name in names:
        assert torch.equal(whole[name], truncated[name])


def test_truncated_model_has_only_the_blocks_asked_for_in_the_precision_asked_for_and_no_gradient(tiny_model):
    model = load_model(tiny_model, blocks=2, placement=Placement(CPU, torch.bfloat16))
    assert {name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("layers.")} == {"0", "1"}
    assert not any(name.startswith("lm_head") for name, _ in model.named_parameters())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_more_blocks_than_the_model_has_are_refused_with_both_numbers(tiny_model):
    with pytest.raises(ModelError, match=rf"{TINY_BLOCKS} blocks; {TINY_BLOCKS + 1}"):
        tiny(tiny_model, TINY_BLOCKS + 1)


def test_hooks_are_gone_after_the_pass_and_after_a_consumer_that_raises(tiny_model):
    model = tiny(tiny_model)

    def fail(_vectors: Tensor) -> None:
        assert hooks_left(model) == 2
        raise RuntimeError("from the consumer")

    capture(model, IDS, "0")
    assert hooks_left(model) == 0
    consumers: dict[Hookpoint, Consumer] = {Hookpoint(0): lambda _x: None, Hookpoint(1): fail}
    with pytest.raises(RuntimeError, match="from the consumer"), hooked(model, consumers):
        forward(model, IDS)
    assert hooks_left(model) == 0


def test_unknown_module_is_named_and_leaves_no_hook(tiny_model):
    model = tiny(tiny_model)
    with pytest.raises(ModelError, match=r"layers\.9"):
        capture(model, IDS, "0", "9")
    assert hooks_left(model) == 0


def test_right_padding_without_a_mask_changes_nothing_at_real_positions(tiny_model):
    model, name = tiny(tiny_model), str(TINY_BLOCKS - 1)
    short, long = IDS[:1, :7], IDS[1:]
    padded = torch.cat([torch.cat([short, torch.zeros(1, 5, dtype=torch.long)], dim=1), long])
    together = capture(model, padded, name)[name]
    torch.testing.assert_close(together[0, :7], capture(model, short, name)[name][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together[1], capture(model, long, name)[name][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block", [0, 2])
def test_drop_blocks_above_removes_the_blocks_above_one_and_leaves_those_below_as_they_were(tiny_model, block):
    model, name = tiny(tiny_model), str(block)
    before = capture(model, IDS, name)[name]
    drop_blocks_above(model, block)
    assert number_of_blocks(model) == block + 1
    assert torch.equal(capture(model, IDS, name)[name], before)


def test_a_dtype_that_is_named_is_taken_as_it_is():
    assert choose_dtype("float32", CPU) is torch.float32
    assert choose_dtype("float16", CPU) is torch.float16
    assert choose_dtype("auto", CPU) in (torch.float32, torch.bfloat16)


class Rewrapped(nn.Module):
    """A real block that returns its vectors within something else, and takes what the one before returned."""

    def __init__(self, block: nn.Module, wrap: Callable[[Tensor], object]):
        super().__init__()
        self.block, self.wrap = block, wrap

    def forward(self, hidden_states: Any, **options: object) -> object:
        while not isinstance(hidden_states, Tensor):
            hidden_states = (list(hidden_states.values()) if isinstance(hidden_states, dict) else hidden_states)[0]
        return self.wrap(self.block(hidden_states, **options))


class Named(NamedTuple):
    """What a block may return."""

    vectors: Tensor
    weights: None = None


WRAPS: dict[str, Callable[[Tensor], object]] = {
    "list": lambda x: [x, None],
    "tuple": lambda x: (x,),
    "list of tuples": lambda x: [(x, None)],
    "named tuple": Named,
    "mapping": lambda x: {"vectors": x},
    "output of transformers": lambda x: BaseModelOutput(last_hidden_state=x),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("kind", WRAPS)
def test_blocks_may_return_vectors_within_something_else(tiny_model, kind):
    plain, wrapped = tiny(tiny_model), tiny(tiny_model)
    blocks: Any = wrapped.layers
    for number in range(TINY_BLOCKS):
        last = number == TINY_BLOCKS - 1
        blocks[number] = Rewrapped(blocks[number], (lambda x: x) if last else WRAPS[kind])
    places = ("0", "1", "1_resid_in")
    expected, found = capture(plain, IDS, *places), capture(wrapped, IDS, *places)
    assert all(torch.equal(expected[place], found[place]) for place in places)
    consumers: dict[Hookpoint, Consumer] = {Hookpoint(1): lambda x: x + 1, Hookpoint(2, "resid", "in"): lambda x: 2 * x}
    with hooked(plain, consumers), hooked(wrapped, consumers):
        replaced = [forward(model, IDS).last_hidden_state for model in (plain, wrapped)]
    assert torch.equal(*replaced)
    assert not torch.allclose(replaced[0], forward(plain, IDS).last_hidden_state)


def test_a_block_without_vectors_is_refused_by_its_name(tiny_model):
    model: Any = tiny(tiny_model)
    model.layers[1] = Rewrapped(model.layers[1], lambda _x: [])
    with pytest.raises(ModelError, match=r"`layers.1` has list, in which no vectors of tokens were found"):
        capture(model, IDS, "1")
