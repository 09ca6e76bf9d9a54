"""What encoders compute on cuda, computed on the CPU: products in two or three parts, and top-k by groups.

The products themselves are made in float32 here, of the bfloat16 numbers that cuda would get; no GPU takes part.
"""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stratalens.saes import cuda_steps
from stratalens.saes import sae as sae_module
from stratalens.saes.activations import Divided, GroupMax, TopK, largest
from stratalens.saes.cuda_steps import GROUP, GroupedTopK, SplitLinear, activation_on, step_on
from stratalens.saes.sae import MAX_DENSE_ELEMENTS, MAX_DENSE_ON_CUDA, Encoder, max_dense_elements
from stratalens.saes.steps import GluLinear, Linear, Scale

CPU = torch.device("cpu")
SHAPES = [(300, 64), (1000, 4096)]
BOUNDS = {torch.bfloat16: 2**-18, torch.float16: 3 * 2**-18, torch.float32: 3 * 2**-18}
"""Type of the vectors -> largest error, beside that of float32 sums, relative to the lengths of vector and weights."""


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def largest_error(found: Tensor, x: Tensor, step: Linear) -> float:
    """Relative to the lengths of vector and weights."""
    exact = x.double() @ step.weight.double().T + step.bias.double()
    lengths = x.double().norm(dim=1)[:, None] * step.weight.double().norm(dim=1)
    return float(((found.double() - exact).abs() / lengths).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_error_of_a_split_product_keeps_its_bound(shape, dtype):
    step = Linear.of(random(*shape), random(shape[0], seed=1))
    assert not step.bfloat16_weights
    split = SplitLinear.of(step, CPU)
    assert split.parts.shape == (2, *shape)
    x = (5 * random(40, shape[1], seed=2)).to(dtype)
    own = largest_error(split(x), x, step)
    assert own <= BOUNDS[dtype] + largest_error(step(x.float()), x, step)
    large = largest_error(replace(split, parts=split.parts[:1])(x), x, step)
    assert large > 100 * own, "the small part matters"


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_that_bfloat16_holds_need_one_part(shape):
    step = Linear.of(random(*shape).bfloat16().float(), random(shape[0], seed=1))
    split = SplitLinear.of(step, CPU)
    assert torch.equal(split.parts[0].float(), step.weight)
    assert len(split.parts) == 1
    for dtype in (torch.bfloat16, torch.float32):
        x = (5 * random(40, shape[1], seed=2)).to(dtype)
        bound = 0 if dtype == torch.bfloat16 else 2**-18
        assert largest_error(split(x), x, step) <= bound + 2 * largest_error(step(x.float()), x, step)


def test_a_split_step_of_some_latents_is_that_of_all_for_these():
    step = SplitLinear.of(Linear.of(random(300, 64), random(300, seed=1)), CPU)
    some = torch.tensor([7, 299, 0])
    torch.testing.assert_close(step.only(some)(random(5, 64)), step(random(5, 64))[:, some], rtol=1e-5, atol=1e-5)


def as_set(activation: TopK | GroupedTopK, pre: Tensor) -> set[tuple[int, int, float]]:
    latents = activation(pre)
    assert bool((latents.token.diff() >= 0).all())
    return set(zip(latents.token.tolist(), latents.latent.tolist(), latents.value.tolist(), strict=True))


WIDTHS = st.integers(0, GROUP - 1).map(lambda rest: 40 * GROUP + rest)


@given(st.integers(0, 2**20), WIDTHS, st.integers(1, 17), st.sampled_from([None, 1, 20]), st.floats(-3, 1))
def test_by_groups_the_same_latents_are_chosen(seed, width, k, steps, shift):
    """Rounded to `steps` an entry ties with many; with a low shift few are positive, or none."""
    pre = random(6, width, seed=seed) + shift
    if steps is not None:
        pre = (pre * steps).round() / steps
    assert as_set(GroupedTopK(k), pre) == as_set(TopK(k), pre)


@pytest.mark.parametrize("best", [[0, 1, 2, 3], [5000, 5001, 5119, 5120, 5150], [127, 128, 5151]])
def test_the_best_may_be_in_one_group_or_in_the_rest(best):
    pre = random(3, 40 * GROUP + 32).clamp(max=2.0)
    pre[:, best] = torch.arange(len(best)) + 3.0
    chosen = GroupedTopK(len(best))(pre)
    assert chosen.latent.view(3, -1).sort().values.tolist() == [best] * 3


def test_one_tie_for_the_last_place_leaves_that_token_alone_to_all_latents(monkeypatch):
    pre = random(5, 64 * GROUP)
    third = pre[2].topk(3).values[-1]
    pre[2, (pre[2] < third).nonzero()[17]] = third
    seen = []

    def counted(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
        seen.append(tuple(pre.shape))
        return largest(pre, k)

    monkeypatch.setattr(cuda_steps, "largest", counted)
    GroupedTopK(3)(pre)
    assert seen == [(1, 64 * GROUP)]


def test_narrow_encoders_are_left_to_topk():
    pre = random(4, 6 * GROUP)
    assert as_set(GroupedTopK(32), pre) == as_set(TopK(32), pre)


def test_numbers_that_are_not_finite_take_the_place_that_they_take_in_topk():
    pre = random(4, 40 * GROUP + 5)
    pre[0, 7], pre[1, 5122], pre[2, 300] = float("nan"), float("nan"), float("inf")
    assert as_set(GroupedTopK(8), pre) == as_set(TopK(8), pre)


def test_the_cpu_keeps_its_own_steps():
    step, topk = Linear.of(random(300, 64), random(300, seed=1)), TopK(8)
    encoder = Encoder(64, (step,), topk).on(CPU)
    assert isinstance(encoder.steps[0], Linear)
    assert isinstance(encoder.activation, TopK)
    assert encoder.steps[0].weight is step.weight
    assert step_on(step, CPU) is activation_on(topk, CPU) is None
    cuda = torch.device("cuda")
    assert isinstance(activation_on(topk, cuda), GroupedTopK)
    assert activation_on(GroupMax(8), cuda) is None
    assert max_dense_elements(CPU) == max_dense_elements(torch.device("mps")) == MAX_DENSE_ELEMENTS == 64_000_000
    assert max_dense_elements(cuda) == MAX_DENSE_ON_CUDA == 512_000_000


def test_an_encoder_of_split_steps_picks_what_the_plain_one_picks():
    step = Linear.of(random(40 * GROUP, 64), random(40 * GROUP, seed=1))
    plain = Encoder(64, (step,), TopK(16))
    split = Encoder(64, (SplitLinear.of(step, CPU),), GroupedTopK(16))
    assert split.num_latents == plain.num_latents
    x = random(30, 64, seed=3)
    found = [
        torch.zeros(30, 40 * GROUP).index_put_((own.token, own.latent), own.value)
        for own in map(lambda encoder: encoder.encode(x), (plain, split))
    ]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_parts_within_parts_take_the_form_of_the_device(monkeypatch):
    """As on cuda, where both products of a gate are split, and a top-k inside another activation goes by groups."""
    linear, gate = (Linear.of(random(6000, 64, seed=n), random(6000, seed=n + 2)) for n in (0, 1))
    factor = random(6000, seed=5).exp()
    whole = Encoder(64, (GluLinear(linear, gate), Scale(factor)), Divided(TopK(8), factor))
    x = random(20, 64, seed=6)
    split = lambda part, device: SplitLinear.of(part, device) if isinstance(part, Linear) else None  # noqa: E731
    monkeypatch.setattr(sae_module, "step_on", split)
    grouped = lambda part, _device: GroupedTopK(part.k) if isinstance(part, TopK) else None  # noqa: E731
    monkeypatch.setattr(sae_module, "activation_on", grouped)
    moved = whole.on(CPU)
    product, activation = moved.steps[0], moved.activation
    assert isinstance(product, GluLinear)
    assert isinstance(product.linear, SplitLinear)
    assert isinstance(product.gate, SplitLinear)
    assert isinstance(activation, Divided)
    assert isinstance(activation.inner, GroupedTopK)
    assert moved.num_latents == 6000
    expected, found = whole.encode(x), moved.encode(x)
    assert len(found.value) == len(expected.value)
    torch.testing.assert_close(found.value.sort().values, expected.value.sort().values, rtol=1e-3, atol=1e-4)
