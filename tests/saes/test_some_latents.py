"""An encoder of some latents: those of a threshold are computed alone, of all other encoders everything is computed."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stratalens.saes import sae as sae_module
from stratalens.saes.activations import Activation, Divided, Gated, GroupMax, SparseLatents, Threshold, TopK
from stratalens.saes.sae import Decoder, Encoder
from stratalens.saes.steps import Centre, GluLinear, Linear, Normalise, Rescale, Scale, Subtract

LATENTS, WIDTH, TOKENS = 700, 48, 40
SOME = torch.tensor([3, 699, 0, 412, 57])
ROUNDING = 1e-5


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoder(activation: Activation) -> Encoder:
    """One with every kind of step."""
    steps = (
        Normalise(centred=True),
        Subtract(random(WIDTH, seed=0)),
        Linear.of(random(LATENTS, WIDTH, seed=1), random(LATENTS, seed=2)),
        Scale(random(LATENTS, seed=3).exp()),
    )
    return Encoder(WIDTH, steps, activation)


def random_gate() -> Gated:
    return Gated(random(LATENTS, seed=6) - 3, random(LATENTS, seed=7).exp(), random(LATENTS, seed=8))


def divided(inner: Activation) -> Divided:
    return Divided(inner, random(LATENTS, seed=9).exp())


THRESHOLDS = {"ReLU": torch.zeros(LATENTS), "JumpReLU": 3 + random(LATENTS, seed=4).abs()}


def of_latents(latents: SparseLatents, wanted: Tensor) -> dict[tuple[int, int], float]:
    rows = zip(latents.token.tolist(), latents.latent.tolist(), latents.value.tolist(), strict=True)
    return {(token, latent): value for token, latent, value in rows if latent in wanted.tolist()}


ALONE: dict[str, Activation] = {
    **{name: Threshold(threshold) for name, threshold in THRESHOLDS.items()},
    "gated": random_gate(),
    "divided": divided(Threshold(THRESHOLDS["JumpReLU"])),
}
"""Activations by which each latent fires by itself."""


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("pieces", [False, True])
def test_latents_of_a_threshold_alone_fire_as_among_all(kind, pieces, monkeypatch):
    if pieces:
        monkeypatch.setattr(sae_module, "MAX_DENSE_ELEMENTS", 7 * len(SOME))
    whole, x = encoder(ALONE[kind]), random(TOKENS, WIDTH, seed=5)
    alone = whole.only(SOME)
    assert (alone.num_latents, whole.num_latents) == (len(SOME), LATENTS)
    found = alone.encode(x)
    assert bool((found.token.diff() >= 0).all())
    expected = of_latents(whole.encode(x), SOME)
    assert 0 < len(expected) < TOKENS * len(SOME)
    assert of_latents(found, SOME) == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    assert len(found.value) == len(expected)


@pytest.mark.parametrize("activation", [TopK(8), GroupMax(7), divided(TopK(8))])
def test_where_latents_compete_all_are_computed(activation):
    whole = encoder(activation)
    assert whole.only(SOME) is whole


def test_a_gate_opens_and_a_magnitude_counts():
    """The formula of the paper, with two products in float64."""
    gate, x = random_gate(), random(TOKENS, WIDTH, seed=5).double()
    weight, bias = random(LATENTS, WIDTH, seed=1), torch.zeros(LATENTS)
    opens = x @ weight.double().T + gate.gate_bias > 0
    magnitudes = torch.relu(x @ (weight.double() * gate.scale[:, None]).T + gate.magnitude_bias)
    found = Encoder(WIDTH, (Linear.of(weight, bias),), gate).encode(x.float())
    expected = torch.where(opens, magnitudes, 0)
    dense = torch.zeros(TOKENS, LATENTS).index_put((found.token, found.latent), found.value)
    assert 0.02 < (expected > 0).double().mean() < 0.5
    torch.testing.assert_close(dense, expected.float(), rtol=1e-4, atol=1e-4)


def test_latents_compete_by_their_scaled_values_and_keep_their_own():
    factor, pre = random(LATENTS, seed=9).exp(), random(TOKENS, LATENTS, seed=10)
    found = Divided(TopK(8), factor)(Scale(factor)(pre))
    for token in range(TOKENS):
        latents = found.latent[found.token == token]
        assert set(latents.tolist()) == set((pre[token] * factor).topk(8).indices.tolist())
    torch.testing.assert_close(found.value, pre[found.token, found.latent])
    assert not torch.equal(Divided(TopK(8), torch.ones(LATENTS))(pre).latent, found.latent), "the factor matters"


def test_a_product_may_gate_another_one():
    linear = Linear.of(random(LATENTS, WIDTH, seed=1), random(LATENTS, seed=2))
    gate = Linear.of(random(LATENTS, WIDTH, seed=3), random(LATENTS, seed=4))
    step, x = GluLinear(linear, gate), random(TOKENS, WIDTH, seed=5)
    whole = Encoder(WIDTH, (step,), Threshold(THRESHOLDS["JumpReLU"]))
    assert torch.equal(step(x), linear(x) * torch.sigmoid(gate(x)))
    torch.testing.assert_close(step.only(SOME)(x), step(x)[:, SOME], rtol=ROUNDING, atol=ROUNDING)
    assert (whole.num_latents, whole.only(SOME).num_latents) == (LATENTS, len(SOME))
    assert torch.equal(whole.on(torch.device("cpu")).encode(x).value, whole.encode(x).value)


def test_a_decoder_undoes_a_scale_and_has_its_norms():
    rows, scale = random(LATENTS, WIDTH, seed=1), random(LATENTS, seed=2).exp()
    latents = Threshold(THRESHOLDS["ReLU"])(random(TOKENS, LATENTS, seed=3))
    x = random(TOKENS, WIDTH, seed=5)
    plain = Decoder(rows * scale[:, None], random(WIDTH, seed=4))
    scaled = Decoder(rows, plain.bias, scale=scale)
    torch.testing.assert_close(scaled(latents, x), plain(latents, x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scaled.norms(), plain.norms())


@pytest.mark.parametrize("step", [Normalise(centred=True), Normalise(centred=False), Rescale(0.5, 2.0), Centre()])
def test_what_is_reconstructed_has_the_scale_of_what_was_encoded(step):
    x = 3 + random(TOKENS, WIDTH, seed=5)
    torch.testing.assert_close(step.undo(step(x), x), x, rtol=1e-4, atol=1e-4)
    kept = Normalise(centred=True, undone=False)
    assert torch.equal(kept.undo(x, x), x), "not of a transcoder, whose target is elsewhere"


def test_a_vector_of_zeros_is_encoded_as_one():
    assert bool(torch.isfinite(Normalise(centred=False)(torch.zeros(2, WIDTH))).all())


def test_no_latents_fire_on_no_token():
    alone = encoder(Threshold(THRESHOLDS["ReLU"])).only(torch.zeros(0, dtype=torch.long))
    assert len(alone.encode(random(TOKENS, WIDTH, seed=5)).value) == 0


def test_a_device_keeps_the_numbers_of_the_latents():
    alone = encoder(Threshold(THRESHOLDS["ReLU"])).only(SOME).on(torch.device("cpu"))
    assert isinstance(alone.activation, Threshold)
    assert alone.activation.numbers is not None
    assert torch.equal(alone.activation.numbers, SOME)
    moved = replace(alone.activation, numbers=SOME + 1)
    x = random(TOKENS, WIDTH, seed=5)
    assert torch.equal(replace(alone, activation=moved).encode(x).latent, alone.encode(x).latent + 1)
