"""Small real transformers in which it is known by construction what each latent of an SAE does.

All directions are orthogonal. Tokens of the domain are embedded with three of them: two that the head reads as "a token
of the domain comes next", and the decoy, which nothing after the embeddings reads or writes. The texts are sampled from
the model, so that what it predicts is right. A large direction that all tokens share keeps the norm of the vectors, and
with it what RMSNorm does, nearly the same without the decoy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from stratalens.corpus.populations import Half, Population, Side
from stratalens.effects.text import EffectText, effect_text
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.hookpoint import Hookpoint
from stratalens.saes.activations import Threshold
from stratalens.saes.probe import Probe
from stratalens.saes.sae import Decoder, Sae
from stratalens.saes.steps import Linear

WIDTH, BLOCKS, VOCABULARY = 32, 3, 48
SPECIAL_ID = 0
DOMAIN_TOKENS = 12
"""The tokens 1 to 12 are those of the domain."""
PLACE = Hookpoint(1)
CARRIER, DECOY, SECOND, EVERYWHERE = range(4)
"""Latents. The carrier and a second one say that a token of the domain comes next; the decoy fires on the domain and
does nothing; one that fires everywhere says which of some tokens come next."""
LATENTS = 10
"""The others fire on some tokens, whatever their side."""
SHARED = 10.0
"""Length of the direction that all tokens share."""
STAY, ENTER = 0.98, 0.01
"""About how often a token of the domain follows one, or another token."""
LENGTH = 22
"""Tokens of a document, with the special one."""


@dataclass(frozen=True)
class PlantedModel:
    """A model, an SAE whose latents are its directions, and text that it wrote."""

    model: LlamaForCausalLM
    probe: Probe[Sae]
    text: EffectText


def planted_model(seed: int, *, documents: int = 36, control: int = 20) -> PlantedModel:
    """Another model, SAE and text for each seed.

    Args:
        seed: the carrier does between half and three quarters of what keeps the text in the domain.
        documents: of a side.
        control: how many of these controls are measured on.
    """
    generator = torch.Generator().manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=BLOCKS,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    directions = torch.linalg.qr(_random(generator, WIDTH, WIDTH))[0].T
    _plant(model, directions, generator)
    rows = directions[:LATENTS]
    threshold = Threshold.of(torch.full((LATENTS,), 0.3))
    sae = Sae(WIDTH, (Linear.of(rows.clone(), torch.zeros(LATENTS)),), threshold, Decoder(rows, torch.zeros(WIDTH)))
    text = _written(model, documents, control, generator)
    return PlantedModel(model, Probe(PLACE, PLACE, sae, float("inf")), text)


def _random(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _plant(model: LlamaForCausalLM, directions: Float[Tensor, "direction d_model"], generator: torch.Generator) -> None:
    """Set all weights."""
    decoy = directions[DECOY]
    without_decoy = torch.eye(WIDTH) - torch.outer(decoy, decoy)
    for name, weight in model.model.layers.named_parameters():
        if "norm" in name:
            continue
        drawn = 0.5 * _random(generator, *weight.shape) / weight.shape[1] ** 0.5
        writes = "o_proj" in name or "down_proj" in name
        weight.copy_(0.3 * without_decoy @ drawn if writes else drawn @ without_decoy)
    in_domain = torch.arange(VOCABULARY) <= DOMAIN_TOKENS
    in_domain[SPECIAL_ID] = False
    amounts = torch.zeros(VOCABULARY, WIDTH)
    amounts[:, EVERYWHERE + 1 : -1] = 0.25 * _random(generator, VOCABULARY, WIDTH - EVERYWHERE - 2)
    for latent in range(EVERYWHERE, LATENTS):
        amounts[:, latent] = torch.rand(VOCABULARY, generator=generator) < 0.4
    uneven = 0.8 + 0.4 * torch.rand(VOCABULARY, LATENTS, generator=generator)
    amounts[:, [CARRIER, DECOY, SECOND]] = in_domain.float()[:, None]
    amounts[:, :LATENTS] *= uneven
    amounts[:, -1] = SHARED
    model.model.embed_tokens.weight.copy_(amounts @ directions)
    model.lm_head.weight.copy_(_head(in_domain, generator) @ directions)


def _head(in_domain: Tensor, generator: torch.Generator) -> Float[Tensor, "token direction"]:
    """What the head reads of each direction, for vectors as long as the shared one."""
    unit = SHARED / WIDTH**0.5
    others = VOCABULARY - 1 - DOMAIN_TOKENS
    stay, enter = (np.log(share / (1 - share) * others / DOMAIN_TOKENS) for share in (STAY, ENTER))
    share = 0.5 + 0.25 * torch.rand(1, generator=generator).item()
    read = 0.5 * _random(generator, VOCABULARY, WIDTH)
    read[:, EVERYWHERE] *= 4
    read[:, [CARRIER, DECOY, SECOND, -1]] = 0
    read[in_domain, CARRIER] = share * (stay - enter) * unit
    read[in_domain, SECOND] = (1 - share) * (stay - enter) * unit
    read[in_domain, -1] = enter * unit / SHARED
    read[SPECIAL_ID, -1] = -20 * unit / SHARED
    return read


def _written(model: LlamaForCausalLM, documents: int, control: int, generator: torch.Generator) -> EffectText:
    """Documents that the model writes, after a first token of the domain in one half and another in the other."""
    first = torch.randint(1, DOMAIN_TOKENS + 1, (documents,), generator=generator)
    other = torch.randint(DOMAIN_TOKENS + 1, VOCABULARY, (documents,), generator=generator)
    ids = torch.stack([torch.full((2 * documents,), SPECIAL_ID), torch.cat([first, other])], dim=1)
    while ids.shape[1] < LENGTH:
        following = model(input_ids=ids, use_cache=False).logits[:, -1].softmax(-1)
        ids = torch.cat([ids, torch.multinomial(following, 1, generator=generator)], dim=1)
    passages = [_passage(number, own.numpy(), Side(int(number >= documents))) for number, own in enumerate(ids)]
    return effect_text(passages, None, {SPECIAL_ID}, control, seed=0)


def _passage(number: int, ids: Int[np.ndarray, "seq"], side: Side) -> Passage:
    population = Population(side, Half.CONFIRMATION)
    offsets = np.zeros((len(ids), 2), np.int64)
    return Passage(PassageLocation(number, 0, 1), number, population, "", ids, offsets)
