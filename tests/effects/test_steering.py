"""What steering adds is what an independent hook sees, and what a model writes with it keeps its laws."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_layouts import write_layout
from safetensors.torch import load_file
from tiny import MARKED_TOKEN, write_sae
from transformers import AutoModelForCausalLM

from stratalens.config.options import RunConfig
from stratalens.config.steer_options import WeightedFeature
from stratalens.corpus import Populations, Side
from stratalens.effects.continuation import Sampling, Writing, continue_tokens, perplexity
from stratalens.effects.steering import Steering, additions_of, mean_when_active
from stratalens.errors import ModelError
from stratalens.harvest import FeatureStats
from stratalens.harvest.inputs import ModelInputs, find_model_inputs
from stratalens.hookpoint import Hookpoint
from stratalens.progress import NoProgress
from stratalens.saes.activations import SparseLatents

BLOCK = Hookpoint(2)
FEATURE = WeightedFeature(BLOCK, 5)
PROMPT = f"the bank {MARKED_TOKEN} rate of a loan"
WRITING = Writing(12, frozenset())


def inputs_of(model: Path, saes: Path) -> ModelInputs:
    options = {"base_model": str(model), "sae_model": str(saes), "dtype": "float32", "output_dir": "unused"}
    return find_model_inputs(RunConfig.model_validate(options), NoProgress())


@pytest.fixture(scope="module")
def inputs(tiny_model, tiny_saes) -> ModelInputs:
    return inputs_of(tiny_model, tiny_saes)


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompt(inputs) -> torch.Tensor:
    return torch.from_numpy(inputs.cutter.prompt(PROMPT))


def steering_of(
    inputs: ModelInputs, strength: float, means: Mapping[WeightedFeature, float] = {FEATURE: 2.0}
) -> Steering:
    return Steering(additions_of(list(means), means, inputs.saes, strength), inputs.cutter.special_ids)


@torch.inference_mode()
def vectors_in(model, module, ids: torch.Tensor) -> torch.Tensor:
    """Outputs of a module of the plain model, by a hook of PyTorch."""
    taken = []
    handle = module.register_forward_hook(
        lambda _module, _args, output: taken.append(output[0] if isinstance(output, tuple) else output)
    )
    model(input_ids=ids[None])
    handle.remove()
    return taken[0].reshape(len(ids), -1)


def steered_vectors(model, steering: Steering, prompt: torch.Tensor, next_module) -> tuple[list[int], torch.Tensor]:
    """What was written, and what the next module reads meanwhile at each position."""
    taken = []
    handle = next_module.register_forward_pre_hook(lambda _module, args: taken.append(args[0][0].clone()))
    written = continue_tokens(model, prompt, WRITING, steering)
    handle.remove()
    return written, torch.cat(taken)


def test_the_vector_is_added_at_each_kept_position_of_prompt_and_continuation(inputs, model, prompt, tiny_saes):
    written, steered = steered_vectors(model, steering_of(inputs, -3.0), prompt, model.model.layers[3])
    ids = torch.cat([prompt, torch.tensor(written[:-1])])  # the last token is written and not read
    plain = vectors_in(model, model.model.layers[2], ids)
    row = load_file(tiny_saes / "layers.2" / "sae.safetensors")["W_dec"][FEATURE.feature]
    kept = torch.tensor([at > 0 and number not in inputs.cutter.special_ids for at, number in enumerate(ids.tolist())])
    assert (len(written), int((~kept).sum())) == (12, 2), "position 0 and the special token of the prompt"
    expected = torch.where(kept[:, None], -3.0 * 2.0 * row, 0.0)
    assert steered.shape == plain.shape
    torch.testing.assert_close(steered - plain, expected, rtol=1e-4, atol=2e-4)  # the cache rounds otherwise


@pytest.mark.parametrize("layout", ["llamascopium", "llama_scope"])
def test_scalings_of_the_input_are_undone(tmp_path, tiny_model, model, layout):
    """Added is by how much the SAE's own reconstruction changes when the activation grows."""
    write_layout(tmp_path / "saes", layout)
    inputs = inputs_of(tiny_model, tmp_path / "saes")
    prompt = torch.from_numpy(inputs.cutter.prompt(PROMPT))
    written, steered = steered_vectors(model, steering_of(inputs, 3.0), prompt, model.model.layers[3])
    plain = vectors_in(model, model.model.layers[2], torch.cat([prompt, torch.tensor(written[:-1])]))
    sae = inputs.saes[BLOCK].load()
    more, tokens = torch.full((len(plain),), 6.0), torch.arange(len(plain))
    both = [SparseLatents(tokens, torch.full_like(tokens, FEATURE.feature), value) for value in (more, 0 * more)]
    change = sae.decode(both[0], plain) - sae.decode(both[1], plain)
    kept = [at for at, number in enumerate([*prompt.tolist(), *written[:-1]]) if at and number < 298]
    assert len(kept) == 19
    torch.testing.assert_close((steered - plain)[kept], change[kept], rtol=1e-4, atol=2e-4)
    is_constant = additions_of([FEATURE], {FEATURE: 1.0}, inputs.saes, 1.0)[0].is_constant
    assert is_constant == (layout == "llama_scope")


def test_a_transcoder_adds_where_it_reconstructs(tmp_path, tiny_model, model):
    """It reads what the MLP reads, and gives what the MLP gives."""
    write_sae(tmp_path / "saes" / "layers.1.mlp", seed=4, config={"transcode": True})
    inputs = inputs_of(tiny_model, tmp_path / "saes")
    (own,) = inputs.saes
    assert inputs.saes[own].target == Hookpoint(1, "mlp") != own
    chosen = WeightedFeature(own, 7)
    prompt = torch.from_numpy(inputs.cutter.prompt("the bank"))
    written, steered = steered_vectors(model, steering_of(inputs, 2.0, {chosen: 1.5}), prompt, model.model.layers[2])
    plain = vectors_in(model, model.model.layers[1], torch.cat([prompt, torch.tensor(written[:-1])]))
    row = load_file(tmp_path / "saes" / "layers.1.mlp" / "sae.safetensors")["W_dec"][7]
    torch.testing.assert_close((steered - plain)[1:], (3.0 * row).expand_as(plain[1:]), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(steered[0], plain[0], rtol=1e-4, atol=2e-4)


def test_weights_and_strengths_are_linear(inputs):
    one, two, low = (WeightedFeature(BLOCK, 5, 1.0), WeightedFeature(BLOCK, 9, -0.5), WeightedFeature(Hookpoint(0), 3))
    means = {one: 2.0, two: 3.0, low: 1.0}

    def constant(features: list[WeightedFeature], strength: float) -> dict[Hookpoint, torch.Tensor]:
        return {own.target: own.constant() for own in additions_of(features, means, inputs.saes, strength)}

    together = constant([two, low, one], 4.0)
    assert list(together) == [Hookpoint(0), BLOCK]
    torch.testing.assert_close(together[BLOCK], 4 * (constant([one], 1.0)[BLOCK] + constant([two], 1.0)[BLOCK]))
    torch.testing.assert_close(together[Hookpoint(0)], -2 * constant([low], -2.0)[Hookpoint(0)])


@pytest.mark.parametrize("sampling", [None, Sampling(3, 1.0)])
def test_strength_0_writes_the_plain_text(inputs, model, prompt, sampling):
    writing = WRITING._replace(sampling=sampling)
    plain = continue_tokens(model, prompt, writing)
    assert continue_tokens(model, prompt, writing, steering_of(inputs, 0.0)) == plain
    assert continue_tokens(model, prompt, writing, steering_of(inputs, 30.0)) != plain


@pytest.mark.parametrize("sampling", [None, Sampling(3, 1.0)])
def test_the_text_is_the_same_with_and_without_a_cache(inputs, model, prompt, sampling):
    for strength in (0.0, 10.0):
        texts = [
            continue_tokens(model, prompt, Writing(30, frozenset(), sampling, cache), steering_of(inputs, strength))
            for cache in (True, False)
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 30


def test_the_greedy_text_is_what_transformers_writes(model, prompt):
    by_library = model.generate(prompt[None], max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=1)[
        0, len(prompt) :
    ]
    assert continue_tokens(model, prompt, Writing(20, frozenset())) == by_library.tolist()


def test_a_seed_decides_what_is_drawn(model, prompt):
    def drawn(seed: int, temperature: float = 1.0) -> list[int]:
        return continue_tokens(model, prompt, WRITING._replace(sampling=Sampling(seed, temperature)))

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 3
    assert drawn(1, temperature=1e-6) == continue_tokens(model, prompt, WRITING)


def test_tokens_are_drawn_as_often_as_their_probability_says(model, prompt):
    with torch.inference_mode():
        expected = torch.softmax(model(input_ids=prompt[None]).logits[0, -1] / 2, 0)
    one = Writing(1, frozenset())
    drawn = [continue_tokens(model, prompt, one._replace(sampling=Sampling(seed, 2.0)))[0] for seed in range(300)]
    likely = int(expected.argmax())
    share, error = drawn.count(likely) / 300, math.sqrt(float(expected[likely]) / 300)
    assert abs(share - float(expected[likely])) < 4 * error


def test_a_text_ends_before_a_token_that_ends_texts(model, prompt):
    done: list[int] = []
    plain = continue_tokens(model, prompt, WRITING)
    ended = continue_tokens(model, prompt, Writing(12, frozenset([plain[4]])), done=done.append)
    assert ended == plain[: plain.index(plain[4])]
    assert sum(done) == 12
    assert continue_tokens(model, prompt, Writing(12, frozenset(range(300)))) == []
    assert perplexity(model, prompt, []) is None


def test_perplexity_is_of_the_continuation_given_the_prompt(model, prompt):
    written = [40, 41, 42]
    with torch.inference_mode():
        logits = model(input_ids=torch.cat([prompt, torch.tensor(written)])[None]).logits[0].double()
    losses = [-logits[len(prompt) + at - 1].log_softmax(0)[token] for at, token in enumerate(written)]
    assert perplexity(model, prompt, written) == pytest.approx(math.exp(sum(map(float, losses)) / 3), rel=1e-5)


def test_a_push_beyond_all_numbers_is_told(inputs, model, prompt):
    with pytest.raises(ModelError, match=r"gives no numbers .* lower --strength"):
        continue_tokens(model, prompt, WRITING, steering_of(inputs, 1e39))


def test_the_mean_is_over_the_positions_of_domain_text_at_which_a_feature_fires():
    populations = Populations(("news", "mail"))
    fired, total = np.zeros((len(populations), 2), np.int64), np.zeros((len(populations), 2))
    for number in populations.where(side=Side.DOMAIN):
        fired[number, 0], total[number, 0] = 1 + number, 10.0
    fired[populations.where(side=Side.GENERAL)[0], 1] = 5
    none = FeatureStats.empty(len(populations)).for_latents(np.array([3, 8]))
    stats = replace(none, positions_fired=fired, activation_sum=total)
    assert mean_when_active(stats, populations, 3) == 40.0 / fired[:, 0].sum()
    assert mean_when_active(stats, populations, 8) is None, "it fires on general text only"
    assert mean_when_active(stats, populations, 4) is None, "it never fires"
