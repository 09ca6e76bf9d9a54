"""Any model config leads to a model that runs or to a one-line error: no traceback, no hang, no code run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusal import named_error, refusal, with_options
from tiny import TINY_WIDTH, write_sae

from stratalens.config.validation import make_config
from stratalens.errors import LabelingError, ModelError
from stratalens.harvest.inputs import find_inputs
from stratalens.harvest.open_model import OpenModel, open_model
from stratalens.hookpoint import Hookpoint
from stratalens.labels.llm.local import LocalModel
from stratalens.models.model_config import load_config
from stratalens.progress import NoProgress

fuzzed = settings(
    max_examples=12, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 70)
    | st.sampled_from([2**40, 10**30, 0.5, -1.5, 1e30, float("nan"), "", "x", "float8_e4m3fn", [], [1], {}, {"a": 1}])
)
FOREIGN = {
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "torch_dtype": "os.system",
    "attn_implementation": "flash_attention_2",
    "layer_types": ["full_attention"],
    "rope_scaling": {"type": "yarn"},
    "text_config": {"model_type": "gpt2"},
    "auto_map": {"AutoConfig": "missing.Config"},
    "architectures": ["LlamaForCausalLM", 7],
}


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def changed(model: Path, **entries: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | entries))


@pytest.mark.parametrize("entries", [{}, {"rms_norm_eps": 1e-3}, {"rope_theta": 5e5}, {"unheard_of": [1]}])
def test_a_sound_config_of_a_model_opens(tiny_saes, small_texts, model, entries):
    changed(model, **entries)
    assert opened(model, tiny_saes, small_texts).norm_limits.keys() == {Hookpoint(0), Hookpoint(2)}


def opened(model: Path, saes: Path, texts: tuple[Path, Path]) -> OpenModel:
    """The model, loaded and looked at as at the start of a run."""
    config = make_config(
        **{"base_model": str(model), "sae_model": str(saes), "domain_data": texts[0], "general_data": texts[1]},
        **{"dtype": "float32", "allow_poor_fit": True},
    )
    return open_model(config, find_inputs(config, NoProgress()), NoProgress())


@fuzzed
@given(data=st.data())
def test_any_config_of_a_model_opens_or_is_a_named_error(tiny_model, tiny_saes, small_texts, model, data):
    shutil.copy(tiny_model / "config.json", model)
    names = sorted(json.loads((model / "config.json").read_text()))
    entries = st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=3)
    foreign = st.sampled_from(sorted(FOREIGN)).map(lambda name: {name: FOREIGN[name]})
    changed(model, **data.draw(entries | foreign))
    named_error(lambda: opened(model, tiny_saes, small_texts))


CONFIGS: dict[str, tuple[dict[str, object], str]] = {
    "a config without a width": ({"model_type": "llama", "hidden_size": None}, "model: "),
    "a config of no layers": ({"num_hidden_layers": 0}, "config.json is not that of a causal language model"),
    "a config of more layers than there are weights": ({"num_hidden_layers": 10**9}, "model: its config.json is not"),
    "weights of another width than the config says": ({"hidden_size": 64}, "SAE reads vectors of width 32, but"),
    "weights of another vocabulary than the config says": ({"vocab_size": 17}, "model: no usable Hugging Face model"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_model_whose_config_does_not_fit_is_refused(capsys, documented, tiny_arguments, model, case):
    entries, expected = CONFIGS[case]
    changed(model, **entries)
    line = refusal(with_options(tiny_arguments, {"base_model": str(model)}), capsys)
    assert expected in line
    documented("Base models", case, line)


def test_an_sae_that_does_not_fit_its_layer_is_refused(capsys, documented, tiny_arguments, tmp_path):
    tensors: dict[str, Any] = {"b_dec": torch.full((TINY_WIDTH,), 50.0)}
    write_sae(tmp_path / "saes" / "layers.2", **tensors)
    words = with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")})
    line = refusal([word for word in words if word != "--allow_poor_fit"], capsys)
    assert "the SAE of layers.2 does not fit: it explains nothing here (FVU " in line
    assert line.endswith("Check --base_model and --sae_model, or pass --allow_poor_fit")
    documented("SAE checkpoints", "an SAE that does not fit its layer", re.sub(r"FVU [0-9.]+", "FVU 9.87", line))


NUMBERS: dict[str, dict[str, object]] = {
    "layers": {"num_hidden_layers": 10**10},
    "layers of another family": {"model_type": "qwen2", "num_hidden_layers": 10_001},
    "layers below zero": {"num_hidden_layers": -(10**11)},
    "experts": {"num_local_experts": 10**6},
    "kinds of attention": {"model_type": "gpt_neo", "attention_types": [[["global"], 10**10]]},
    "a number far inside": {"text_config": {"x": [[{"y": 2**31 + 1}]]}},
    "a number of 4,000 digits": {"intermediate_size": 10**4000},
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_that_would_become_endless_lists_are_refused_before_they_do(monkeypatch, model, case):
    changed(model, **NUMBERS[case])
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_arguments, **_options: pytest.fail("read"))
    with pytest.raises(ModelError, match=r"its config.json is not that of a causal language model \(") as caught:
        load_config(str(model), ModelError)
    assert len(str(caught.value).removeprefix(str(model))) < 120
    with pytest.raises(LabelingError, match=r"its config.json is not that of a causal language model \("):
        LocalModel(str(model)).check()


def test_large_numbers_that_models_have_are_taken(model):
    sound = {"rope_theta": 10**11, "max_position_embeddings": 10_485_760, "vocab_size": 300_000}
    changed(model, **sound, vocab_size_per_layer_input=262_144, sliding_window=2**31 - 1)
    assert load_config(str(model), ModelError).vocab_size == 300_000


FETCHED = "kernels-community/flash-attn"
ATTENTIONS: list[tuple[dict[str, object], str | None]] = [
    ({}, None),
    ({"attn_implementation": "eager"}, "eager"),
    ({"attn_implementation": FETCHED}, None),
    ({"_attn_implementation": FETCHED}, None),
    ({"_attn_implementation_internal": FETCHED}, None),
    ({"attn_implementation": {"": FETCHED}}, None),
    ({"attn_implementation": "flash_attention_2"}, None),
    ({"attn_implementation": 5}, None),
]


@pytest.mark.parametrize(("entries", "taken"), ATTENTIONS)
def test_an_attention_that_would_be_fetched_gives_way_to_one_that_is_built_in(
    tiny_saes, small_texts, model, entries, taken
):
    changed(model, **entries)
    assert load_config(str(model), ModelError)._attn_implementation == taken
    network = opened(model, tiny_saes, small_texts).model
    assert network.config._attn_implementation == (taken or "sdpa")


def test_an_attention_in_a_part_of_a_config_is_not_fetched_either(model):
    text = json.loads((model / "config.json").read_text()) | {"_attn_implementation": FETCHED}
    (model / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    assert load_config(str(model), ModelError).get_text_config()._attn_implementation is None
