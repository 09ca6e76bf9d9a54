"""Control vectors read back by other readers, and GGUF byte by byte."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors import safe_open

from stratalens.effects.control_vector import (
    MeasuredEffect,
    require_gguf_places,
    require_writable,
    write_gguf,
    write_safetensors,
)
from stratalens.errors import ConfigError, OutputError
from stratalens.hookpoint import Hookpoint

WIDTH = 6
VECTORS = {Hookpoint(3): torch.arange(WIDTH) / 7 - 0.3, Hookpoint(12): -(torch.arange(WIDTH).float() ** 2)}
ORIGIN = {"model": "tiny/größer", "features": json.dumps({"3/1": 1.0})}


class Bytes:
    """Reads a GGUF file as its specification says: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def number(self, form: str) -> float:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self) -> str:
        length = int(self.number("Q"))
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def value(self) -> object:
        kind = self.number("I")
        return self.text() if kind == 8 else self.number({4: "I", 5: "i"}[int(kind)])


def parsed(path: Path) -> tuple[dict[str, object], dict[str, list[float]]]:
    """Entries and tensors of a GGUF file; only float32 of one dimension is understood."""
    own = Bytes(path.read_bytes())
    assert own.data[:4] == b"GGUF"
    own.at = 4
    assert own.number("I") == 3
    tensors, entries = int(own.number("Q")), int(own.number("Q"))
    found = {own.text(): own.value() for _ in range(entries)}
    infos = []
    for _ in range(tensors):
        name, dimensions = own.text(), own.number("I")
        length, kind, offset = int(own.number("Q")), own.number("I"), int(own.number("Q"))
        assert (dimensions, kind) == (1, 0), "one dimension, float32"
        infos.append((name, length, offset))
    start = (own.at + 31) // 32 * 32
    return found, {name: list(struct.unpack_from(f"<{length}f", own.data, start + at)) for name, length, at in infos}


def test_gguf_is_what_llama_cpp_reads(tmp_path):
    path = tmp_path / "new" / "vector.gguf"
    write_gguf(path, VECTORS, "llama", ORIGIN)
    entries, tensors = parsed(path)
    assert entries["general.architecture"] == "controlvector"
    assert entries["controlvector.model_hint"] == "llama"
    assert entries["controlvector.layer_count"] == 2
    assert {name: entries[f"stratalens.{name}"] for name in ORIGIN} == ORIGIN
    assert list(tensors) == ["direction.3", "direction.12"]
    for place, vector in VECTORS.items():
        np.testing.assert_array_equal(tensors[f"direction.{place.block}"], vector.numpy())
    by_library = GGUFReader(path)
    assert {own.name: own.data.tolist() for own in by_library.tensors} == {
        name: pytest.approx(values) for name, values in tensors.items()
    }
    assert [path.name for path in path.parent.iterdir()] == ["vector.gguf"]


@pytest.mark.parametrize(("model_type", "hint"), [("mistral", "llama"), ("gemma2", "gemma2"), ("gpt_neox", "gptneox")])
def test_the_hint_is_the_name_that_llama_cpp_gives_the_architecture(tmp_path, model_type, hint):
    write_gguf(tmp_path / "vector.gguf", VECTORS, model_type, {})
    assert parsed(tmp_path / "vector.gguf")[0]["controlvector.model_hint"] == hint


def test_safetensors_have_a_tensor_for_each_place_and_say_where_they_come_from(tmp_path):
    path = tmp_path / "vector.safetensors"
    write_safetensors(path, {**VECTORS, Hookpoint(3, "mlp"): torch.ones(2)}, ORIGIN)
    with safe_open(path, framework="np") as tensors:
        assert sorted(tensors.keys()) == ["12", "3", "3_mlp"]
        assert tensors.metadata() == ORIGIN
        np.testing.assert_array_equal(tensors.get_tensor("12"), VECTORS[Hookpoint(12)].numpy())
        assert tensors.get_tensor("3").dtype == np.float32
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + size])
    start, end = header["3_mlp"]["data_offsets"]
    assert struct.unpack("<2f", path.read_bytes()[8 + size + start : 8 + size + end]) == (1.0, 1.0)


def test_the_same_vector_gives_the_same_bytes(tmp_path):
    origin = {str(number): "x" for number in range(20)}
    for name in ("a", "b"):
        write_gguf(tmp_path / f"{name}.gguf", VECTORS, "llama", origin)
        write_safetensors(tmp_path / f"{name}.safetensors", VECTORS, origin)
    for suffix in ("gguf", "safetensors"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = tmp_path / "vector.gguf"
    path.write_text("mine")
    broken = {Hookpoint(3): torch.ones(2), Hookpoint(4): "no tensor"}
    with pytest.raises(AttributeError):
        write_gguf(path, broken, "llama", {})
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["0", "3_mlp", "3_resid_in"])
def test_gguf_has_no_place_for_the_first_block_and_other_sites(tmp_path, name):
    with pytest.raises(ConfigError, match="block 0" if name == "0" else "output of blocks only"):
        write_gguf(tmp_path / "vector.gguf", {Hookpoint.parse(name): torch.ones(2)}, "llama", {})
    assert not list(tmp_path.iterdir())
    require_gguf_places([Hookpoint(1), Hookpoint(28)])


def test_what_exists_is_replaced_only_when_that_is_wanted(tmp_path):
    path = tmp_path / "vector.gguf"
    require_writable(path, overwrite=False)
    path.touch()
    with pytest.raises(OutputError, match="add --overwrite"):
        require_writable(path, overwrite=False)
    require_writable(path, overwrite=True)
    with pytest.raises(OutputError, match="is a directory"):
        require_writable(tmp_path, overwrite=True)


def test_an_interval_covers_0_up_to_its_ends():
    assert MeasuredEffect(0.1, 0.0, 0.2).covers_zero
    assert MeasuredEffect(-0.1, -0.3, 0.2).covers_zero
    assert not MeasuredEffect(0.1, 0.05, 0.2).covers_zero
    assert not MeasuredEffect(-0.1, -0.2, -0.05).covers_zero
