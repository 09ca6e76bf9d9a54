"""A part of the grid of `bench/fit_errors.py`: right SAEs are taken in the files of every format, faults refused."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fit_errors import changed, file_cases
from fit_grid import NO_FAULTS, WEIGHT_FAULTS, Case, Verdict, judged, moved
from fit_writers import WRITERS, Weights
from small_saes import activations, passage_batches
from threads import one_thread

from stratalens.config.validation import make_config
from stratalens.hookpoint import Hookpoint
from stratalens.models import PassageCutter, find_model, load_model
from stratalens.models.batches import TokenBatch
from stratalens.models.embedded import SAE_DIRECTORY
from stratalens.models.loading import Placement
from stratalens.models.source import ModelSource

LAYER = 10
IN_FULL = ("sparsify", "Gemma Scope", "Llama Scope")
"""Formats in whose files every fault of weights is tried: TopK, JumpReLU, and one that compares decoder norms too."""
FAULTS = {kind: WEIGHT_FAULTS if kind in IN_FULL else {"transposed": WEIGHT_FAULTS["transposed"]} for kind in WRITERS}
FAULTY = [
    (kind, fault) for kind, own in FAULTS.items() for fault in (*own, "truncated") if (kind, fault) not in NO_FAULTS
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread(), torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def source(embedded_model) -> ModelSource:
    return find_model(make_config(base_model=str(embedded_model), sae_model=str(SAE_DIRECTORY)))


@pytest.fixture(scope="module")
def model(embedded_model) -> torch.nn.Module:
    return load_model(embedded_model, blocks=LAYER + 5, placement=Placement(torch.device("cpu"), torch.bfloat16))


@pytest.fixture(scope="module")
def batches(real_tokenizer) -> list[TokenBatch]:
    return passage_batches(PassageCutter(real_tokenizer, 128), held_out=True, passages=12)


@pytest.fixture(scope="module")
def verdicts(source, model, real_tokenizer, batches, tmp_path_factory) -> dict[tuple[str, str], Verdict]:
    """(Format, fault) -> verdict."""
    other_texts = passage_batches(PassageCutter(real_tokenizer, 128), held_out=False, passages=12)
    x = activations(model, other_texts, [Hookpoint(LAYER)])[Hookpoint(LAYER)]
    weights = {LAYER: Weights.read(SAE_DIRECTORY / f"layers.{LAYER}", x)}
    root: Path = tmp_path_factory.mktemp("grid")
    found = [case for kind in WRITERS for case in file_cases(source, weights, root, kind, FAULTS[kind])]
    cases = [case for case in found if isinstance(case, Case)]
    own = next(case for case in cases if case.fault == "right")
    cases += [moved(own, Hookpoint(LAYER + offset), rf"layers\.{LAYER} clearly better") for offset in (-1, 1)]
    judgements = [*(case for case in found if isinstance(case, Verdict)), *judged(model, cases, batches)]
    return {(own.format, f"{own.fault} {own.place}".strip()): own for own in judgements}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_right_sae_is_taken_in_the_files_of_every_format(verdicts, kind):
    own = verdicts[kind, f"right {LAYER}"]
    assert own.problem == ""
    assert own.fit is not None
    assert own.fit.own.fvu < 0.4


@pytest.mark.parametrize(("kind", "fault"), FAULTY)
def test_a_fault_of_a_file_is_refused(verdicts, kind, fault):
    own = next(own for (its_kind, name), own in verdicts.items() if its_kind == kind and name.startswith(fault))
    assert own.problem
    assert own.is_right_reason, own.problem


@pytest.mark.parametrize("place", [LAYER - 1, LAYER + 1])
def test_an_sae_of_the_next_layer_is_refused_and_its_own_is_named(verdicts, place):
    assert verdicts["sparsify", f"right {place}"].is_right_reason


def test_a_model_whose_weights_moved_is_told_and_not_refused(source, batches, embedded_model, tmp_path):
    x = torch.ones(1, 576)
    weights = {LAYER: Weights.read(SAE_DIRECTORY / f"layers.{LAYER}", x)}
    right = next(file_cases(source, weights, tmp_path, "sparsify"))
    assert isinstance(right, Case)
    fvu = []
    for share in (0.0, 0.03, 0.1):
        placement = Placement(torch.device("cpu"), torch.bfloat16)
        other = load_model(embedded_model, blocks=LAYER + 2, placement=placement)
        changed(other, share)
        (verdict,) = judged(other, [right], batches)
        assert verdict.problem == "", share
        assert verdict.fit is not None
        fvu.append(verdict.fit.own.fvu)
    assert fvu[0] < fvu[1] < fvu[2]
