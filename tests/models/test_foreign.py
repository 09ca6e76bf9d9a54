"""Folders that are no model which can be read are refused by the name of what they are, with what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from refusal import refusal, with_options
from tiny import write_sae


@pytest.fixture
def refused(capsys, tiny_arguments, tmp_path) -> Callable[[], str]:
    return lambda: refusal(with_options(tiny_arguments, {"base_model": str(tmp_path / "model")}), capsys)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_is_refused_with_how_to_merge_it(refused, documented, folder, tiny_model, with_config):
    content = {"peft_type": "LORA", "base_model_name_or_path": "meta-llama/Llama-2-7b-hf", "r": 8}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    if with_config:
        shutil.copy(tiny_model / "config.json", folder)
    else:
        (folder / "adapter_model.safetensors").write_bytes(b"")
    line = refused()
    assert "model: an adapter (LORA) of meta-llama/Llama-2-7b-hf, not a whole model; merge it with `peft." in line
    documented("Base models", "an adapter", line)


def test_the_base_model_of_an_adapter_is_shown_without_its_password_and_cut(refused, folder):
    name = "https://user:secret-password@host/" + "x" * 10_000 + "\x1b[31m"
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    line = refused()
    assert "secret-password" not in line
    assert "\x1b" not in line
    assert len(line) < 800


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, "\xff"])
def test_an_adapter_whose_configuration_cannot_be_read_is_one_all_the_same(refused, folder, content):
    (folder / "adapter_config.json").write_text(content, encoding="latin1")
    assert "model: an adapter (PEFT), not a whole model; merge it with " in refused()


@pytest.mark.parametrize("deeper", ["", "layers.2"])
def test_saes_in_place_of_a_model_are_named(refused, documented, folder, deeper):
    write_sae(folder / deeper)
    line = refused()
    assert "model: a folder of SAEs, not a language model; give it with --sae_model" in line
    documented("Base models", "SAEs in place of a model", line)


OTHERS = {
    "a diffusion pipeline": ({"model_index.json": "{}", "unet/config.json": "{}"}, "a diffusion pipeline, which has"),
    "a model exported to ONNX": (
        {"config.json": "{}", "onnx/model.onnx": ""},
        "a model exported to ONNX, whose blocks",
    ),
    "a checkpoint of its publisher": (
        {"params.json": "{}", "consolidated.00.pth": "", "tokenizer.model": ""},
        "a checkpoint in its publisher's own format; convert it",
    ),
    "a model converted for OpenVINO": (
        {"config.json": "{}", "openvino_model.xml": "", "openvino_model.bin": ""},
        "a model converted for OpenVINO, whose blocks",
    ),
    "weights converted for CTranslate2": (
        {"config.json": "{}", "model.bin": "", "vocabulary.json": "[]"},
        "weights converted for CTranslate2, which are not read",
    ),
    "weights for TensorFlow": ({"config.json": "{}", "tf_model.h5": ""}, "weights for TensorFlow; save them for"),
    "weights for Flax": ({"config.json": "{}", "flax_model.msgpack": ""}, "weights for Flax; save them for PyTorch"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_another_format_is_refused_by_its_name(refused, documented, folder, case):
    files, expected = OTHERS[case]
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    line = refused()
    assert f"model: {expected}" in line
    documented("Base models", case, line)


def test_weights_quantised_for_mlx_are_refused(refused, documented, folder, tiny_model):
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | {"quantization": {"group_size": 64, "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    line = refused()
    assert "model: weights quantised for MLX, which are not read; name the model that they were made from" in line
    documented("Base models", "weights quantised for MLX", line)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_weights_quantised_for_a_missing_package_keep_its_words(refused, documented, folder, tiny_model, method):
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    quantised = {"quant_method": method, "bits": 4, "group_size": 32}
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": quantised}
    (folder / "config.json").write_text(json.dumps(config))
    line = refused()
    assert f"{folder}: cannot be used (ImportError: " in line
    assert "; install that package or, if the weights are quantised, name the model that they were made from" in line
    documented("Base models", f"weights quantised by {method.upper()} without its package", line)


def test_newer_weights_of_mlx_and_older_ones_of_gptq_are_refused_too(refused, documented, folder, tiny_model):
    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    (folder / "quantize_config.json").write_text("{}")
    line = refused()
    assert "model: weights quantised by GPTQ, AWQ or a library like them, which are not read; name the model" in line
    documented("Base models", "weights quantised by an older GPTQ", line)
    both = {"group_size": 64, "bits": 4}
    config = json.loads((folder / "config.json").read_text()) | {"quantization": both, "quantization_config": both}
    (folder / "config.json").write_text(json.dumps(config))
    assert "model: weights quantised for MLX, which are not read" in refused()


@pytest.mark.parametrize("inner", ["checkpoint-100", "snapshots/abc"])
def test_the_folder_within_that_has_the_model_is_named(refused, documented, folder, tiny_model, inner):
    shutil.copytree(tiny_model, folder / inner)
    line = refused()
    assert line.endswith(f"{folder}: no config.json here; to take the model in it, give {folder / inner}")
    if inner == "checkpoint-100":
        documented("Base models", "the folder around that of a model", line)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "training_args.bin"])
def test_an_adapter_with_the_config_of_its_base_model_is_one(refused, folder, tiny_model, name):
    shutil.copy(tiny_model / "config.json", folder)
    for file in ("adapter_config.json", name):
        (folder / file).write_text("{}")
    assert "model: an adapter (PEFT), not a whole model; merge it with " in refused()


def test_files_of_other_formats_beside_a_model_do_not_matter(folder, tiny_model, tiny_arguments):
    from stratalens.models.foreign import require_base_model

    shutil.copytree(tiny_model, folder, dirs_exist_ok=True)
    for name in ("adapter_config.json", "model.onnx", "tf_model.h5", "params.json", "model.gguf", "ae.pt"):
        (folder / name).write_text("{}")
    require_base_model(str(folder))
