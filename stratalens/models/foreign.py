"""Recognise folders that are no model which can be read here, and say what to do with them."""

import re
from pathlib import Path

from stratalens.errors import ModelError, printable
from stratalens.files.json_files import json_object
from stratalens.files.redaction import redacted

MAX_NAME_CHARACTERS = 100
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
NO_WEIGHTS = re.compile(r"adapter_model\..*|(training_args|optimizer|scheduler|openvino_.*)\.bin")
"""Files of such names that are no weights of a model which can be read here."""
SAE_FILES = ("sae.safetensors", "sae_weights.safetensors", "ae.pt", "params.npz")
"""Files of weights of SAEs, in the folder or one of its folders."""
ADAPTER = "adapter_config.json"
FOLDERS = {
    "model_index.json": "a diffusion pipeline, which has no residual stream of a language model; name a language model",
    "params.json": "a checkpoint in its publisher's own format; convert it with the script of transformers for its "
    "family, or take the repository whose files have a config.json",
    "openvino_model.xml": "a model converted for OpenVINO, whose blocks cannot be read; name the model that it was "
    "made from",
    "tf_model.h5": "weights for TensorFlow; save them for PyTorch, or take the repository's safetensors",
    "flax_model.msgpack": "weights for Flax; save them for PyTorch, or take the repository's safetensors",
}
"""File -> what a folder without weights for PyTorch is that has it, and what to do."""
QUANTISED = ("quantize_config.json", "quant_config.json")
"""Files of a folder whose weights were quantised by a library (GPTQ, AWQ) that left config.json as it was."""
VOCABULARIES = ("vocabulary.json", "vocabulary.txt", "shared_vocabulary.json", "shared_vocabulary.txt")
"""Files that CTranslate2 writes beside its weights."""
INNER_CONFIGS = ("*/config.json", "snapshots/*/config.json")


def require_base_model(location: str) -> None:
    """Refuse a local folder that is known to be something else than a model that can be read here.

    Raises:
        ModelError: it is an adapter, a folder of SAEs, or a model in another format.
    """
    folder = Path(location)
    if folder.is_dir() and (reason := _reason(folder)):
        raise ModelError(f"{location}: {reason}")


def _reason(folder: Path) -> str:
    has_weights = any(not NO_WEIGHTS.fullmatch(path.name) for pattern in WEIGHTS for path in folder.glob(pattern))
    has_config = (folder / "config.json").is_file()
    if (folder / ADAPTER).is_file() and not (has_config and has_weights):
        return _adapter(folder / ADAPTER)
    if not has_config and any(
        next(folder.glob(f"{deeper}{name}"), None) for name in SAE_FILES for deeper in ("", "*/")
    ):
        return "a folder of SAEs, not a language model; give it with --sae_model, and the model with --base_model"
    if reason := _converted(folder):
        return reason
    if next(folder.glob("*.onnx"), next(folder.glob("onnx/*.onnx"), None)) and not has_weights:
        return "a model exported to ONNX, whose blocks cannot be read; name the model that it was exported from"
    known = next((what for name, what in FOLDERS.items() if (folder / name).is_file()), "")
    if known and not (has_weights and has_config):
        return known
    return "" if has_config or has_weights else _deeper(folder)


def _converted(folder: Path) -> str:
    """Say that the weights were converted for another library; empty if they were not."""
    config, of = json_object(folder / "config.json"), "name the model that they were made from"
    quantised = config.get("quantization_config")
    if "quantization" in config and not (isinstance(quantised, dict) and "quant_method" in quantised):
        return f"weights quantised for MLX, which are not read; {of}"
    if quantised is None and any((folder / name).is_file() for name in QUANTISED):
        return f"weights quantised by GPTQ, AWQ or a library like them, which are not read; {of}"
    is_ctranslate2 = "model_type" not in config and (folder / "model.bin").is_file()
    if is_ctranslate2 and any((folder / name).is_file() for name in VOCABULARIES):
        return f"weights converted for CTranslate2, which are not read; {of}"
    return ""


def _deeper(folder: Path) -> str:
    """Say which folder within has a model; empty if none has."""
    configs = (path for pattern in INNER_CONFIGS for path in sorted(folder.glob(pattern)))
    inner = next((path.parent for path in configs if "model_type" in json_object(path)), None)
    return "" if inner is None else f"no config.json here; to take the model in it, give {printable(str(inner))}"


def _adapter(path: Path) -> str:
    content = json_object(path)
    base, kind = (redacted(str(content.get(name) or "")) for name in ("base_model_name_or_path", "peft_type"))
    base = f" of {printable(base[:MAX_NAME_CHARACTERS])}" if base else ""
    return (
        f"an adapter ({printable(kind[:20]) or 'PEFT'}){base}, not a whole model; merge it with "
        "`peft.AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload().save_pretrained(NEW)`, save the "
        "tokenizer to NEW too, and give NEW"
    )
