"""Memory over the time of a run on a large corpus with a tiny model; it must stay flat once all latents have fired.

python bench/flat.py [--megabytes 500]
"""

import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
import tyro
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stratalens.corpus.builtin import text_file
from stratalens.corpus.reading.readers import read_rows
from stratalens.corpus.text_files import find_files
from stratalens.models.embedded import dense_copy

WIDTH, LATENTS, BLOCKS = 32, 64, 2
DOCUMENT_SENTENCES = 60


@dataclass(frozen=True)
class Options:
    """What to measure."""

    megabytes: int = 500
    """Megabytes of text, both sides together."""


def write_model(folder: Path) -> None:
    """Write a random Llama of two blocks with the real tokenizer, and an SAE of its second block."""
    tokenizer = AutoTokenizer.from_pretrained(dense_copy().directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    rows = torch.nn.functional.normalize(torch.randn(LATENTS, WIDTH), dim=1)
    tensors = {"encoder.weight": rows.clone(), "encoder.bias": torch.zeros(LATENTS), "W_dec": rows}
    sae_folder = folder / "saes" / f"layers.{BLOCKS - 1}"
    sae_folder.mkdir(parents=True)
    save_file(tensors | {"b_dec": torch.zeros(WIDTH)}, sae_folder / "sae.safetensors")
    (sae_folder / "cfg.json").write_text(json.dumps({"num_latents": LATENTS, "k": 8, "d_in": WIDTH}))


def write_text(source: Path, target: Path, size_bytes: int) -> None:
    """Write documents of a few kilobytes, each a new random mixture of sentences of the built-in texts."""
    rows = [row for file in find_files([source]) for row in read_rows(file)]
    sentences = [s.strip() + "." for row in rows for s in row.text.split(". ") if len(s.split()) > 5]
    generator = random.Random(0)
    with target.open("w", encoding="utf-8") as stream:
        while stream.tell() < size_bytes:
            for _ in range(100):
                stream.write(json.dumps({"text": " ".join(generator.choices(sentences, k=DOCUMENT_SENTENCES))}) + "\n")


def main(options: Options) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        command = [sys.executable, "-m", "stratalens", "analyze", "--quiet", "--allow_poor_fit", "--no_examples"]
        command += ["--base_model", str(folder / "model"), "--sae_model", str(folder / "saes")]
        for option, side in (("--domain_data", "financial"), ("--general_data", "general")):
            write_text(text_file(side), folder / f"{side}.jsonl", options.megabytes * 500_000)
            command += [option, str(folder / f"{side}.jsonl")]
        started = time.perf_counter()
        process = psutil.Popen([*command, "--threads", "1", "--output_dir", str(folder / "out")])
        resident_mb = []
        while process.poll() is None:
            resident_mb.append(process.memory_info().rss / 1e6)
            time.sleep(1)
        seconds = time.perf_counter() - started
        assert process.returncode == 0
        record = json.loads((folder / "out" / "run.json").read_text())
        print(
            f"{options.megabytes} MB, {record['documents']:,} documents, {record['tokens']:,} tokens: {seconds:.0f} s"
        )
        points = [resident_mb[min(len(resident_mb) - 1, len(resident_mb) * tenth // 10)] for tenth in range(11)]
        print("resident MB at each tenth of the time: " + " ".join(f"{point:,.0f}" for point in points))
        print(f"peak {record['peak_memory_bytes'] / 1e6:,.0f} MB")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
