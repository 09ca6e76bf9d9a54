"""Steering the embedded model: a control vector that is read back does the same, and the text goes where it pushes."""

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from stratalens.commands.steer import Steered, steer
from stratalens.config.steer_options import SteerConfig, parse_features
from stratalens.models.loading import choose_dtype

PROMPTS = ("My sister called me yesterday and said", "The weather in the mountains")
FEATURE = "22/1909"
"""Paying and charging."""
TOKENS = 25


@pytest.fixture(scope="module")
def steered(embedded_run, tmp_path_factory) -> tuple[Steered, Path]:
    path = tmp_path_factory.mktemp("export") / "vector.gguf"
    options = {"prompt": PROMPTS, "strength": 4, "max_new_tokens": TOKENS, "export": str(path)}
    return steer(embedded_run, parse_features([FEATURE]), SteerConfig.model_validate(options)), path


def test_the_exported_vector_does_what_steering_does(steered, embedded_model, real_tokenizer):
    """By transformers' own generation, with a hook that adds what the file holds."""
    own, path = steered
    (tensor,) = GGUFReader(path).tensors
    assert tensor.name == "direction.22"
    vector = torch.from_numpy(tensor.data.copy())
    dtype = choose_dtype("auto", torch.device("cpu"))
    model = AutoModelForCausalLM.from_pretrained(embedded_model, dtype=dtype).eval()

    def add(_module: object, _args: object, output: torch.Tensor) -> torch.Tensor:
        added = (output.float() + vector).to(output.dtype)
        if output.shape[1] > 1:  # the prompt, with position 0
            added[:, 0] = output[:, 0]
        return added

    handle = model.model.layers[22].register_forward_hook(add)
    for text in own.texts:
        ids = real_tokenizer(text.prompt, return_tensors="pt")["input_ids"]
        whole = model.generate(ids, max_new_tokens=TOKENS, do_sample=False, pad_token_id=0)
        assert real_tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True) == text.steered.text
    handle.remove()


def test_texts_differ_and_have_perplexities(steered):
    own, _ = steered
    assert own.features[0].mean_activation > 0
    for text in own.texts:
        assert text.steered.text != text.plain.text
        assert 1 < text.plain.perplexity < 20
        assert text.steered.perplexity > 1
