"""Recognise folders that are no model which can be read here, and say what to do with them."""

import json
from pathlib import Path
from typing import Any

from stratalens.errors import ModelError, printable
from stratalens.files.redaction import redacted
from stratalens.files.regular import read_regular

MAX_CONFIG_BYTES = 2**20
MAX_NAME_CHARACTERS = 100
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
SAE_FILES = ("sae.safetensors", "sae_weights.safetensors", "ae.pt", "params.npz")
"""Files of weights of SAEs, in the folder or one of its folders."""
ADAPTER = "adapter_config.json"
FOLDERS = {
    "model_index.json": "a diffusion pipeline, which has no residual stream of a language model; name a language model",
    "params.json": "a checkpoint in its publisher's own format; convert it with the script of transformers for its "
    "family, or take the repository whose files have a config.json",
    "tf_model.h5": "weights for TensorFlow; save them for PyTorch, or take the repository's safetensors",
    "flax_model.msgpack": "weights for Flax; save them for PyTorch, or take the repository's safetensors",
}
"""File -> what a folder without weights for PyTorch is that has it, and what to do."""


def require_base_model(location: str) -> None:
    """Refuse a local folder that is known to be something else than a model that can be read here.

    Raises:
        ModelError: it is an adapter, a folder of SAEs, or a model in another format.
    """
    folder = Path(location)
    if folder.is_dir() and (reason := _reason(folder)):
        raise ModelError(f"{location}: {reason}")


def _reason(folder: Path) -> str:
    has_weights = any(next(folder.glob(pattern), None) for pattern in WEIGHTS)
    has_config = (folder / "config.json").is_file()
    if (folder / ADAPTER).is_file() and not (has_config and has_weights):
        return _adapter(folder / ADAPTER)
    if not has_config and any(
        next(folder.glob(f"{deeper}{name}"), None) for name in SAE_FILES for deeper in ("", "*/")
    ):
        return "a folder of SAEs, not a language model; give it with --sae_model, and the model with --base_model"
    if "quantization" in (config := _content(folder / "config.json")) and "quantization_config" not in config:
        return "weights quantised for MLX, which are not read; name the model that they were made from"
    if next(folder.glob("*.onnx"), next(folder.glob("onnx/*.onnx"), None)) and not has_weights:
        return "a model exported to ONNX, whose blocks cannot be read; name the model that it was exported from"
    if not has_weights or not has_config:
        return next((what for name, what in FOLDERS.items() if (folder / name).is_file()), "")
    return ""


def _adapter(path: Path) -> str:
    content = _content(path)
    base, kind = (redacted(str(content.get(name) or "")) for name in ("base_model_name_or_path", "peft_type"))
    base = f" of {printable(base[:MAX_NAME_CHARACTERS])}" if base else ""
    return (
        f"an adapter ({printable(kind[:20]) or 'PEFT'}){base}, not a whole model; merge it with "
        "`peft.AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload().save_pretrained(NEW)`, save the "
        "tokenizer to NEW too, and give NEW"
    )


def _content(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if it cannot be read."""
    try:
        content = json.loads(read_regular(path, MAX_CONFIG_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
