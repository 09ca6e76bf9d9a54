"""Small random SAEs of several kinds, and passages of random tokens, for tests of ablations."""

import numpy as np
import torch

from stratalens.corpus.populations import Population
from stratalens.effects.text import EffectText, effect_text
from stratalens.evidence.passages import Passage, PassageLocation
from stratalens.saes.activations import Activation, Gated, Threshold, TopK
from stratalens.saes.sae import Decoder, Sae
from stratalens.saes.steps import Centre, Linear, Normalise, Rescale, Step, Subtract

WIDTH, LATENTS = 32, 48


def random_sae(kind: str, width: int = WIDTH, seed: int = 0) -> Sae:
    """An SAE: `topk`, `jumprelu`, `gated`, or one of them with a scaling of its input, such as `topk layer_norm`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    activation, _, scaling = kind.partition(" ")
    activations: dict[str, Activation] = {
        "topk": TopK(6),
        "jumprelu": Threshold.of(random(LATENTS).abs()),
        "gated": Gated(random(LATENTS), (0.1 * random(LATENTS)).exp(), 0.1 * random(LATENTS)),
    }
    scalings: dict[str, list[Step]] = {
        "": [],
        "layer_norm": [Normalise(centred=True)],
        "rms": [Normalise(centred=False)],
        "factor": [Rescale(3.0, 1 / 3)],
        "centre": [Centre()],
    }
    bias = random(width)
    steps = (*scalings[scaling], Subtract(bias), Linear.of(random(LATENTS, width) / width**0.5, 0.1 * random(LATENTS)))
    return Sae(width, steps, activations[activation], Decoder(random(LATENTS, width), bias))


def random_text(documents: int = 12, vocabulary: int = 300, control: int = 3) -> EffectText:
    """Passages of random tokens of several lengths, half of the documents domain, two passages each; some are terms."""
    rng = np.random.default_rng(5)
    passages = []
    for number in range(2 * documents):
        length = int(rng.integers(5, 24))
        ids = rng.integers(5, vocabulary, length)
        side = Population.numbered(0 if number < documents else 2)
        offsets = np.zeros((length, 2), np.int64)
        passages.append(Passage(PassageLocation(number, 0, length), number // 2, side, "", ids, offsets))
    of_term = rng.random(sum(len(passage.token_ids) for passage in passages)) < 0.2
    return effect_text(passages, of_term, special_ids={0, 1}, control_documents=control, seed=0)
