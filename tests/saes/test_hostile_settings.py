"""Configurations and weight files that may hold anything: an SAE is read, or refused in one line."""

import json
import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY_WIDTH
from torch import nn
from transformers import AutoConfig, AutoModel

from stratalens.errors import CapacityError, CheckpointError
from stratalens.saes.formats import FORMATS
from stratalens.saes.settings import read_table
from stratalens.saes.tree import SaeTree

LATENTS = 16
VALUES = [None, True, -1, 0, 2**40, 1e308, 10**400, "", "x" * 1000, [], ["blocks.2"], {}, {"k": []}, [[[]]], 0.5, "NaN"]
SAELENS = {
    "architecture": "topk",
    "d_in": TINY_WIDTH,
    "d_sae": LATENTS,
    "k": 4,
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "rescale_acts_by_decoder_norm": True,
    "activation_fn_kwargs": {"k": 4},
    "activation_fn_str": "topk",
    "sae_lens_version": "5.0.0",
    "hook_head_index": None,
    "metadata": {"hook_name": "blocks.2.hook_resid_post"},
    "model_from_pretrained_kwargs": {"center_writing_weights": True},
    "activation_normalization_factor": 0.1,
}
SCOPE_2 = {
    "architecture": "jump_relu",
    "hf_hook_point_in": "model.layers.2.output",
    "hf_hook_point_out": "model.layers.2.output",
    "l0": 20,
    "affine_connection": False,
    "type": "sae",
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    sizes = {"num_hidden_layers": 4, "hidden_size": TINY_WIDTH, "intermediate_size": 64, "vocab_size": 99}
    with torch.device("meta"):
        return AutoModel.from_config(AutoConfig.for_model("gemma3_text", **sizes))


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (TINY_WIDTH, LATENTS), "W_dec": (LATENTS, TINY_WIDTH), "b_enc": (LATENTS,)}
    shapes |= {"b_dec": (TINY_WIDTH,), "threshold": (LATENTS,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def read(kind: str, folder: Path, model: nn.Module) -> bool:
    """Whether the SAE is read and encodes; False where it is refused in one line."""
    said = ""
    try:
        format_ = FORMATS[kind]
        for checkpoint in format_.checkpoints(SaeTree.of(folder), model, None):
            sae = format_.describe(checkpoint).load()
            x = torch.randn(3, TINY_WIDTH)
            sae.decode(sae.encode(x), x)
    except (CheckpointError, CapacityError) as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 2000
    return not said


@pytest.mark.parametrize("name", SAELENS)
def test_any_setting_of_saelens_is_read_or_refused(tmp_path, model, name):
    save_file(weights(), tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps(SAELENS))
    assert read("saelens", tmp_path, model)
    for value in VALUES:
        (tmp_path / "cfg.json").write_text(json.dumps({**SAELENS, name: value}))
        read("saelens", tmp_path, model)
    for key in ("hook_name", "hf_hook_name", "sae_lens_version"):
        for value in VALUES:
            (tmp_path / "cfg.json").write_text(json.dumps({**SAELENS, "metadata": {key: value}}))
            read("saelens", tmp_path, model)


@pytest.mark.parametrize("name", SCOPE_2)
def test_any_setting_of_gemma_scope_2_is_read_or_refused(tmp_path, model, name):
    save_file({key.lower(): array for key, array in weights().items()}, tmp_path / "params.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(SCOPE_2))
    assert read("gemma_scope_2", tmp_path, model)
    for value in VALUES:
        (tmp_path / "config.json").write_text(json.dumps({**SCOPE_2, name: value}))
        read("gemma_scope_2", tmp_path, model)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", "[" * 100_000, '{"a": ' * 5_000, "\xff\xfe", '{"d_sae": 1}']
)
@pytest.mark.parametrize(("kind", "config"), [("saelens", "cfg.json"), ("gemma_scope_2", "config.json")])
def test_any_text_in_place_of_a_configuration_is_refused(tmp_path, model, kind, config, content):
    name = {"saelens": "sae_weights.safetensors", "gemma_scope_2": "params.safetensors"}[kind]
    save_file({key if kind == "saelens" else key.lower(): array for key, array in weights().items()}, tmp_path / name)
    (tmp_path / config).write_text(content, encoding="latin-1")
    assert not read(kind, tmp_path, model)


@pytest.mark.parametrize("kind", ["npz", "pth"])
def test_damaged_bytes_are_read_or_refused(tmp_path, model, kind):
    own = weights()
    if kind == "npz":
        path = tmp_path / "gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_71/params.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, **{name: array.numpy() for name, array in own.items()})
    else:
        path = tmp_path / "A-SAE-l2.pth"
        linear = {"encoder.weight": own["W_dec"], "encoder.bias": own["b_enc"]}
        torch.save({**linear, "decoder.weight": own["W_enc"], "decoder.bias": own["b_dec"]}, path)
    format_ = "gemma_scope" if kind == "npz" else "goodfire"
    assert read(format_, tmp_path, model)
    content, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 4, 40])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        refused += not read(format_, tmp_path, model)
    assert refused > 30


YAML = [
    "a: [",
    "- 1",
    "a: !!python/object/apply:os.system [ls]",
    "a: &x 1\nb: *x",
    "[" * 5_000,
    "a: 1\na: 2",
    "\x00",
    "",
]


@pytest.mark.parametrize("content", YAML)
def test_any_text_in_place_of_yaml_is_read_or_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with suppress(CheckpointError):
        assert isinstance(read_table(path, "a test"), dict)
    path.write_text("model_kind: transcoder_set\nk: 8\n")
    assert read_table(path, "a test") == {"model_kind": "transcoder_set", "k": 8}
