"""What an ablation removes equals an independent path: decode the latents with some at zero, and add the error term."""

import numpy as np
import pytest
import torch
from effect_parts import LATENTS, WIDTH, random_sae

from stratalens.effects.ablations import EncodedTokens, LatentSet, RandomReplacement
from stratalens.effects.matched import NormMatcher
from stratalens.saes.activations import SparseLatents
from stratalens.saes.contributions import unit_scale
from stratalens.saes.sae import Decoder, Sae

KINDS = ("topk", "jumprelu", "gated", "topk layer_norm", "jumprelu rms", "gated factor", "topk centre")
TOKENS = 40


def encoded(sae: Sae, seed: int = 1, offset: float = 0.7) -> tuple[torch.Tensor, EncodedTokens]:
    x = torch.randn(TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)) * 5 + offset
    row = torch.zeros(TOKENS, dtype=torch.long)
    return x, EncodedTokens(sae.encode(x), unit_scale(sae, x), row, torch.arange(TOKENS))


def without(latents: SparseLatents, numbers: list[int]) -> SparseLatents:
    kept = ~torch.isin(latents.latent, torch.tensor(numbers))
    return SparseLatents(*(part[kept] for part in latents))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("numbers", [[3], [0, 7, 11, 30, 31], list(range(LATENTS))])
def test_removal_equals_decoding_with_the_latents_at_zero_plus_the_error_term(kind, numbers):
    sae = random_sae(kind)
    x, tokens = encoded(sae)
    assert torch.isin(torch.tensor(numbers), tokens.latents.latent).any()
    error = x - sae.decode(tokens.latents, x)
    expected = sae.decode(without(tokens.latents, numbers), x) + error
    ablated = x - LatentSet(sae, tuple(numbers)).removed(tokens)
    assert (ablated - expected).norm(dim=-1).max() <= 1e-5 * x.norm(dim=-1).min()


def test_a_transcoder_removes_from_what_it_reconstructs_and_not_from_what_it_reads():
    sae = random_sae("topk")
    decoder = sae.decoder
    rows = torch.randn(LATENTS, 20, generator=torch.Generator().manual_seed(3))
    skip = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(4))
    transcoder = Sae(sae.d_model, sae.steps, sae.activation, type(decoder)(rows, torch.ones(20), skip))
    x, tokens = encoded(transcoder)
    target = torch.randn(TOKENS, 20, generator=torch.Generator().manual_seed(5))
    error = target - transcoder.decode(tokens.latents, x)
    expected = transcoder.decode(without(tokens.latents, [1, 2, 3]), x) + error
    ablated = target - LatentSet(transcoder, (1, 2, 3)).removed(tokens)
    assert torch.allclose(ablated, expected, atol=1e-5)


def test_a_dense_latent_is_set_to_its_mean():
    sae = random_sae("jumprelu")
    _, tokens = encoded(sae)
    means = {4: 0.5}
    latents = torch.zeros(TOKENS, LATENTS)
    latents[tokens.latents.token, tokens.latents.latent] = tokens.latents.value
    changed = latents.clone()
    changed[:, 4], changed[:, 9] = 0.5, 0.0
    expected = (latents - changed) @ sae.decoder.weight
    assert torch.allclose(LatentSet(sae, (9, 4), means).removed(tokens), expected, atol=1e-5)


def test_a_token_without_the_latents_loses_exactly_nothing():
    sae = random_sae("topk")
    _, tokens = encoded(sae)
    for ablation in (LatentSet(sae, (3,)), RandomReplacement(LatentSet(sae, (3,)), 0, (0, "1"))):
        silent = ~ablation_of(ablation).fires(tokens)
        assert silent.any()
        assert not ablation.removed(tokens)[silent].any()


def ablation_of(ablation: LatentSet | RandomReplacement) -> LatentSet:
    return ablation if isinstance(ablation, LatentSet) else ablation.of


@pytest.mark.parametrize("kind", ["topk", "gated factor", "jumprelu rms"])
def test_random_directions_remove_the_same_norm_at_each_token_in_another_direction(kind):
    sae = random_sae(kind)
    _, tokens = encoded(sae)
    own = LatentSet(sae, tuple(range(0, LATENTS, 3)))
    removed = own.removed(tokens)
    draws = [RandomReplacement(own, draw, (0, "1")).removed(tokens) for draw in range(5)]
    for random in draws:
        assert torch.allclose(random.norm(dim=-1), removed.norm(dim=-1), rtol=1e-4)
        cosine = torch.cosine_similarity(random, removed, dim=-1)[removed.norm(dim=-1) > 0]
        assert cosine.abs().mean() < 0.5
    assert not torch.allclose(draws[0], draws[1])
    assert torch.equal(draws[0], RandomReplacement(own, 0, (0, "1")).removed(tokens))
    assert not torch.allclose(draws[0], RandomReplacement(own, 0, (1, "1")).removed(tokens))


def test_the_direction_of_a_latent_is_the_same_at_all_tokens():
    sae = random_sae("topk")
    _, tokens = encoded(sae)
    removed = RandomReplacement(LatentSet(sae, (3,)), 0, (0, "1")).removed(tokens)
    units = torch.nn.functional.normalize(removed[removed.norm(dim=-1) > 0], dim=-1)
    assert len(units) > 1
    assert torch.allclose(units, units[:1].expand_as(units), atol=1e-5)


def matcher(own: tuple[int, ...], kind: str = "topk", live: np.ndarray | None = None) -> NormMatcher:
    sae = random_sae(kind)
    text = []
    for seed in range(8):
        _, tokens = encoded(sae, seed, offset=0.5 * (seed % 2))
        text.append((tokens, np.full(TOKENS, seed % 2 == 0)))
    live = np.ones(LATENTS, bool) if live is None else live
    return NormMatcher(sae, LatentSet(sae, own), text, live, (0, "1"))


def test_norms_of_single_latents_are_what_they_remove():
    found = matcher((3,))
    for latent in (0, 5, 17):
        assert np.allclose(found.norms[:, latent], found.joint_norm(LatentSet(found.sae, (latent,))), rtol=1e-5)


def test_matched_sets_remove_the_norm_of_the_set_on_each_side_and_have_none_of_its_latents():
    found = matcher((3, 8, 20))
    sets = [found.draw(number) for number in range(10)]
    for one in sets:
        assert one is not None
        assert not {3, 8, 20} & set(one.latents)
        assert 0.8 <= one.domain_ratio <= 1.25
        assert 0.8 <= one.general_ratio <= 1.25
        measured = found.joint_norm(LatentSet(found.sae, one.latents)) / found.joint_norm(found.own)
        assert np.allclose(measured, (one.domain_ratio, one.general_ratio))
    assert len({one.latents for one in sets if one}) > 5
    assert sets[0] == found.draw(0)


def test_there_is_no_matched_set_without_other_live_latents():
    live = np.zeros(LATENTS, bool)
    live[[3, 8]] = True
    assert matcher((3, 8), live=live).draw(0) is None


def test_where_every_other_latent_removes_too_much_the_least_of_them_is_the_set():
    found = matcher((3,))
    whole = found.sae
    rows = whole.decoder.weight.clone()
    rows[3] *= 1e-3
    small = Sae(whole.d_model, whole.steps, whole.activation, Decoder(rows, whole.decoder.bias))
    tiny = NormMatcher(small, LatentSet(small, (3,)), found.text, found.live, found.identity)
    one = tiny.draw(0)
    assert one is not None
    assert len(one.latents) == 1
    assert one.domain_ratio > 1.25
