"""An encoder of some latents: those of a threshold are computed alone, of all other encoders everything is computed."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stratalens.saes import sae as sae_module
from stratalens.saes.activations import Activation, GroupMax, SparseLatents, Threshold, TopK
from stratalens.saes.sae import Encoder
from stratalens.saes.steps import Linear, Normalise, Scale, Subtract

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


THRESHOLDS = {"ReLU": torch.zeros(LATENTS), "JumpReLU": 3 + random(LATENTS, seed=4).abs()}


def of_latents(latents: SparseLatents, wanted: Tensor) -> dict[tuple[int, int], float]:
    rows = zip(latents.token.tolist(), latents.latent.tolist(), latents.value.tolist(), strict=True)
    return {(token, latent): value for token, latent, value in rows if latent in wanted.tolist()}


@pytest.mark.parametrize("kind", THRESHOLDS)
@pytest.mark.parametrize("pieces", [False, True])
def test_latents_of_a_threshold_alone_fire_as_among_all(kind, pieces, monkeypatch):
    if pieces:
        monkeypatch.setattr(sae_module, "MAX_DENSE_ELEMENTS", 7 * len(SOME))
    whole, x = encoder(Threshold(THRESHOLDS[kind])), random(TOKENS, WIDTH, seed=5)
    alone = whole.only(SOME)
    assert (alone.num_latents, whole.num_latents) == (len(SOME), LATENTS)
    found = alone.encode(x)
    assert bool((found.token.diff() >= 0).all())
    expected = of_latents(whole.encode(x), SOME)
    assert 0 < len(expected) < TOKENS * len(SOME)
    assert of_latents(found, SOME) == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
    assert len(found.value) == len(expected)


@pytest.mark.parametrize("activation", [TopK(8), GroupMax(7)])
def test_where_latents_compete_all_are_computed(activation):
    whole = encoder(activation)
    assert whole.only(SOME) is whole


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
