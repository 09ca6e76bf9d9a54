"""The fit check on the real model: each shipped SAE belongs to its own block and nowhere else."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
import torch
from threads import one_thread
from tiny import write_sae

from stratalens.errors import MismatchError
from stratalens.files.locations import DATA_DIRECTORY
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.hooks import forward, hooked
from stratalens.models.loading import load_model
from stratalens.models.tokens import PassageCutter
from stratalens.saes.fit_check import (
    FitCheck,
    HookpointFit,
    _problem,
    check_fit,
    neighbouring_hookpoints,
    require_fit,
)
from stratalens.saes.formats.sparsify import load_sae
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
        for line in (DATA_DIRECTORY / "texts" / f"{side}.jsonl").read_text(encoding="utf-8").splitlines()[::15]
    ]
    cutter = PassageCutter(real_tokenizer, 64)
    sequences = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    return list(pack_batches(sequences, 2048, cutter.special_ids))


@pytest.fixture(scope="module")
def whole_model(embedded_model) -> torch.nn.Module:
    return load_model(embedded_model, blocks=None, device=torch.device("cpu"), dtype=torch.bfloat16)


def shipped(layer: int) -> Sae:
    return load_sae(SAE_DIRECTORY / f"layers.{layer}", f"layers.{layer}")


@pytest.fixture(scope="module")
def checks(whole_model, batches, tmp_path_factory) -> Mapping[int, FitCheck]:
    """One pass over the texts: `layer` at its own block, `layer + 30` one block above, `layer + 60` one below."""
    saes = {}
    for layer in LAYERS:
        saes[layer] = shipped(layer)
        saes[layer + 30] = replace(saes[layer], hookpoint=f"layers.{layer + 1}")
        saes[layer + 60] = replace(saes[layer], hookpoint=f"layers.{layer - 1}")
    folder = tmp_path_factory.mktemp("random sae")
    saes[TIED] = load_sae(write_sae(folder, width=576), "layers.10")
    other = torch.randn(saes[TIED].decoder_weight.shape, generator=torch.Generator().manual_seed(5))
    saes[RANDOM] = replace(saes[TIED], decoder_weight=other / other.norm(dim=1, keepdim=True))
    return check_fit(whole_model, saes, batches, 4096)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_shipped_sae_fits_its_own_block(checks, layer):
    own = checks[layer].own
    assert checks[layer].problem == ""
    assert own.hookpoint == f"layers.{layer}"
    assert own.fvu < 0.5
    assert 0 < own.l0 <= 32
    assert own.fvu < min(other.fvu for other in checks[layer].neighbours)
    require_fit({layer: checks[layer]})


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("offset", "moved"), [(30, "above"), (60, "below")])
def test_an_sae_placed_one_block_off_is_refused_and_the_right_block_is_named(checks, layer, offset, moved):
    misplaced = checks[layer + offset]
    assert misplaced.own.hookpoint == f"layers.{layer + (1 if moved == 'above' else -1)}"
    assert f"layers.{layer} clearly better" in misplaced.problem
    with pytest.raises(MismatchError, match=rf"layers\.{layer}\b"):
        require_fit({layer: misplaced})


@pytest.mark.parametrize("key", [RANDOM, TIED])
def test_an_sae_of_random_weights_is_refused(checks, key):
    assert checks[key].problem
    with pytest.raises(MismatchError):
        require_fit({10: checks[key]})


def test_the_error_names_the_hookpoint_and_what_to_do(checks):
    with pytest.raises(MismatchError) as caught:
        require_fit({4: checks[4], 10: checks[RANDOM]})
    for part in ("layers.10", "--base_model", "--sae_model", "--allow_poor_fit"):
        assert part in str(caught.value)


@pytest.fixture(scope="module")
def outputs(whole_model, batches) -> Mapping[int, torch.Tensor]:
    """Layer -> block outputs at the countable positions, by a plain forward pass."""
    taken: dict[int, list[torch.Tensor]] = {4: [], 10: [], 28: []}
    for batch in batches:
        consumers = {
            f"layers.{n}": lambda _, out, parts=parts, batch=batch: parts.append(out[batch.countable])
            for n, parts in taken.items()
        }
        with hooked(whole_model, consumers):
            forward(whole_model, batch.input_ids)
    return {layer: torch.cat(parts) for layer, parts in taken.items()}


@pytest.mark.parametrize("layer", [4, 28])
def test_median_norm_is_that_of_the_countable_positions_of_the_block(checks, outputs, layer):
    median = float(outputs[layer].float().norm(dim=-1).median())
    assert checks[layer].median_norm == pytest.approx(median, rel=0.01)


@pytest.mark.parametrize(
    ("own", "other", "refused"),
    [
        pytest.param((0.3, 0.03), (0.2, 0.005), True, id="fits_clearly_better_at_a_neighbour"),
        pytest.param((0.3, 0.006), (0.29, 0.005), False, id="fits_a_little_better_at_a_neighbour"),
        pytest.param((0.3, 0.0008), (0.2, 0.0001), False, id="hardly_any_error_in_the_mean"),
        pytest.param((0.3, 0.03), (0.4, 0.005), False, id="explains_less_at_a_neighbour"),
        pytest.param((1.2, 0.0001), (1.3, 0.0001), True, id="explains_nothing"),
        pytest.param((float("nan"), 0.0001), (1.3, 0.0001), True, id="not_a_number"),
    ],
)
def test_only_a_clearly_better_fit_at_a_neighbour_or_none_at_all_is_a_problem(own, other, refused):
    fits = [HookpointFit(f"layers.{n}", fvu, share, 32.0) for n, (fvu, share) in ((4, own), (5, other))]
    assert bool(_problem(fits[0], fits[1:])) == refused


def test_neighbours_are_the_same_module_in_the_adjacent_blocks():
    assert neighbouring_hookpoints("layers.4") == ("layers.3", "layers.5")
    assert neighbouring_hookpoints("layers.0.mlp") == ("layers.1.mlp",)


def test_the_share_of_unexplained_variance_is_that_of_a_plain_computation(checks, outputs):
    x = outputs[10]
    sae = shipped(10)
    error = x.double() - sae.decode(sae.encode(x), x).double()
    variance = (x.double() - x.double().mean(0)).pow(2).sum()
    assert x.float().norm(dim=1).max() < 10 * checks[10].median_norm, "no sink is among these texts at this layer"
    assert checks[10].own.fvu == pytest.approx(float(error.pow(2).sum() / variance), rel=1e-4)
    share = float(len(x) * error.mean(0).pow(2).sum() / variance)
    assert checks[10].own.mean_error_share == pytest.approx(share, rel=1e-3)
    assert checks[10].own.l0 == pytest.approx(float((sae.encode(x).values > 0).sum(1).double().mean()), rel=1e-4)
