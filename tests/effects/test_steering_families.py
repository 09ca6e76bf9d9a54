"""With what a model keeps of earlier tokens, or without it, the steered text is the same in families of all kinds."""

import pytest
import torch
from every_family import WIDTH, tiny_config
from transformers import AutoModelForCausalLM

from stratalens.effects.continuation import Writing, continue_tokens
from stratalens.effects.steering import Addition, Steering
from stratalens.hookpoint import Hookpoint
from stratalens.saes.activations import TopK
from stratalens.saes.sae import Decoder, Sae
from stratalens.saes.steps import Linear, Normalise

PLACE = Hookpoint(2)
FAMILIES = ("gpt2", "opt", "bloom", "gpt_neox", "gemma3_text", "lfm2", "recurrent_gemma", "mamba", "rwkv")


def addition(step: Normalise | None) -> Addition:
    rows = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))
    steps = (*([] if step is None else [step]), Linear.of(rows, torch.zeros(4)))
    sae = Sae(WIDTH, steps, TopK(2), decoder=Decoder(rows, torch.zeros(WIDTH)))
    return Addition(PLACE, PLACE, sae, 2 * rows[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_does_not_depend_on_what_is_kept(family):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(family)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    prompt = torch.arange(3, 10)
    for step in (None, Normalise(centred=True), Normalise(centred=False)):
        texts = [
            continue_tokens(model, prompt, Writing(8, frozenset(), None, cache), Steering([addition(step)], [5]))
            for cache in (True, False)
        ]
        assert texts[0] == texts[1]
        assert len(texts[0]) == 8
    assert texts[0] != continue_tokens(model, prompt, Writing(8, frozenset()))
