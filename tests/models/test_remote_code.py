"""Code that comes with a model runs only if an option allows it, and the user is never prompted at the terminal."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
from refusal import output_of, refusal, with_options

from stratalens.cli.main import main
from stratalens.config.config_file import read_config_file
from stratalens.config.result_options import LabelConfig
from stratalens.config.validation import make_config

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
Path({mark!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaModel):
    config_class = OwnConfig

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnForCausalLM"}


@pytest.fixture
def mark(tmp_path) -> Path:
    """The file that the code of the model would make."""
    return tmp_path / "code-ran"


@pytest.fixture
def model_with_code(tmp_path, tiny_model, mark, monkeypatch) -> Path:
    """The tiny model as one of a kind of its own, whose classes come with it."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was prompted"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "own", "auto_map": AUTO_MAP}))
    (model / "own.py").write_text(CODE.format(mark=str(mark)))
    return model


def test_a_model_that_needs_its_own_code_is_refused_with_the_option(
    capsys, documented, tiny_arguments, model_with_code, mark
):
    for more in ([], ["--dry_run"]):
        line = refusal([*with_options(tiny_arguments, {"base_model": str(model_with_code)}), *more], capsys)
        assert "read that code, then give --trust_remote_code" in line
    documented("Base models", "a model that needs code of its own", line)
    assert not mark.exists()


def test_the_code_runs_when_the_option_allows_it(tiny_arguments, model_with_code, mark):
    words = [*with_options(tiny_arguments, {"base_model": str(model_with_code)}), "--quiet", "--trust_remote_code"]
    assert main(["analyze", *words, "--dry_run"]) == 0
    assert main(["analyze", *words]) == 0
    assert mark.exists()
    record = json.loads((output_of(tiny_arguments) / "run.json").read_text())
    assert record["model"]["trust_remote_code"] is True
    evidence = json.loads((output_of(tiny_arguments) / "layer_2" / "evidence.json").read_text())
    assert evidence["features"][0]["promoted"]


def test_code_beside_a_model_that_needs_none_is_left_alone(tiny_arguments, model_with_code, mark):
    config = json.loads((model_with_code / "config.json").read_text())
    (model_with_code / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    tokenizer = json.loads((model_with_code / "tokenizer_config.json").read_text())
    mapped = tokenizer | {"auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (model_with_code / "tokenizer_config.json").write_text(json.dumps(mapped))
    assert main(["analyze", "--quiet", *with_options(tiny_arguments, {"base_model": str(model_with_code)})]) == 0
    assert not mark.exists()


def test_the_record_of_a_run_does_not_grant_what_its_command_did(tmp_path):
    record = {"settings": make_config(trust_remote_code=True).model_dump(mode="json")}
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert "trust_remote_code" not in read_config_file(tmp_path / "run.json").taken
    (tmp_path / "own.yaml").write_text("trust_remote_code: true")
    assert "trust_remote_code" not in read_config_file(tmp_path / "own.yaml").taken
    assert "trust_remote_code" in LabelConfig.model_fields, "each `label` decides anew"


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickled_weights_are_not_unpickled(capsys, documented, tiny_arguments, tmp_path, tiny_model, mark):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(mark), protocol=2))
    line = refusal(with_options(tiny_arguments, {"base_model": str(model)}), capsys)
    assert "no usable Hugging Face model here" in line
    documented("Base models", "pickled weights that are more than tensors", line)
    assert not mark.exists()
