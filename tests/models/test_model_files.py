"""The files of a model: regular ones, in its own folder, of bounded size, and not able to crash a library."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_cache import cached
from refusal import refusal, with_options
from special_files import SPECIAL, made_special

from stratalens.errors import LabelingError, ModelError
from stratalens.labels.llm.local import LocalModel
from stratalens.models import model_files
from stratalens.models.hub import hub_errors
from stratalens.models.model_files import require_sound_files
from stratalens.models.panics import panics_silenced
from stratalens.models.tokens import PassageCutter

FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


@pytest.fixture
def model(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def refused(capsys, tiny_arguments, model) -> Callable[[], str]:
    """The line with which a run of the model is refused."""
    return lambda: refusal(with_options(tiny_arguments, {"base_model": str(model)}), capsys)


def index(model: Path, *files: str) -> None:
    weights = {f"weight.{number}": file for number, file in enumerate(files)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def test_sound_models_are_accepted(model, tiny_model, tmp_path):
    require_sound_files("someone/model", ModelError)
    require_sound_files(str(model), ModelError)
    index(model, "model.safetensors", "part/model-2.safetensors")
    (model / "checkpoints").mkdir()
    (model / ".git").symlink_to("/nowhere")
    (model / "model.bin").symlink_to("model.safetensors")
    require_sound_files(str(model), ModelError)
    (tmp_path / "link").symlink_to(model)
    require_sound_files(str(tmp_path / "link"), ModelError)
    cached(tmp_path / "hub", "someone/tiny", tiny_model)
    snapshot = next((tmp_path / "hub").glob("*/snapshots/*"))
    assert (snapshot / "config.json").is_symlink()
    require_sound_files(str(snapshot), ModelError)


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "a directory"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_regular_file_is_refused(refused, documented, model, name, kind):
    made_special(kind, model / name)
    line = refused()
    assert f"model/{name}: " in line
    if kind == "a named pipe":
        assert SPECIAL[kind] in line
        if name == "config.json":
            documented("Base models", "a named pipe for its config", line)


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_folder_is_refused(refused, documented, model, tmp_path, name):
    shutil.move(model / name, tmp_path / f"elsewhere-{name}")
    (model / name).symlink_to(tmp_path / f"elsewhere-{name}")
    line = refused()
    assert f"model/{name}: a link out of its folder, to {tmp_path}/elsewhere-{name}; copy the file here" in line
    if name == "model.safetensors":
        documented("Base models", "weights that are a link to elsewhere", line)


@pytest.mark.parametrize("file", ["../other/model.safetensors", "/etc/hostname", "part/../../x.safetensors", ".."])
def test_an_index_that_names_weights_elsewhere_is_refused(refused, documented, model, file):
    index(model, "model.safetensors", file)
    line = refused()
    assert (
        f"model.safetensors.index.json: its weight_map names `{file}`, which is outside of the model's folder" in line
    )
    if file.startswith("../other"):
        documented("Base models", "an index that names weights elsewhere", line)


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "\xff"])
def test_an_index_that_is_no_json_is_refused(refused, documented, model, content):
    (model / "model.safetensors.index.json").write_text(content, encoding="latin1")
    line = refused()
    assert "model.safetensors.index.json: not valid JSON; copy or download it again" in line
    documented("Base models", "an index that is no JSON", line)


def test_an_index_whose_shards_are_links_to_elsewhere_is_refused(refused, model, tmp_path):
    (model / "part").mkdir()
    (tmp_path / "x.safetensors").write_bytes(b"")
    (model / "part" / "x.safetensors").symlink_to(tmp_path / "x.safetensors")
    index(model, "part/x.safetensors")
    assert "part/x.safetensors: a link out of its folder" in refused()


@pytest.mark.parametrize(
    ("name", "limit"), [("config.json", "MAX_TEXT_BYTES"), ("tokenizer.json", "MAX_VOCABULARY_BYTES")]
)
def test_a_file_of_text_beyond_its_limit_is_refused(refused, documented, model, name, limit):
    with (model / name).open("r+b") as stream:
        stream.truncate(getattr(model_files, limit) + 1)
    line = refused()
    assert "the limit for such a file of a model" in line
    documented("Base models", f"a {name} without end", line)


def with_tokenizer(model: Path, **parts: object) -> None:
    path = model / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


PANICS = {
    "when it is read": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "when it is used": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("case", PANICS)
def test_a_tokenizer_that_makes_its_library_panic_is_refused_in_one_line(
    capfd, tiny_arguments, documented, model, case
):
    with_tokenizer(model, **PANICS[case])
    line = refusal(with_options(tiny_arguments, {"base_model": str(model)}), capfd)
    assert "model: damaged; a library that reads it failed (" in line
    documented("Base models", f"a tokenizer that makes its library panic {case}", line)


def test_a_labelling_model_whose_tokenizer_panics_or_which_is_a_pipe_is_refused(model):
    with_tokenizer(model, **PANICS["when it is read"])
    with pytest.raises(LabelingError, match="a library that reads it failed"):
        LocalModel(str(model)).check()
    made_special("a named pipe", model / "config.json")
    with pytest.raises(LabelingError, match="this is a named pipe"):
        LocalModel(str(model)).check()


class BrokenTokenizer:
    """Behaves like a tokenizer until a text holds a certain word."""

    name_or_path = "broken"

    def __init__(self):
        self.all_special_ids: list[int] = []
        self.added_tokens_decoder: dict[int, object] = {}

    def __call__(self, text: str, **options: object) -> dict[str, list]:
        if "bad" in text:
            raise Exception("WordPiece error: Missing [UNK] token from the vocabulary")
        return {"input_ids": [1] * len(text), "offset_mapping": [(at, at + 1) for at in range(len(text))]}

    def decode(self, token_ids: list[int]) -> str:
        return ""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 1}


def test_a_tokenizer_that_fails_on_some_text_only_is_a_named_error():
    cutter = PassageCutter(BrokenTokenizer(), 16)  # pyright: ignore[reportArgumentType]
    assert len(list(cutter.spans("good text"))) == 1
    with pytest.raises(ModelError, match=r"broken: its tokenizer is damaged .*Missing .UNK. token"):
        list(cutter.spans("bad text"))


def test_an_interruption_while_a_model_is_read_stays_one():
    with pytest.raises(KeyboardInterrupt), hub_errors("model", ModelError):
        raise KeyboardInterrupt


def test_what_is_written_to_standard_error_while_panics_are_silenced_is_shown_after_it(capfd):
    with panics_silenced():
        os.write(2, b"a warning\n")
        assert capfd.readouterr().err == ""
    assert capfd.readouterr().err == "a warning\n"
    with pytest.raises(ValueError, match="wrong"), panics_silenced():
        fail_aloud()
    assert capfd.readouterr().err == "another\n"


def fail_aloud() -> None:
    print("another", file=sys.stderr)
    raise ValueError("wrong")
