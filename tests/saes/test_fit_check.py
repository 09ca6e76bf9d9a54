"""The fit check on the real model: each shipped SAE belongs to its own block and nowhere else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce

import pytest
import torch
from threads import one_thread
from tiny import write_sae

from stratalens.corpus.builtin import text_file
from stratalens.errors import MismatchError, ModelError
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.families import number_of_blocks
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import Placement, load_model
from stratalens.models.tokens import PassageCutter
from stratalens.saes import fit_measure
from stratalens.saes.fit_check import FitCheck, check_fit, require_fit
from stratalens.saes.fit_numbers import FitSums
from stratalens.saes.formats.sparsify import load
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Sae

LAYERS = (4, 10, 16, 22, 28)
RANDOM, TIED = 100, 101
"""Keys of SAEs of random weights: decoder rows of their own, and decoder rows equal to the encoder's."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def batches(real_tokenizer) -> list[TokenBatch]:
    texts = [
        json.loads(line)["text"]
        for side in ("financial", "general")
        for line in text_file(side).read_text(encoding="utf-8").splitlines()[::43]
    ]
    cutter = PassageCutter(real_tokenizer, 64)
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    return list(pack_batches(sequences, 2048, cutter.special_ids))


@pytest.fixture(scope="module")
def whole_model(embedded_model) -> torch.nn.Module:
    return load_model(embedded_model, blocks=None, placement=Placement(torch.device("cpu"), torch.bfloat16))


def probe(layer: int, sae: Sae) -> Probe:
    return Probe(Hookpoint(layer), Hookpoint(layer), sae, float("inf"))


def check(model: torch.nn.Module, batches: list[TokenBatch], layer: int, sae: Sae) -> FitCheck:
    return check_fit(model, [probe(layer, sae)], batches, 4096)[Hookpoint(layer)]


@pytest.fixture(scope="module")
def checks(whole_model, batches, tmp_path_factory) -> Mapping[int, FitCheck]:
    """Of the SAE of `layer` at its own block, under `layer + 30` one block above, under `layer + 60` one below."""
    saes = {layer: load(SAE_DIRECTORY / f"layers.{layer}") for layer in LAYERS}
    found = check_fit(whole_model, [probe(*of_layer) for of_layer in saes.items()], batches, 4096)
    checks = {hookpoint.block: checked for hookpoint, checked in found.items()}
    for offset, moved in ((30, 1), (60, -1)):
        probes = [probe(layer + moved, sae) for layer, sae in saes.items()]
        found = check_fit(whole_model, probes, batches, 4096)
        checks |= {hookpoint.block - moved + offset: checked for hookpoint, checked in found.items()}
    tied = load(write_sae(tmp_path_factory.mktemp("random sae"), width=576))
    other = torch.randn(tied.decoder.weight.shape, generator=torch.Generator().manual_seed(5))
    random = replace(tied, decoder=replace(tied.decoder, weight=other / other.norm(dim=1, keepdim=True)))
    return checks | {TIED: check(whole_model, batches, 10, tied), RANDOM: check(whole_model, batches, 10, random)}


@pytest.mark.parametrize("layer", LAYERS)
def test_a_shipped_sae_fits_its_own_block(checks, layer):
    own = checks[layer].own
    assert checks[layer].problem == ""
    assert own.hookpoint == f"layers.{layer}"
    assert own.fvu < 0.5
    assert 0 < own.l0 <= 32
    assert own.fvu < min(other.fvu for other in checks[layer].neighbours)
    require_fit({Hookpoint(layer): checks[layer]})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("offset", "moved"), [(30, "above"), (60, "below")])
def test_an_sae_placed_one_block_off_is_refused_and_the_right_block_is_named(checks, layer, offset, moved):
    misplaced = checks[layer + offset]
    assert misplaced.own.hookpoint == f"layers.{layer + (1 if moved == 'above' else -1)}"
    assert f"layers.{layer} clearly better" in misplaced.problem
    with pytest.raises(MismatchError, match=rf"layers\.{layer}\b"):
        require_fit({Hookpoint(layer): misplaced})


@pytest.mark.parametrize("key", [RANDOM, TIED])
def test_an_sae_of_random_weights_is_refused(checks, key):
    assert checks[key].problem
    with pytest.raises(MismatchError):
        require_fit({Hookpoint(10): checks[key]})


def test_the_error_names_the_hookpoint_and_what_to_do(checks):
    with pytest.raises(MismatchError) as caught:
        require_fit({Hookpoint(4): checks[4], Hookpoint(10): checks[RANDOM]})
    for part in ("layers.10", "--base_model", "--sae_model", "--allow_poor_fit"):
        assert part in str(caught.value)


@pytest.fixture(scope="module")
def outputs(whole_model, batches) -> Mapping[int, torch.Tensor]:
    """Layer -> block outputs at the countable positions, by a plain forward pass."""
    taken: dict[int, list[torch.Tensor]] = {4: [], 10: [], 28: []}
    for batch in batches:
        consumers = {
            Hookpoint(n): lambda out, parts=parts, batch=batch: parts.append(out[batch.countable])
            for n, parts in taken.items()
        }
        with hooked(whole_model, consumers):
            forward(whole_model, batch.input_ids)
    return {layer: torch.cat(parts) for layer, parts in taken.items()}


@pytest.mark.parametrize("layer", [4, 28])
def test_median_norm_is_that_of_the_countable_positions_of_the_block(checks, outputs, layer):
    median = float(outputs[layer].float().norm(dim=-1).median())
    assert checks[layer].median_norm == pytest.approx(median, rel=0.01)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("pieces", [1, 3])
def test_the_best_scale_is_that_of_least_squares(pieces, offset):
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(60, 8, generator=generator) + offset
    made = 1.6 * target + 0.3 * torch.randn(60, 8, generator=generator) - 7
    parts = zip(target.chunk(pieces), made.chunk(pieces), strict=True)
    sums = reduce(FitSums.plus, (FitSums.of(*part, fired=0) for part in parts))
    fit = sums.fit("layers.4", Hookpoint(4), Hookpoint(4), "")
    centred, rows = (x.double() - x.double().mean(0) for x in (target, made))
    solution = torch.linalg.lstsq(rows.reshape(-1, 1), centred.reshape(-1, 1)).solution
    assert fit is not None
    assert fit.best_scale == pytest.approx(float(solution), rel=1e-6)


def test_reconstructions_that_are_all_the_same_have_no_best_scale():
    fit = FitSums.of(torch.randn(20, 8), torch.ones(20, 8), 0).fit("layers.4", Hookpoint(4), Hookpoint(4), "")
    assert fit is not None
    assert fit.best_scale == 0


@pytest.mark.parametrize("lost", ["one token", "all of one passage", "all"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_not_finite_are_refused_with_the_types_that_help(
    tiny_model, tokenizer, tmp_path, lost, value
):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    cutter = PassageCutter(tokenizer, 64, 2)
    texts = ["The bank raised its rate by half a percent.", "A heron waits at the weir."]
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    batches = list(pack_batches(sequences, max(map(len, sequences)), cutter.special_ids))
    assert len(batches) == 2
    where = {"one token": (0, -1), "all of one passage": (0, slice(None)), "all": slice(None)}[lost]

    def overflow(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
        if lost == "all" or output.shape[1] == batches[0].input_ids.shape[1]:
            output[where] = value
        return output

    model.get_submodule("layers.1").register_forward_hook(overflow)
    probe = Probe(Hookpoint(1), Hookpoint(1), load(write_sae(tmp_path)), float("inf"))
    with pytest.raises(
        ModelError, match=r"at layers\.1 are not finite.*; use --dtype float32 or bfloat16, and no --load_in 8bit"
    ):
        check_fit(model, [probe], batches, 512)


def test_neighbours_are_the_same_site_in_the_adjacent_blocks(tiny_model, tokenizer, tmp_path):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    cutter = PassageCutter(tokenizer, 64, 2)
    sequences = [cutter.sequence(cutter.first_spans("The bank raised its rate by half a percent.", 1)[0])] * 3
    batches = list(pack_batches(sequences, 512, cutter.special_ids))
    sae = load(write_sae(tmp_path))
    blocks = number_of_blocks(model)
    for place, names in (
        (Hookpoint(1), ["layers.1", "layers.0", "layers.2"]),
        (Hookpoint(0, "mlp"), ["layers.0.mlp", "layers.1.mlp"]),
        (Hookpoint(blocks - 1), [f"layers.{blocks - 1}", f"layers.{blocks - 2}"]),
    ):
        found = check_fit(model, [Probe(place, place, sae, float("inf"))], batches, 512)[place]
        assert [fit.hookpoint for fit in (found.own, *found.neighbours)] == names


def tiny_text(tokenizer) -> list[TokenBatch]:
    cutter = PassageCutter(tokenizer, 64, 2)
    texts = ("The bank raised its rate by half a percent.", "A heron waits at the weir in the morning.")
    return list(pack_batches([cutter.sequence(cutter.first_spans(t, 1)[0]) for t in texts], 512, cutter.special_ids))


def test_siblings_are_all_other_sites_of_the_block_in_one_pass(tiny_model, tokenizer, tmp_path, monkeypatch):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    sae, place, batches = load(write_sae(tmp_path)), Hookpoint(1, "mlp"), tiny_text(tokenizer)
    passes = []
    monkeypatch.setattr(fit_measure, "forward", lambda *words: (passes.append(1), forward(*words)))
    found = check_fit(model, [Probe(place, place, sae, float("inf"))], batches, 512, thorough=True)[place]
    assert len(passes) == len(batches), "one pass for all candidates"
    names = [fit.reconstructs for fit in found.siblings]
    others = ["attn", "attn_heads", "attn_norm", "mlp_norm", "attn_norm_no_gain", "mlp_norm_no_gain"]
    assert names == ["1", "1_resid_in", *(f"1_{site}" for site in others)]
    for fit in found.siblings:
        other = Hookpoint.parse(fit.reads)
        own = check_fit(model, [Probe(other, other, sae, float("inf"))], batches, 512)[other].own
        assert (own.fvu, own.mean_error_share, own.l0) == (fit.fvu, fit.mean_error_share, fit.l0)


def test_siblings_of_another_width_are_left_out_and_a_transcoder_changes_one_end(tiny_model, tokenizer, tmp_path):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    sae = load(write_sae(tmp_path, config={"transcode": True}))
    source, target = Hookpoint(1, "mlp_norm"), Hookpoint(1, "mlp")
    probe = Probe(source, target, sae, float("inf"))
    found = check_fit(model, [probe], tiny_text(tokenizer), 512, thorough=True)[source]
    ends = [(fit.reads, fit.reconstructs) for fit in found.siblings]
    assert all((reads == "1_mlp_norm") != (reconstructs == "1_mlp") for reads, reconstructs in ends)
    assert ("1_mlp_norm", "1_attn") in ends
    assert ("1_mlp_norm_no_gain", "1_mlp") in ends
    assert ("1_attn_norm", "1_mlp") in ends


def test_latent_use_counts_dead_and_dense_latents(tiny_model, tokenizer, tmp_path):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    sae, place, batches = load(write_sae(tmp_path)), Hookpoint(1), tiny_text(tokenizer)
    fired = torch.zeros(sae.num_latents)

    def count(x: torch.Tensor, batch: TokenBatch) -> None:
        fired.index_add_(0, (latents := sae.encode(x[batch.countable])).latent, torch.ones(len(latents.latent)))

    for batch in batches:
        with hooked(model, {place: lambda x, batch=batch: count(x, batch)}):
            forward(model, batch.input_ids)
    use = check_fit(model, [Probe(place, place, sae, float("inf"))], batches, 512)[place].use
    assert use is not None
    tokens = sum(int(batch.countable.sum()) for batch in batches)
    assert use.dead_share == pytest.approx(float((fired == 0).float().mean()))
    assert use.dense_share == pytest.approx(float((fired > 0.1 * tokens).float().mean()))
    assert (use.latents, use.median_decoder_norm) == (64, pytest.approx(1.0))


def test_a_transcoder_is_measured_by_what_it_reconstructs(tiny_model, tokenizer, tmp_path):
    model = load_model(tiny_model, blocks=None, placement=Placement(torch.device("cpu"), torch.float32))
    cutter = PassageCutter(tokenizer, 64, 2)
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in ("The bank raised it.", "A heron waits.")]
    (batch,) = pack_batches(sequences, 512, cutter.special_ids)
    sae, read = load(write_sae(tmp_path, config={"transcode": True})), {}
    places = Hookpoint(1, "mlp_norm"), Hookpoint(1, "mlp")
    with hooked(model, {place: lambda x, place=place: read.update({place: x[batch.countable]}) for place in places}):
        forward(model, batch.input_ids)
    source, target = (read[place] for place in places)
    error = target - sae.decode(sae.encode(source), source)
    expected = error.pow(2).sum() / (target - target.mean(0)).pow(2).sum()
    found = check_fit(model, [Probe(*places, sae, float("inf"))], [batch], 512)[places[0]]
    assert found.own.fvu == pytest.approx(float(expected), rel=1e-4)
    assert found.median_norm == pytest.approx(float(source.norm(dim=1).median()), rel=1e-5)
