"""The logit lens equals final norm and unembedding by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from threads import one_thread
from tiny import TINY_WIDTH
from torch import nn
from transformers import BioGptConfig, BioGptForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from stratalens.errors import ModelError
from stratalens.evidence.logit_lens import (
    TOKENS_SHOWN,
    Head,
    baseline,
    feature_lenses,
    layer_lenses,
    load_head,
)
from stratalens.hookpoint import Hookpoint
from stratalens.models.source import ModelSource

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def directions(count: int, width: int = TINY_WIDTH, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def source_of(directory: Path) -> ModelSource:
    return ModelSource(str(directory), "tiny", None, num_layers=4, d_model=TINY_WIDTH, digest="")


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows at a length of the square root of their width."""
    return rows / rows.norm(dim=1, keepdim=True) * rows.shape[1] ** 0.5


def test_logits_of_a_llama_are_its_norm_and_unembedding_by_hand(tiny_model, tmp_path):
    model = LlamaForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.norm.weight.copy_(torch.linspace(0.5, 2, TINY_WIDTH))
    model.save_pretrained(tmp_path)
    head = load_head(source_of(tmp_path), CPU, torch.float32)
    rows = unit(directions(5))
    normed = rows / torch.sqrt(rows.square().mean(1, keepdim=True) + model.config.rms_norm_eps)
    expected = (normed * model.model.norm.weight) @ model.lm_head.weight.T
    assert torch.allclose(head.logits(directions(5)), expected, atol=1e-5)


def test_the_bias_of_a_layer_norm_is_subtracted(tmp_path):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=TINY_WIDTH, n_layer=2, n_head=2, vocab_size=50, n_positions=16, bos_token_id=0, eos_token_id=0
        )
    )
    with torch.no_grad():
        model.transformer.ln_f.weight.copy_(torch.linspace(0.5, 2, TINY_WIDTH))
        model.transformer.ln_f.bias.copy_(10 * torch.randn(TINY_WIDTH))
    model.save_pretrained(tmp_path)
    head = load_head(source_of(tmp_path), CPU, torch.float32)
    rows = unit(directions(5))
    centred = rows - rows.mean(1, keepdim=True)
    normed = centred / torch.sqrt(centred.square().mean(1, keepdim=True) + 1e-5)
    expected = (normed * model.transformer.ln_f.weight) @ model.lm_head.weight.T
    assert torch.allclose(head.logits(directions(5)), expected, atol=1e-4)


def random_head(vocabulary: int = 200) -> Head:
    torch.manual_seed(1)
    norm = nn.LayerNorm(TINY_WIDTH)
    nn.init.normal_(norm.bias)
    return Head(norm, nn.Linear(TINY_WIDTH, vocabulary, bias=False))


def test_the_length_of_a_direction_does_not_matter_and_its_sign_does():
    head, rows = random_head(), directions(4)
    assert torch.allclose(head.logits(rows), head.logits(1000 * rows), atol=1e-4)
    assert torch.allclose(head.logits(rows), -head.logits(-rows), atol=1e-4)
    assert not head.logits(torch.zeros(1, TINY_WIDTH)).any()


def test_the_baseline_is_mean_and_deviation_over_the_directions():
    head, rows = random_head(), directions(300)
    base = baseline(head, rows)
    logits = head.logits(rows)
    assert torch.allclose(base.mean, logits.mean(0), atol=1e-5)
    assert torch.allclose(base.deviation, logits.std(0, correction=0), atol=1e-5)


def test_tokens_shown_stand_out_most_on_either_side():
    head, rows = random_head(), directions(300)
    features = [7, 0, 299]
    lenses = feature_lenses(head, rows, features, lambda ids: f"t{ids[0]}")
    logits = head.logits(rows)
    deviation = (logits - logits.mean(0)) / logits.std(0, correction=0)
    assert len(lenses) == 3
    for feature, lens in zip(features, lenses, strict=True):
        order = deviation[feature].argsort().tolist()
        assert [one.token for one in lens.suppressed] == [f"t{at}" for at in order[:TOKENS_SHOWN]]
        assert [one.token for one in lens.promoted] == [f"t{at}" for at in order[::-1][:TOKENS_SHOWN]]
        assert not {one.token for one in lens.promoted} & {one.token for one in lens.suppressed}
        for one in (*lens.promoted, *lens.suppressed):
            assert one.logit == pytest.approx(float(logits[feature, int(one.token[1:])]), abs=1e-4)
            assert one.deviation == pytest.approx(float(deviation[feature, int(one.token[1:])]), abs=1e-2)
    assert feature_lenses(head, rows, [], lambda ids: "") == []


def test_a_direction_that_points_at_a_token_promotes_it_and_its_opposite_suppresses_it():
    head = random_head()
    with torch.no_grad():
        target = next(head.unembedding.parameters())[42].clone()
    rows = torch.cat([target[None], -target[None], directions(300)])
    aligned, opposite = feature_lenses(head, rows, [0, 1], lambda ids: str(ids[0]))
    assert aligned.promoted[0].token == "42"
    assert opposite.suppressed[0].token == "42"


def test_every_layer_gets_lenses_with_text_tokens(tiny_model, tokenizer):
    first, last = Hookpoint(0), Hookpoint(2)
    rows = {first: directions(64), last: directions(64, seed=2)}
    found = layer_lenses(
        source_of(tiny_model), rows.__getitem__, {first: [1, 5], last: [3]}, tokenizer.decode, CPU, torch.float32
    )
    assert {layer: len(lenses) for layer, lenses in found.items()} == {first: 2, last: 1}
    vocabulary = {tokenizer.decode([n]) for n in range(len(tokenizer))}
    assert {one.token for one in found[first][0].promoted} <= vocabulary


def test_a_model_with_an_unknown_final_norm_has_no_lens(tmp_path):
    sizes = {"hidden_size": TINY_WIDTH, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    BioGptForCausalLM(BioGptConfig(vocab_size=50, max_position_embeddings=16, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="tiny: no final norm of a known name"):
        load_head(source_of(tmp_path), CPU, torch.float32)


def test_without_features_no_head_is_loaded():
    nowhere = source_of(Path("no_such_model"))
    assert layer_lenses(nowhere, lambda _place: directions(4), {}, lambda ids: "", CPU, torch.float32) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(value):
    head = random_head()
    with torch.no_grad():
        next(head.unembedding.parameters())[17] = value
    with pytest.raises(ModelError, match="logits that are not finite"):
        feature_lenses(head, directions(300), [0], lambda ids: "")
