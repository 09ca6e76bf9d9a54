"""Whatever stands in a configuration or a file of another library: it is read, or refused in one line."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from library_files import llama_without_weights
from published_layouts import LAYOUTS, write_layout
from refusal import named_error
from tiny import TINY_K

from stratalens.config.sae_activation import SaeActivation
from stratalens.saes.formats import FORMATS
from stratalens.saes.tree import SaeTree

ODD: list[Any] = [None, True, -1, 0, 0.5, 2**31, 10**300, math.nan, math.inf, "", "x" * 500, [], [1], {}, {"in": -1}]
CONFIGS = (".json", ".yaml")


def load_all(layout: str, root: Path) -> None:
    """Describe and load every SAE that a format finds in a folder."""
    kind = FORMATS[layout]
    told = SaeActivation("topk", TINY_K) if layout == "qwen_scope" else None
    tree = SaeTree.of(root)
    if kind.recognises(tree):
        for checkpoint in kind.checkpoints(tree, llama_without_weights(4), told):
            sae = kind.describe(checkpoint).load()
            sae.encode(torch.ones(2, sae.d_model))


def assert_read_or_refused(layout: str, root: Path) -> None:
    error = named_error(lambda: load_all(layout, root))
    assert error is None or len(str(error).splitlines()) == 1, error


def keys(content: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The settings of a configuration, and those in its tables."""
    for name, value in content.items():
        yield (name,)
        if isinstance(value, dict):
            yield from ((name, *inner) for inner in keys(value))


@pytest.fixture(params=LAYOUTS)
def layout(request) -> str:
    return request.param


def test_any_value_of_a_setting_is_read_or_refused(tmp_path, layout):
    write_layout(tmp_path / "saes", layout)
    for path in sorted(path for path in tmp_path.rglob("*") if path.suffix in CONFIGS)[:1]:
        text = path.read_text()
        write = yaml.safe_dump if path.suffix == ".yaml" else json.dumps
        for key in list(keys(yaml.safe_load(text))):
            for value in [*ODD, "taken away"]:
                content = yaml.safe_load(text)
                table = content
                for name in key[:-1]:
                    table = table[name]
                if value == "taken away":
                    del table[key[-1]]
                else:
                    table[key[-1]] = value
                path.write_text(write(content))
                assert_read_or_refused(layout, tmp_path / "saes")


def test_any_text_of_a_configuration_is_read_or_refused(tmp_path, layout):
    write_layout(tmp_path / "saes", layout)
    for path in (path for path in tmp_path.rglob("*") if path.suffix in CONFIGS):
        for content in (b"", b"null", b"[]", b"3", b"{", b"\xff\xfe", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"):
            path.write_bytes(content)
            assert_read_or_refused(layout, tmp_path / "saes")


def test_a_file_cut_anywhere_is_refused(tmp_path, layout):
    write_layout(tmp_path / "saes", layout)
    for path in (path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".safetensors")):
        content = path.read_bytes()
        for size in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:size])
            assert named_error(lambda: load_all(layout, tmp_path / "saes")) is not None
        path.write_bytes(content)


def test_links_out_of_the_folder_are_refused(tmp_path, layout):
    write_layout(tmp_path / "saes", layout)
    for path in [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".safetensors")]:
        elsewhere = tmp_path / f"elsewhere{path.suffix}"
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
    assert "link" in str(named_error(lambda: load_all(layout, tmp_path / "saes")))


def test_arrays_of_no_numbers_or_of_other_kinds_are_read_or_refused(tmp_path, layout):
    write_layout(tmp_path / "saes", layout)
    for path in (path for path in tmp_path.rglob("*.pt")):
        whole = torch.load(path, weights_only=True)
        for name in whole:
            odd = [
                torch.zeros(0),
                torch.zeros(3, 3, 3),
                torch.ones(1).long(),
                torch.tensor(math.nan),
                "text",
                None,
                [],
                {},
            ]
            for value in [*odd, torch.ones(4, dtype=torch.complex64), torch.ones(4, 4).to_sparse()]:
                torch.save(whole | {name: value}, path)
                assert_read_or_refused(layout, tmp_path / "saes")
        torch.save(whole, path)
