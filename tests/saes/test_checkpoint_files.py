"""The files of a checkpoint: regular ones in their own folder, and a configuration of bounded size."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from refusal import refusal, with_options
from special_files import made_special
from tiny import write_sae

from stratalens.errors import CapacityError
from stratalens.hookpoint import Hookpoint
from stratalens.saes.containers import safetensors_file
from stratalens.saes.formats.sparsify import describe, load
from stratalens.saes.sae import Checkpoint

FILES = ["cfg.json", "sae.safetensors"]


@pytest.fixture
def refused(capsys, tiny_arguments, tmp_path) -> Callable[[], str]:
    return lambda: refusal(with_options(tiny_arguments, {"sae_model": str(tmp_path / "saes")}), capsys)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_sae(tmp_path / "saes" / "layers.2")


@pytest.mark.parametrize("kind", ["a named pipe", "a device without end"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_regular_file_is_refused(refused, documented, folder, name, kind):
    made_special(kind, folder / name)
    line = refused()
    assert f"layers.2/{name}: " in line
    assert "a regular file was expected, this is a" in line
    if kind == "a named pipe":
        documented("SAE checkpoints", f"a named pipe for {name}", line)


@pytest.mark.parametrize("name", FILES)
def test_a_link_out_of_the_folder_is_refused(refused, documented, folder, tmp_path, name):
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    line = refused()
    assert f"layers.2/{name}: a link out of its folder, to {tmp_path}/elsewhere; copy the file here" in line
    if name == "sae.safetensors":
        documented("SAE checkpoints", "weights that are a link to elsewhere", line)


def test_links_in_the_folder_and_links_to_folders_are_followed(folder, tmp_path):
    (folder / "sae.safetensors").rename(folder / "weights")
    (folder / "sae.safetensors").symlink_to("weights")
    (tmp_path / "link").symlink_to(folder)
    checkpoint = Checkpoint(folder, Hookpoint(2), Hookpoint(2), "layers.2")
    assert torch.equal(load(tmp_path / "link").decoder.weight, describe(checkpoint).load().decoder.weight)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "[" * 2**21])
def test_a_configuration_that_is_too_deep_or_too_long_is_refused(refused, documented, folder, content):
    (folder / "cfg.json").write_text(content)
    line = refused()
    assert "layers.2/cfg.json: cannot be read as JSON (" in line
    documented("SAE checkpoints", "a cfg without end", line)


@pytest.mark.parametrize("name", ["d_in", "k", "num_latents", "expansion_factor"])
def test_a_number_of_thousands_of_digits_is_refused(refused, documented, folder, name):
    (folder / "cfg.json").write_text(f'{{"d_in": 32, "{name}": {"9" * 4000}}}')
    line = refused()
    assert f"layers.2/cfg.json: {name}: Input should be less than or equal to 2147483647" in line
    if name == "d_in":
        documented("SAE checkpoints", "a number of thousands of digits in cfg", line)


def test_weights_for_which_there_is_no_memory_are_named(folder, monkeypatch):
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(safetensors_file, "safe_open", no_memory)
    with pytest.raises(CapacityError, match=r"layers\.2/sae\.safetensors: out of memory while it was read"):
        load(folder)
