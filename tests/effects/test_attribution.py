"""Attribution equals finite differences and another path of autograd; integrated gradients leave nothing over."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_saes import KINDS, MLP, OTHER_RESID, RESID, losses, losses_with_latents, random_probe, read
from threads import one_thread
from tiny import TINY_LATENTS, TINY_VOCABULARY, TINY_WIDTH
from torch import Tensor, nn

from stratalens.effects import attribution
from stratalens.effects.attribution import AttributionReader, CountedBatch
from stratalens.effects.attributions import Attributions
from stratalens.errors import CapacityError, ModelError
from stratalens.models.batches import BatchRunner, pack_batches
from stratalens.models.loading import Placement, load_model
from stratalens.models.streams import Division, Streams
from stratalens.saes.probe import Probe

LENGTHS = (17, 12, 12, 9, 5, 3)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def load(directory, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The tiny model with other gains before the MLP that a transcoder reads: their norms would all be the same."""
    model = load_model(directory, blocks=None, head=True, placement=Placement(torch.device("cpu"), dtype))
    gains = model.get_parameter("model.layers.1.post_attention_layernorm.weight")
    gains.copy_(torch.rand(TINY_WIDTH, generator=torch.Generator().manual_seed(1)) + 0.5)
    return model


@pytest.fixture
def model(tiny_model) -> nn.Module:
    return load(tiny_model)


@pytest.fixture
def exact(tiny_model) -> nn.Module:
    """The same in double precision, in which a loss shows small differences."""
    return load(tiny_model).double()


def packed(batch_tokens: int = 1000) -> list[CountedBatch]:
    """Random passages in batches, with some of their tokens counted."""
    generator = np.random.default_rng(5)
    sequences = [generator.integers(5, TINY_VOCABULARY, length) for length in LENGTHS]
    masks = [generator.random(length) < 0.7 for length in LENGTHS]
    batches = []
    for batch in pack_batches(sequences, batch_tokens, [7]):
        counted = torch.zeros(batch.input_ids.shape, dtype=torch.bool)
        for place, row in enumerate(batch.rows):
            counted[place, 1 : LENGTHS[row]] = torch.from_numpy(masks[row][1:])
        batches.append(CountedBatch(batch, counted))
    return batches


def with_sinks(model: nn.Module, probe: Probe) -> Probe:
    """The probe, with a limit that leaves out the longest of the vectors that it reads."""
    ((batch, _),) = packed()
    norms = read(model, probe, batch)[0].norm(dim=-1)[batch.countable]
    limit = float(norms.quantile(0.8))
    assert (norms > limit).any()
    return replace(probe, norm_limit=limit)


def found(
    model: nn.Module,
    probes: Sequence[Probe],
    batches: Sequence[CountedBatch] | None = None,
    *,
    ig_steps: int | None = None,
    streams: int = 1,
) -> list[Attributions]:
    reader = AttributionReader(
        Streams.of(model, Division(streams, 1, ahead=streams > 1)), probes, BatchRunner(1000), ig_steps
    )
    tables = reader.read(packed() if batches is None else batches)
    return [tables[probe.hookpoint] for probe in probes]


def dense(table: Attributions) -> np.ndarray:
    """Attributions, `[passage, latent]`."""
    values = np.zeros((len(LENGTHS), TINY_LATENTS))
    values[table.row, table.latent] = table.value
    return values


def scaled(latent: int, factor: float):
    """Changes one latent by a factor."""
    return lambda own: own._replace(value=torch.where(own.latent == latent, own.value * factor, own.value))


def assert_near(left: np.ndarray, right: np.ndarray, share: float = 1e-5) -> None:
    """Check that two arrays differ by little of the largest number."""
    assert np.abs(right).max() > 0.01
    np.testing.assert_allclose(left, right, rtol=0, atol=share * np.abs(right).max())


def by_autograd(model: nn.Module, probe: Probe) -> np.ndarray:
    """Attributions with latents as the leaf, through the SAE's own `decode`."""
    ((batch, counted),) = packed()
    _, latents, keep = read(model, probe, batch)
    leaf = latents.value.clone().requires_grad_()
    losses_with_latents(model, probe, batch, counted, lambda own: own._replace(value=leaf)).sum().backward()
    row = batch.rows[keep.nonzero()[:, 0][latents.token].numpy()]
    values = np.zeros((len(LENGTHS), TINY_LATENTS))
    assert leaf.grad is not None
    np.add.at(values, (row, latents.latent.numpy()), -(leaf.grad * latents.value).double().numpy())
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_slope_of_the_loss_as_a_latent_is_removed(model, exact, kind):
    probe = with_sinks(model, random_probe(kind))
    ((batch, counted),) = packed()
    values = dense(*found(model, [probe]))
    step = 0.02
    for latent in np.abs(values).sum(0).argsort()[-4:].tolist():
        with torch.no_grad():
            less, more = (
                losses_with_latents(exact, probe, batch, counted, scaled(latent, factor))
                for factor in (1 - step, 1 + step)
            )
        slope = np.zeros(len(LENGTHS))
        slope[batch.rows] = (less - more) / (2 * step)
        assert_near(values[:, latent], slope, 2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_autograd_through_decode_with_the_latents_as_leaf(model, exact, kind):
    probe = with_sinks(model, random_probe(kind))
    values = dense(*found(model, [probe]))
    assert_near(values, by_autograd(model, probe))
    assert_near(values, by_autograd(exact, probe))


@pytest.mark.parametrize(("dtype", "share"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_in_half_precision_it_is_much_the_same(tiny_model, model, dtype, share):
    probe = random_probe("gated")
    in_half, expected = (dense(*found(own, [probe])) for own in (load(tiny_model, dtype), model))
    assert np.linalg.norm(in_half - expected) < share * np.linalg.norm(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_integrated_gradients_sum_up_to_the_loss_without_any_latent(model, exact, kind):
    probe = with_sinks(model, random_probe(kind))
    ((batch, counted),) = packed()
    with torch.no_grad():
        none = losses_with_latents(exact, probe, batch, counted, lambda own: own._replace(value=0 * own.value))
        whole = np.zeros(len(LENGTHS))
        whole[batch.rows] = none - losses(exact, batch, counted)
    errors = [np.abs(dense(*found(model, [probe], ig_steps=steps)).sum(1) - whole).max() for steps in (4, 64)]
    assert errors[1] < min(errors[0], 2e-3 * np.abs(whole).max())
    assert np.abs(dense(*found(model, [probe])).sum(1) - whole).max() > errors[0]


def test_one_step_takes_the_gradient_in_the_middle_of_the_path(model):
    probe = random_probe("topk")
    ((batch, counted),) = packed()
    _, latents, keep = read(model, probe, batch)
    leaf = (latents.value / 2).requires_grad_()
    losses_with_latents(model, probe, batch, counted, lambda own: own._replace(value=leaf)).sum().backward()
    assert leaf.grad is not None
    row = batch.rows[keep.nonzero()[:, 0][latents.token].numpy()]
    middle = np.zeros((len(LENGTHS), TINY_LATENTS))
    np.add.at(middle, (row, latents.latent.numpy()), -(leaf.grad * latents.value).double().numpy())
    values = dense(*found(model, [probe], ig_steps=1))
    assert_near(values, middle)
    assert np.abs(values - dense(*found(model, [probe]))).max() > 0.01


def test_there_is_an_entry_for_each_passage_and_latent_that_fires_and_no_other(model):
    probe = with_sinks(model, random_probe("topk"))
    ((batch, _),) = packed()
    (table,) = found(model, [probe])
    _, latents, keep = read(model, probe, batch)
    fired = set(zip(batch.rows[keep.nonzero()[:, 0][latents.token]].tolist(), latents.latent.tolist(), strict=True))
    entries = list(zip(table.row.tolist(), table.latent.tolist(), strict=True))
    assert entries == sorted(fired)
    assert table.value.dtype == np.float64
    assert len(fired) < len(LENGTHS) * TINY_LATENTS


def test_where_no_latent_fires_and_where_no_token_counts_there_is_nothing(model):
    silent = random_probe("gated")
    silent = replace(silent, norm_limit=0.0)
    (table,) = found(model, [silent])
    assert [len(column) for column in table] == [0, 0, 0]
    uncounted = [one._replace(counted=torch.zeros_like(one.counted)) for one in packed()]
    (table,) = found(model, [random_probe("threshold")], uncounted)
    assert len(table.value)
    assert not table.value.any()


def test_the_latents_of_the_last_token_cannot_matter(model):
    ((batch, counted),) = packed()
    nothing = torch.zeros_like(counted)
    nothing[:, 3:] = counted[:, 3:]
    early = batch.countable & (torch.arange(batch.input_ids.shape[1]) < 3)
    later = replace(batch, countable=batch.countable & (torch.arange(batch.input_ids.shape[1]) > 4))
    first_three = nothing.clone()
    first_three[:, 5:] = False
    (table,) = found(model, [random_probe("topk")], [CountedBatch(later, first_three)])
    assert not table.value.any()
    (table,) = found(model, [random_probe("topk")], [CountedBatch(replace(batch, countable=early), first_three)])
    assert table.value.any()


@pytest.mark.parametrize("ig_steps", [None, 2])
def test_batches_cut_in_another_way_streams_and_small_pieces_give_the_same(model, monkeypatch, ig_steps):
    probes = [random_probe("gated"), random_probe("transcoder")]
    whole = found(model, probes, ig_steps=ig_steps)
    others = [found(model, probes, packed(20), ig_steps=ig_steps, streams=2)]
    monkeypatch.setattr(attribution, "MAX_GATHERED", 3 * TINY_WIDTH)
    monkeypatch.setattr(attribution, "MAX_LOGITS", 2 * TINY_VOCABULARY)
    others.append(found(model, probes, ig_steps=ig_steps))
    for other in others:
        for one, own in zip(other, whole, strict=True):
            assert np.array_equal(one.row, own.row)
            assert np.array_equal(one.latent, own.latent)
            assert_near(one.value, own.value)


@pytest.mark.parametrize("ig_steps", [None, 2])
def test_several_hookpoints_together_are_each_of_them_alone(model, ig_steps):
    deeper = replace(random_probe("topk", seed=3), hookpoint=OTHER_RESID, target=OTHER_RESID)
    at_mlp = replace(random_probe("threshold", seed=4), hookpoint=MLP, target=MLP)  # where the transcoder writes
    probes = [random_probe("gated"), deeper, at_mlp, random_probe("transcoder")]
    together = found(model, probes, ig_steps=ig_steps)
    for probe, own in zip(probes, together, strict=True):
        (alone,) = found(model, [probe], ig_steps=ig_steps)
        assert_near(dense(own), dense(alone))


def test_a_factor_between_a_module_and_the_residual_stream_is_heeded():
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": TINY_WIDTH, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = GraniteConfig(**sizes, vocab_size=TINY_VOCABULARY, residual_multiplier=0.22, initializer_range=0.3)
    model = GraniteForCausalLM(config).eval().requires_grad_(False)
    probe = replace(random_probe("topk"), hookpoint=MLP, target=MLP)
    assert_near(dense(*found(model, [probe])), by_autograd(model, probe))
    assert_near(dense(*found(model, [random_probe("gated")])), by_autograd(model, random_probe("gated")))


@pytest.mark.parametrize("ig_steps", [None, 2])
def test_it_can_be_called_in_inference_mode_with_saes_and_batches_made_there(model, ig_steps):
    outside = found(model, [random_probe("topk"), random_probe("transcoder")], ig_steps=ig_steps)
    with torch.inference_mode():
        probes = [random_probe("topk"), random_probe("transcoder")]
        batches = packed()
        assert batches[0].batch.input_ids.is_inference()
        assert probes[0].sae.decoder.weight.is_inference()
        for streams in (1, 2):
            inside = found(model, probes, batches, ig_steps=ig_steps, streams=streams)
            for one, own in zip(inside, outside, strict=True):
                assert np.array_equal(one.value, own.value)
        assert torch.is_inference_mode_enabled()


def test_weights_made_in_inference_mode_are_noticed(model):
    with torch.inference_mode():
        model.lm_head = copy.deepcopy(model.lm_head)
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
    with pytest.raises(AssertionError, match="made in inference mode"):
        found(model, [random_probe("topk")])


def test_the_model_stays_as_it_was(model):
    before = copy.deepcopy(model.state_dict())
    found(model, [random_probe("topk")])
    assert all(not own.requires_grad and own.grad is None for own in model.parameters())
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def failing_above(tokens: int):
    def check(_module: nn.Module, _args: object, kwargs: dict[str, Tensor]) -> None:
        if kwargs["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    return check


@pytest.mark.parametrize("ig_steps", [None, 2])
def test_a_batch_that_does_not_fit_is_halved_with_its_mask(model, ig_steps):
    (whole,) = found(model, [random_probe("topk")], ig_steps=ig_steps)
    handle = model.register_forward_pre_hook(failing_above(30), with_kwargs=True)
    runner, done = BatchRunner(1000), list[tuple[int, int]]()
    reader = AttributionReader(
        Streams((model,), 1, ahead=False),
        [random_probe("topk")],
        runner,
        ig_steps,
        lambda *numbers: done.append(numbers),
    )
    halved = reader.read(packed())[RESID]
    handle.remove()
    assert runner.batches_split == 3
    assert done == [(len(LENGTHS), sum(LENGTHS))]
    assert_near(dense(halved), dense(whole))
    model.register_forward_pre_hook(failing_above(10), with_kwargs=True)
    with pytest.raises(CapacityError, match="a single passage of 17 tokens"):
        found(model, [random_probe("topk")], ig_steps=ig_steps)


def test_gradients_that_overflow_are_refused(model, documented):
    model.get_submodule("model.layers.3").register_forward_hook(lambda _module, _args, output: output * math.inf)
    with pytest.raises(ModelError, match=r"^the gradients at layer 1 are not finite") as error:
        found(model, [random_probe("topk")])
    documented("Base models", "gradients that overflow", str(error.value))
