"""Encoding and decoding equal eai-sparsify's own, on the shipped SAEs and on random ones that sparsify wrote."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from sparsify import SparseCoder, SparseCoderConfig
from threads import one_thread
from tiny import write_sae
from torch import Tensor

from stratalens.corpus.builtin import text_file
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import pack_batches
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_model
from stratalens.models.streams import has_bfloat16_units
from stratalens.models.tokens import PassageCutter
from stratalens.saes import products
from stratalens.saes import sae as sae_module
from stratalens.saes.activations import SparseLatents
from stratalens.saes.formats.sparsify import load
from stratalens.saes.sae import Sae
from stratalens.saes.steps import Linear

SHIPPED_LAYERS = (4, 10, 16, 22, 28)
WIDTH = 32
ROUNDING = 4 * torch.finfo(torch.float32).eps


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def activations(embedded_model, real_tokenizer) -> dict[int, Tensor]:
    """Layer -> block outputs of the embedded model, bfloat16, at every position of a dozen texts, sinks included."""
    texts = [
        json.loads(line)["text"]
        for side in ("financial", "general")
        for line in text_file(side).read_text(encoding="utf-8").splitlines()[::70]
    ]
    cutter = PassageCutter(real_tokenizer, 256)
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    model = load_model(embedded_model, blocks=29, placement=Placement(torch.device("cpu"), torch.bfloat16))
    taken: dict[int, list[Tensor]] = {layer: [] for layer in SHIPPED_LAYERS}
    for batch in pack_batches(sequences, 2048, ()):
        real = torch.arange(batch.input_ids.shape[1]) < torch.from_numpy(batch.lengths)[:, None]
        with hooked(
            model,
            {Hookpoint(n): lambda out, n=n, real=real: taken[n].append(out[real]) for n in SHIPPED_LAYERS},
        ):
            forward(model, batch.input_ids)
    return {layer: torch.cat(parts) for layer, parts in taken.items()}


@pytest.fixture(autouse=True)
def _no_gradient() -> Iterator[None]:
    with torch.inference_mode():
        yield


def linear_of(sae: Sae) -> Linear:
    (step,) = sae.steps
    assert isinstance(step, Linear)
    return step


def oracle(folder: Path) -> SparseCoder:
    return SparseCoder.load_from_disk(folder).float()


def dense(latents: SparseLatents, tokens: int, width: int) -> Tensor:
    found = torch.zeros(tokens, width)
    found[latents.token, latents.latent] = latents.value
    return found


def of_slots(values: Tensor, indices: Tensor, width: int) -> Tensor:
    """Dense latents of sparsify's slots."""
    return torch.zeros(len(values), width).scatter_(1, indices, values)


def slots(latents: SparseLatents, tokens: int, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices in k slots for each token, as sparsify has them, those that are not used with zeros."""
    slot = torch.arange(len(latents.token)) - torch.searchsorted(latents.token, latents.token)
    values, indices = torch.zeros(tokens, k), torch.zeros(tokens, k, dtype=torch.long)
    values[latents.token, slot], indices[latents.token, slot] = latents.value, latents.latent
    return values, indices


def rounding(coder: SparseCoder, x: Tensor) -> Tensor:
    """What float32 sums of these magnitudes may differ by, per token."""
    longest = coder.encoder.weight.norm(dim=1).max()
    return ROUNDING * (longest * (x.float().norm(dim=1) + coder.b_dec.norm()) + coder.encoder.bias.abs().max())


def assert_encodes_alike(sae: Sae, coder: SparseCoder, x: Tensor) -> None:
    """Dense latents agree, save where two candidates for the last of the k places tie within rounding."""
    theirs = coder.encode(x.float())
    ours = sae.encode(x)
    width = coder.num_latents
    assert ours.value.dtype == torch.float32
    assert bool((ours.value > 0).all())
    assert bool((ours.token.diff() >= 0).all())
    expected = of_slots(theirs.top_acts, theirs.top_indices, width)
    tolerance = rounding(coder, x)[:, None]
    differs = (dense(ours, len(x), width) - expected).abs() > tolerance
    last = theirs.top_acts.min(dim=1, keepdim=True).values
    ties = (theirs.pre_acts - last).abs() <= tolerance
    assert not bool((differs & ~ties).any())
    assert differs.double().mean() < 1e-4, "ties are rare, or the comparison shows nothing"
    assert expected.amax() > 100 * tolerance.amax(), "the latents stand out from rounding"


@pytest.mark.parametrize("layer", SHIPPED_LAYERS)
def test_shipped_sae_encodes_real_activations_as_sparsify_does_from_either_precision(activations, layer):
    folder = SAE_DIRECTORY / f"layers.{layer}"
    sae, coder = load(folder), oracle(folder)
    assert linear_of(sae).bfloat16_weights, "bfloat16 input takes the fast path"
    assert activations[layer].dtype == torch.bfloat16
    assert_encodes_alike(sae, coder, activations[layer])
    assert_encodes_alike(sae, coder, activations[layer].float())


@pytest.mark.parametrize("layer", SHIPPED_LAYERS)
def test_shipped_sae_decodes_as_sparsify_does(activations, layer):
    folder = SAE_DIRECTORY / f"layers.{layer}"
    sae, coder = load(folder), oracle(folder)
    latents = sae.encode(activations[layer])
    rebuilt = sae.decode(latents, activations[layer])
    theirs = coder.decode(*slots(latents, len(rebuilt), 32))
    assert bool(((rebuilt - theirs).norm(dim=1) <= 1e-5 * theirs.norm(dim=1)).all())


def random_coder(folder: Path, dtype: torch.dtype = torch.float32, **settings) -> SparseCoder:
    """A random coder written with sparsify's own `save_to_disk`."""
    config = SparseCoderConfig(**{"num_latents": 64, "k": 8, **settings})
    generator = torch.Generator().manual_seed(7)
    coder = SparseCoder(WIDTH, config, dtype=dtype)
    for parameter in coder.parameters():
        parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    coder.save_to_disk(folder)
    return oracle(folder)


def inputs(tokens: int = 50) -> Tensor:
    return 3 * torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="topk"),
        pytest.param({"activation": "groupmax"}, id="groupmax"),
        pytest.param({"transcode": True}, id="transcode"),
        pytest.param({"skip_connection": True}, id="skip"),
        pytest.param({"transcode": True, "skip_connection": True}, id="transcode_skip"),
        pytest.param({"num_latents": 0, "expansion_factor": 3}, id="width_by_expansion_factor"),
        pytest.param({"dtype": torch.float16}, id="float16"),
        pytest.param({"dtype": torch.bfloat16}, id="bfloat16"),
    ],
)
def test_every_kind_of_checkpoint_encodes_and_rebuilds_as_sparsify_does(tmp_path, settings):
    coder = random_coder(tmp_path, **settings)
    sae = load(tmp_path)
    x = inputs()
    assert sae.num_latents == coder.num_latents
    assert_encodes_alike(sae, coder, x)
    assert_encodes_alike(sae, coder, x.bfloat16())
    torch.testing.assert_close(sae.decode(sae.encode(x), x), coder(x).sae_out, rtol=1e-5, atol=1e-5)


def test_skip_connection_changes_what_is_rebuilt(tmp_path):
    random_coder(tmp_path, skip_connection=True)
    sae, x = load(tmp_path), inputs()
    skip = sae.decoder.skip
    assert skip is not None
    latents = sae.encode(x)
    bare = dense(latents, len(x), sae.num_latents) @ sae.decoder.weight + sae.decoder.bias
    torch.testing.assert_close(sae.decode(latents, x) - bare, x @ skip.T, rtol=1e-4, atol=1e-4)


def test_decoder_bias_is_subtracted_unless_the_coder_transcodes(tmp_path):
    x = inputs()
    one = random_coder(tmp_path / "sae")
    other = random_coder(tmp_path / "transcoder", transcode=True)
    assert torch.equal(one.encoder.weight, other.encoder.weight)
    plain, transcoder = (load(tmp_path / name) for name in ("sae", "transcoder"))
    torch.testing.assert_close(
        dense(plain.encode(x + one.b_dec), len(x), 64), dense(transcoder.encode(x), len(x), 64), rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(dense(plain.encode(x), len(x), 64), dense(transcoder.encode(x), len(x), 64), atol=0.1)


def test_fewer_than_k_latents_fire_where_fewer_are_positive(tmp_path):
    low: dict[str, Any] = {"encoder.bias": torch.full((64,), -4.0)}
    write_sae(tmp_path, config={"k": 48}, **low)
    sae, coder, x = load(tmp_path), oracle(tmp_path), inputs()
    positive = (coder.encode(x).pre_acts > 0).sum(1)
    assert positive.sum() > 0
    assert positive.max() < 48
    assert torch.equal(torch.bincount(sae.encode(x).token, minlength=len(x)), positive)
    assert_encodes_alike(sae, coder, x)


def test_config_of_an_older_sparsify_reads_as_the_library_reads_it(tmp_path):
    coder = random_coder(tmp_path)
    old = {"expansion_factor": 2, "normalize_decoder": True, "num_latents": 64, "k": 8, "signed": False, "d_in": WIDTH}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    assert_encodes_alike(load(tmp_path), oracle(tmp_path), inputs())
    assert torch.equal(oracle(tmp_path).encode(inputs()).pre_acts, coder.encode(inputs()).pre_acts)


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("elements", [1, 64 * 7])
def test_encoding_in_pieces_equals_encoding_whole(tmp_path, monkeypatch, activation, elements):
    random_coder(tmp_path, activation=activation)
    sae, x = load(tmp_path), inputs()
    whole = sae.encode(x)
    monkeypatch.setattr(sae_module, "MAX_DENSE_ELEMENTS", elements)
    pieces = sae.encode(x)
    assert len(pieces.value) == len(whole.value) > 0
    torch.testing.assert_close(dense(pieces, 50, 64), dense(whole, 50, 64), rtol=1e-5, atol=1e-5)


def test_no_tokens_encode_to_no_latents(tmp_path):
    random_coder(tmp_path)
    assert load(tmp_path).encode(torch.zeros(0, WIDTH)).value.shape == (0,)


@pytest.mark.parametrize("fails", [False, True])
def test_global_precision_settings_are_as_before_after_encoding_and_after_a_failure(tmp_path, monkeypatch, fails):
    random_coder(tmp_path, dtype=torch.bfloat16)
    sae = load(tmp_path)
    assert linear_of(sae).bfloat16_weights
    cpu = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]
    before = cpu.fp32_precision
    assert before != "bf16"
    seen = []

    def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        seen.append(cpu.fp32_precision)
        if fails:
            raise RuntimeError("no memory")
        return x @ weight.T + bias

    monkeypatch.setattr(products, "has_bfloat16_units", lambda: True)
    monkeypatch.setattr(products, "linear", product)
    with pytest.raises(RuntimeError, match="no memory") if fails else nullcontext():
        sae.encode(torch.ones(3, WIDTH, dtype=torch.bfloat16))
    with pytest.raises(RuntimeError, match="no memory") if fails else nullcontext():
        sae.encode(torch.ones(3, WIDTH))
    assert seen == ["bf16", before]
    assert cpu.fp32_precision == before


def test_this_cpu_and_one_with_units_for_bfloat16_encode_alike(tmp_path, monkeypatch):
    random_coder(tmp_path, dtype=torch.bfloat16)
    sae, x = load(tmp_path), torch.randn(40, WIDTH, generator=torch.Generator().manual_seed(0))
    before = dense(sae.encode(x), 40, 64)
    monkeypatch.setattr(products, "has_bfloat16_units", lambda: not has_bfloat16_units())
    torch.testing.assert_close(dense(sae.encode(x), 40, 64), before, rtol=1e-5, atol=1e-5)
