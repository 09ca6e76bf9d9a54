"""On a device other than the CPU nothing is mixed and nothing is asked of it that it does not have.

There is no such device here: see `pretended_device` for what is pretended. Numbers are those of the CPU.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from pretended_device import PretendedDevice, PretendedTensor
from tiny import TINY_LATENTS, TINY_WIDTH, write_sae
from torch import nn

from stratalens.evidence.logit_lens import Head, feature_lenses
from stratalens.harvest.shard_reader import encode_batch
from stratalens.harvest.state.passage_values import reduce_batch
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.token_classes import TOKEN_CLASSES
from stratalens.saes.activations import SparseLatents
from stratalens.saes.formats.sparsify import load
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

HERE = Hookpoint(2)
VOCABULARY = 50

pytestmark = pytest.mark.filterwarnings("ignore:at..frobenius_norm is deprecated")  # of norms inside a dispatch mode


@pytest.fixture(autouse=True)
def _no_gradient() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def sae(tmp_path) -> Sae:
    return load(write_sae(tmp_path))


def batch() -> TokenBatch:
    return next(pack_batches([np.arange(1, 1 + length) for length in (30, 12, 7)], 10_000, ()))


def vectors(of: TokenBatch) -> torch.Tensor:
    return torch.randn(*of.input_ids.shape, TINY_WIDTH, generator=torch.Generator().manual_seed(1))


def classes() -> torch.Tensor:
    return torch.arange(VOCABULARY) % len(TOKEN_CLASSES)


def test_the_pretended_device_refuses_what_mps_refuses():
    with PretendedDevice("mps") as mps:
        x = torch.ones(3, 4).to(mps.device)
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(RuntimeError, match="same device"):
            _ = x + torch.ones(3, 4)
        with pytest.raises(RuntimeError, match="same device"):
            _ = x[torch.tensor([0, 1])]
        with pytest.raises(RuntimeError, match="unique is wrong"):
            torch.unique(torch.tensor([2**24 + 1, 3]).to(mps.device), return_inverse=True)


@pytest.mark.parametrize("kind", ["mps", "xpu"])
@pytest.mark.parametrize("num_latents", [TINY_LATENTS, 2**24], ids=["narrow", "keys above 2^24"])
def test_a_batch_gives_the_columns_that_it_gives_on_the_cpu(sae, kind, num_latents):
    of, probe = batch(), Probe(HERE, HERE, sae.encoder, 100.0)
    expected = reduce_batch(spread(encode_batch(probe, of, vectors(of)), num_latents), of, num_latents, classes())
    with PretendedDevice(kind) as device:
        there = Probe(HERE, HERE, sae.encoder.on(device.device), 100.0)
        encoded = encode_batch(there, of.to(device.device), vectors(of).to(device.device))
        assert all(isinstance(one, PretendedTensor) for one in (*encoded.latents, encoded.residual_sum))
        found = reduce_batch(
            spread(encoded, num_latents), of.to(device.device), num_latents, classes().to(device.device)
        )
        assert all(isinstance(column, PretendedTensor) for column in found.values()), "until a chunk is read"
        here = {name: torch.cat([column]).cpu().numpy() for name, column in found.items()}
    assert expected["latent"].max() > num_latents / 2
    assert set(here) == set(expected)
    for name, column in expected.items():
        np.testing.assert_allclose(here[name], column.numpy(), rtol=1e-6, err_msg=name)


def spread(encoded, num_latents: int):
    """The same latents under numbers as far apart as those of a wide SAE."""
    token, latent, value = encoded.latents
    return encoded._replace(latents=SparseLatents(token, latent * (num_latents // TINY_LATENTS), value))


def test_an_sae_reconstructs_there_with_its_decoder_here(sae):
    x = torch.randn(20, TINY_WIDTH, generator=torch.Generator().manual_seed(2))
    expected = sae.decode(sae.encode(x), x)
    with PretendedDevice("mps") as mps:
        there, x_there = sae.on(mps.device), x.to(mps.device)
        assert not isinstance(there.decoder.weight, PretendedTensor)
        found = there.decode(there.encode(x_there), x_there)
        assert isinstance(found, PretendedTensor)
        torch.testing.assert_close(found.cpu(), expected)


def test_the_logit_lens_is_that_of_the_cpu(sae):
    torch.manual_seed(0)
    norm, unembedding = nn.LayerNorm(TINY_WIDTH), nn.Linear(TINY_WIDTH, VOCABULARY, bias=False)
    expected = feature_lenses(Head(norm, unembedding), sae.decoder.weight, [3, 9], str)
    with PretendedDevice("mps") as mps:
        for module in (norm, unembedding):
            for name, parameter in list(module.named_parameters()):
                setattr(module, name, nn.Parameter(parameter.detach().to(mps.device), requires_grad=False))
        head = Head(norm, unembedding)
        computed = mps.calls
        assert feature_lenses(head, sae.decoder.weight, [3, 9], str) == expected
        assert mps.calls > computed
