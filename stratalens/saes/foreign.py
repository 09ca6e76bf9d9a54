"""Recognise folders that hold SAEs of a format that is not read, or no SAEs, by the names of their files."""

import re
from pathlib import Path
from typing import NamedTuple

from stratalens.files.json_files import json_object
from stratalens.saes.tree import SaeTree

MODEL_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "model.safetensors.index.json")
"""Files that folders of models have."""
REMEDY = "which are not read; docs/formats.md lists the formats that are"


class _Kind(NamedTuple):
    """SAEs of another library."""

    library: str
    weights: str
    """Expression for the name of a file of weights."""
    beside: str = ""
    """Name of a file that is in the same folder; empty for none."""
    setting: str = ""
    """A setting in that file; empty for none."""


KINDS = (
    _Kind("OpenSAE", r".*\.safetensors", "config.json", "input_normalize"),
    _Kind("Llamascopium without hook_point_in in their config.json", r"sae_weights\.(safetensors|pt)", "config.json"),
    _Kind("a library that pickles them", r"(?i).*sae.*\.pth?"),
)
"""In the order in which they are tried."""


def foreign_reason(tree: SaeTree) -> str:
    """Say what some files hold in place of SAEs that are read, and what to do; empty if that is not known."""
    root, files = tree.root, tree.files
    if _is_model(root):
        return "a language model, not SAEs; give it with --base_model, and its SAEs with --sae_model"
    for kind in KINDS:
        for path in files:
            beside = path.with_name(kind.beside or path.name)
            if not re.fullmatch(kind.weights, path.name) or beside not in files:
                continue
            if not kind.setting or kind.setting in json_object(beside):
                return f"it holds SAEs of {kind.library} ({path.relative_to(root)}), {REMEDY}"
    return ""


def _is_model(root: Path) -> bool:
    if next(root.glob("*.gguf"), None):
        return True
    content = json_object(root / "config.json")
    is_named = any((root / name).exists() for name in MODEL_FILES) or bool(content.get("architectures"))
    return is_named and isinstance(content.get("model_type"), str)
