"""Placement of weights on GPUs that pretend to be there: one where they fit, else several, never the host."""

import pytest
import torch
from pretend_gpus import pretend_gpus
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from stratalens.errors import ModelError
from stratalens.models import loading
from stratalens.models.loading import load_model
from stratalens.models.placement import Placement, TooLarge, placement_options, require_on_gpus

CUDA = torch.device("cuda")
CONFIG = LlamaConfig(
    vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=8, num_attention_heads=4, pad_token_id=1
)
TOO_LARGE = TooLarge("tiny", "use another", ModelError)


def bytes_of(size: int) -> int:
    with torch.device("meta"):
        return size * sum(one.numel() for one in LlamaModel(CONFIG).parameters())


def planned(placement: Placement, config: LlamaConfig = CONFIG, kind: type = LlamaModel) -> dict:
    options = placement_options(lambda: kind(config), config, placement, TOO_LARGE)
    device_map = options["device_map"]
    assert isinstance(device_map, dict)
    return device_map


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_a_model_that_fits_on_one_gpu_is_not_spread(monkeypatch, gpus):
    pretend_gpus(monkeypatch, [2 * bytes_of(2)] * gpus)
    assert planned(Placement(CUDA, torch.bfloat16)) == {"": 0}


def test_the_gpu_that_is_named_is_taken_whatever_others_have(monkeypatch):
    pretend_gpus(monkeypatch, [9 * bytes_of(4), 2 * bytes_of(4)])
    assert planned(Placement(torch.device("cuda", 1), torch.float32)) == {"": 1}


def test_a_model_larger_than_one_gpu_is_spread_block_by_block_and_nothing_is_left_on_the_host(monkeypatch):
    pretend_gpus(monkeypatch, [bytes_of(4)] * 2)
    places = planned(Placement(CUDA, torch.float32, beside_bytes=bytes_of(4) // 4))
    assert set(places.values()) == {0, 1}
    blocks = [places[f"layers.{number}"] for number in range(8)]
    assert blocks == sorted(blocks), "the vectors change the GPU once"
    on_first = sum(places[f"layers.{number}"] == 0 for number in range(8))
    assert 0 < on_first < 6, "room stays on the first GPU for what lies beside the weights"


def test_weights_beside_which_there_is_no_room_go_to_the_other_gpus(monkeypatch):
    pretend_gpus(monkeypatch, [bytes_of(4) // 2, 2 * bytes_of(4)])
    assert planned(Placement(CUDA, torch.float32, beside_bytes=bytes_of(4) // 2)) == {"": 1}


def test_a_model_that_no_gpus_hold_is_refused_with_both_sizes(monkeypatch):
    for free in ([bytes_of(4) // 2], [bytes_of(4) // 4] * 2):
        pretend_gpus(monkeypatch, free)
        with pytest.raises(ModelError, match=r"^tiny: its weights take 0\.0 GB, and .* 0\.0 GB free; use another$"):
            planned(Placement(CUDA, torch.float32))


def test_a_quantised_model_is_planned_by_its_quantised_size(monkeypatch):
    pretend_gpus(monkeypatch, [round(0.7 * bytes_of(2))] * 2)
    assert set(planned(Placement(CUDA, torch.bfloat16)).values()) == {0, 1}
    assert planned(Placement(CUDA, torch.bfloat16, "8bit")) == {"": 0}
    assert planned(Placement(CUDA, torch.bfloat16, "4bit")) == {"": 0}


def test_weights_of_an_unknown_size_are_spread_without_the_host(monkeypatch):
    config = LlamaConfig(**CONFIG.to_dict())
    config.quantization_config = {"quant_method": "gptq"}
    options = placement_options(lambda: pytest.fail("its size is not known"), config, _two(monkeypatch), TOO_LARGE)
    assert options["device_map"] == "sequential"
    assert set(options["max_memory"]) == {0, 1}  # pyright: ignore[reportArgumentType]


def _two(monkeypatch: pytest.MonkeyPatch) -> Placement:
    pretend_gpus(monkeypatch, [1000, 1000])
    return Placement(CUDA, torch.bfloat16)


def test_a_model_with_a_head_keeps_tied_weights_together(monkeypatch):
    config = LlamaConfig(**CONFIG.to_dict() | {"tie_word_embeddings": True, "vocab_size": 3000})
    with torch.device("meta"):
        size = 4 * sum(one.numel() for one in LlamaForCausalLM(config).parameters())
    pretend_gpus(monkeypatch, [size] * 2)
    places = planned(Placement(CUDA, torch.float32, beside_bytes=size // 3), config, LlamaForCausalLM)
    assert set(places.values()) == {0, 1}


def test_on_the_cpu_and_on_mps_nothing_is_planned():
    for name in ("cpu", "mps"):
        placement = Placement(torch.device(name), torch.float32)
        assert placement_options(lambda: pytest.fail("not built"), CONFIG, placement, TOO_LARGE) == {}


def test_parts_that_were_left_on_the_host_after_all_are_refused():
    model = nn.Linear(2, 2)
    require_on_gpus(model, Placement(CUDA, torch.float32), TOO_LARGE)
    model.hf_device_map = {"layers.0": 0, "layers.1": "cpu", "norm": "disk"}  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    with pytest.raises(ModelError, match=r"^tiny: 2 parts of it did not fit on the GPU \(layers\.1\); use another$"):
        require_on_gpus(model, Placement(CUDA, torch.float32), TOO_LARGE)
    require_on_gpus(model, Placement(torch.device("cpu"), torch.float32), TOO_LARGE)


def test_a_base_model_too_large_for_the_gpu_is_refused_before_its_weights_are_read(tiny_model, monkeypatch, documented):
    pretend_gpus(monkeypatch, [1000])
    with pytest.raises(ModelError, match=r"GPU 0 has 0\.0 GB free; use shallower --layers, --dtype bfloat16") as error:
        load_model(tiny_model, blocks=2, placement=Placement(CUDA, torch.float32))
    documented("Memory and workers", "a model larger than the GPUs", str(error.value))
    assert loading.GPU_REMEDY in str(error.value)
