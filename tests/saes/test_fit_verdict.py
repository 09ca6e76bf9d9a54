"""The verdict of the fit check on numbers alone: what is a problem, and what is said of it."""

from dataclasses import replace

import pytest
import torch

from stratalens.saes.activations import Threshold, TopK, is_relu
from stratalens.saes.fit_numbers import HookpointFit
from stratalens.saes.fit_verdict import problem_of


@pytest.mark.parametrize(
    ("own", "other", "refused"),
    [
        pytest.param((0.3, 0.03), (0.2, 0.005), True, id="fits_clearly_better_at_a_neighbour"),
        pytest.param((0.3, 0.006), (0.29, 0.005), False, id="fits_a_little_better_at_a_neighbour"),
        pytest.param((0.3, 0.0008), (0.2, 0.0001), False, id="hardly_any_error_in_the_mean"),
        pytest.param((0.3, 0.03), (0.4, 0.005), False, id="explains_less_at_a_neighbour"),
        pytest.param((0.34, 0.02), (0.30, 0.017), True, id="both_numbers_are_lower_on_the_way_back"),
        pytest.param((0.34, 0.02), (0.335, 0.017), False, id="hardly_lower"),
        pytest.param((0.34, 0.02), (0.30, 0.021), False, id="explains_more_with_more_error_in_the_mean"),
        pytest.param((0.5, 0.25), (0.52, 0.26), True, id="errors_do_not_average_out"),
        pytest.param((0.524, 0.034), (0.758, 0.236), False, id="a_model_of_moved_weights"),
        pytest.param((1.2, 0.0001), (1.3, 0.0001), True, id="explains_nothing"),
        pytest.param((float("nan"), 0.0001), (1.3, 0.0001), True, id="not_a_number"),
    ],
)
def test_only_a_clearly_better_fit_at_a_neighbour_or_none_at_all_is_a_problem(own, other, refused):
    fits = [HookpointFit(f"layers.{n}", fvu, share, 32.0) for n, (fvu, share) in ((4, own), (5, other))]
    assert bool(problem_of(fits[0], fits[1:])) == refused


WORDS = {
    "module, not contribution": (
        ("9_mlp", "the MLP's output in block 9, after its norm"),
        ("9_mlp_module", "the MLP's output in block 9, before its norm"),
        "these latents fit the MLP's output in block 9 before its norm, not after",
    ),
    "gain": (
        ("9_mlp_norm_no_gain", "the MLP's normalised input in block 9, before the gain"),
        ("9_mlp_norm", "the MLP's normalised input in block 9, after the gain"),
        "these latents fit the MLP's normalised input in block 9 after the gain, not before",
    ),
    "input": (
        ("9", "the output of block 9"),
        ("8", "the output of block 8"),
        "these latents fit the input of block 9, which is the output of block 8, not its output",
    ),
    "above": (
        ("9", "the output of block 9"),
        ("10", "the output of block 10"),
        "these latents fit the output of block 10, the block above, not the output of block 9",
    ),
    "output": (
        ("9_resid_in", "the input of block 9"),
        ("10_resid_in", "the input of block 10"),
        "these latents fit the output of block 9, not its input",
    ),
    "scale": (
        ("9", "the output of block 9"),
        ("9_mlp_norm_no_gain", "the MLP's normalised input in block 9, before the gain"),
        "not the output of block 9, or its input is to be scaled, which its file does not say",
    ),
    "sibling": (
        ("9_attn", "attention's output in block 9"),
        ("9_mlp", "the MLP's output in block 9"),
        "these latents fit the MLP's output in block 9, not attention's output in block 9",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_the_reason_says_what_the_latents_fit_and_what_they_do_not(case):
    own, other, words = WORDS[case]
    fits = [
        HookpointFit("module", fvu, share, 32.0, name, name, place)
        for fvu, share, (name, place) in ((0.9, 0.2, own), (0.3, 0.001, other))
    ]
    assert words in problem_of(fits[0], fits[1:])


def test_an_l0_far_from_the_declared_one_is_a_problem_and_a_moderate_change_is_not():
    fit = HookpointFit("module", 0.3, 0.0005, 664.0)
    assert "664.0 of its latents fire on a token, where its file declares 12" in problem_of(fit, [], 12.0)
    assert problem_of(replace(fit, l0=24.0), [], 12.0) == problem_of(replace(fit, l0=6.0), [], 12.0) == ""
    assert problem_of(replace(fit, l0=0.0), [], 12.0)
    assert problem_of(fit, []) == ""


@pytest.mark.parametrize(("scale", "refused"), [(0.65, True), (0.86, False), (1.0, False), (1.25, False), (1.5, True)])
def test_reconstructions_that_are_far_too_long_or_short_are_a_problem(scale, refused):
    fit = HookpointFit("layers.4", 0.5, 0.0005, 32.0, best_scale=scale)
    words = f"its reconstructions would come nearest if they were scaled by {scale:.2f}: are the norms of its decoder"
    assert (words in problem_of(fit, [])) == bool(problem_of(fit, [])) == refused
    elsewhere = problem_of(replace(fit, fvu=0.9, mean_error_share=0.2), [fit])
    assert "it fits layers.4 clearly better" in elsewhere
    assert (
        f"There too its reconstructions would come nearest if they were scaled by {scale:.2f}" in elsewhere
    ) == refused


def test_where_nothing_fits_no_place_is_named():
    own, other = HookpointFit("layers.1", 9.0, 2.0, 32.0), HookpointFit("layers.2", 0.95, 0.1, 32.0)
    assert "nor at any hookpoint that was tried" in problem_of(own, [other])
    assert "it fits layers.2 clearly better" in problem_of(own, [replace(other, fvu=0.5)])


@pytest.mark.parametrize(("scale", "refused"), [(0.65, True), (1.34, False), (1.92, False), (3.0, True)])
def test_a_relu_sae_may_be_shrunk_by_its_penalty_but_not_be_too_long(scale, refused):
    fit = HookpointFit("layers.16", 0.67, 0.0027, 8.2, best_scale=scale)
    assert bool(problem_of(fit, [], may_shrink=True)) == refused
    assert bool(problem_of(fit, [])) == (scale != 1.34)


@pytest.mark.parametrize(
    ("activation", "relu"),
    [(Threshold.relu(3), True), (Threshold.of(torch.tensor([0.0, 0.0, 0.1])), False), (TopK(2), False)],
)
def test_a_relu_is_a_threshold_of_zero_everywhere(activation, relu):
    assert is_relu(activation) == relu


BADLY = "There too it fits badly, so look further: another layer, another model or another scale of its input?"


@pytest.mark.parametrize(
    ("share", "l0", "declared", "badly"),
    [(0.2051, 32.0, None, True), (0.0061, 32.0, None, False), (0.0061, 192.0, 32.0, True), (0.0061, 50.0, 32.0, False)],
)
def test_where_no_place_fits_well_the_best_one_is_not_said_to_be_its_own(share, l0, declared, badly):
    """The SAE of block 28 at 26 fits 27 better, and belongs at neither; vectors of twice the length are no layer's."""
    own, best = HookpointFit("layers.26", 0.9, 0.4758, 206.0), HookpointFit("layers.27", 0.665, share, l0)
    problem = problem_of(own, [best], declared)
    assert "it fits layers.27 clearly better" in problem
    assert problem.endswith(BADLY) == badly
