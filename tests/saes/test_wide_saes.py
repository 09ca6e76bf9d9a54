"""Wide SAEs: at most 1.2 copies of the weights are in memory, and a decoder takes memory only for the rows used."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY_LATENTS, TINY_WIDTH, write_sae
from wide_sae import MAX_COPIES, READS, read_watched, write_random_sae

from stratalens.hookpoint import Hookpoint
from stratalens.saes import weights
from stratalens.saes.formats.sparsify import describe, load, load_decoder, load_encoder
from stratalens.saes.loaded import LoadedEncoders
from stratalens.saes.sae import Checkpoint, SaeFile
from stratalens.saes.steps import Linear

HERE = Hookpoint(2)
CPU = torch.device("cpu")
LATENTS, WIDTH = 131_072, 256


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "layers.2"
    write_random_sae(folder, LATENTS, WIDTH)
    return folder


def described(folder: Path) -> SaeFile:
    return describe(Checkpoint(folder, HERE, HERE, "layers.2"))


@pytest.mark.serial
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("read", READS)
def test_loading_takes_no_second_copy_of_the_weights(wide, read):
    size = (wide / "sae.safetensors").stat().st_size
    assert read_watched(wide, read).bytes <= MAX_COPIES * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("elements", [1, 3 * TINY_WIDTH, 2**20])
def test_reading_by_blocks_of_any_size_gives_the_same_bits(tmp_path, monkeypatch, dtype, elements):
    plain = write_sae(tmp_path)
    tensors = {name: value.to(dtype) for name, value in weights_of(plain).items()}
    write_sae(tmp_path, **tensors)
    whole = load(tmp_path)
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", elements)
    parts = load(tmp_path)
    for one, other in zip(linears(whole), linears(parts), strict=True):
        assert torch.equal(one.weight, other.weight)
        torch.testing.assert_close(one.bias, other.bias, rtol=0, atol=2e-7)
        assert one.bfloat16_weights == other.bfloat16_weights == (dtype == torch.bfloat16)
    assert torch.equal(parts.decoder.norms(), tensors["W_dec"].float().norm(dim=1))


@pytest.mark.parametrize("tokens", [1, 7, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_model", [256, 576, 4096])
def test_wide_weights_in_bfloat16_give_the_bits_of_float32(dtype, d_model, tokens):
    random = torch.Generator().manual_seed(3)
    rows = torch.randn(weights.BLOCK_ELEMENTS // d_model * 2 + 100, d_model, generator=random).bfloat16()
    bias = torch.randn(len(rows), generator=random)
    x = (3 * torch.randn(tokens, d_model, generator=random)).to(dtype)
    assert torch.equal(Linear.of(rows, bias)(x), Linear.of(rows.float(), bias)(x))


def test_wide_weights_are_in_bfloat16_where_that_holds_them(tmp_path, monkeypatch):
    write_sae(tmp_path, **{name: value.bfloat16() for name, value in weights_of(write_sae(tmp_path)).items()})
    plain = load_encoder(tmp_path)
    monkeypatch.setattr(weights, "WIDE_ELEMENTS", TINY_LATENTS * TINY_WIDTH)
    narrow = load_encoder(tmp_path)
    (step,), (other,) = linears(plain), linears(narrow)
    assert (step.weight.dtype, other.weight.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(other.bias, step.bias)
    assert torch.equal(other.weight.float(), step.weight)
    assert described(tmp_path).bfloat16_encoder


def test_wide_weights_that_bfloat16_does_not_hold_stay_in_float32(tmp_path, monkeypatch):
    rows = torch.ones(TINY_LATENTS, TINY_WIDTH)
    rows[-1, -1] = 1.001
    plain = load_encoder(write_sae(tmp_path, **{"encoder.weight": rows}))
    monkeypatch.setattr(weights, "WIDE_ELEMENTS", 1)
    monkeypatch.setattr(weights, "BLOCK_ELEMENTS", 3 * TINY_WIDTH)
    (step,), (other,) = linears(plain), linears(load_encoder(tmp_path))
    assert torch.equal(step.weight, rows)
    assert torch.equal(other.weight, rows)
    assert not other.bfloat16_weights


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    sae = load(folder)
    (step,) = linears(sae)
    own = {"encoder.weight": step.weight, "encoder.bias": torch.zeros(TINY_LATENTS)}
    return own | {"W_dec": sae.decoder.weight.clone(), "b_dec": sae.decoder.bias}


def linears(sae) -> list[Linear]:
    return [step for step in sae.steps if isinstance(step, Linear)]


def test_encoder_and_decoder_alone_are_those_of_the_whole(tmp_path):
    whole = load(write_sae(tmp_path))
    (alone,), (step,) = linears(load_encoder(tmp_path)), linears(whole)
    assert torch.equal(alone.weight, step.weight)
    assert torch.equal(alone.bias, step.bias)
    assert torch.equal(load_decoder(tmp_path).weight, whole.decoder.weight)


def test_tokens_on_which_nothing_fires_are_rebuilt_as_the_bias(tmp_path):
    sae = load(write_sae(tmp_path, **{"encoder.bias": torch.full((TINY_LATENTS,), -100.0)}))
    x = torch.randn(5, TINY_WIDTH)
    latents = sae.encode(x)
    assert len(latents.value) == 0
    assert torch.equal(sae.decode(latents, x), sae.decoder.bias.expand(5, -1))


def test_an_encoder_is_loaded_once_for_as_long_as_it_is_asked_for(tmp_path):
    places = [Hookpoint(number) for number in range(3)]
    files = {place: described(write_sae(tmp_path / f"layers.{place}", seed=place.block)) for place in places}
    loaded = LoadedEncoders()
    first = loaded.of(files, CPU)
    fewer = loaded.of({place: files[place] for place in places[1:]}, CPU)
    assert all(fewer[place] is first[place] for place in places[1:])
    again = loaded.of(files, CPU)
    assert again[places[0]] is not first[places[0]], "what was not asked for was freed"
    assert again[places[1]] is first[places[1]]
    loaded.clear()
    loaded.keep(files[places[2]], first[places[2]])
    assert loaded.of(files, CPU)[places[2]] is first[places[2]]
