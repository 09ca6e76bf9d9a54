"""Memory and time to load a wide SAE, watched from outside: copies of its weights at the peak, for each thing read.

python bench/wide_sae.py [--latents 1048576] [--d_model 256]
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
import tyro
from safetensors.torch import save_file

MAX_COPIES = 1.2
"""Allowed peak, in copies of the weights as they are on disk."""
READS = {
    "encoder": "sae.encoder()",
    "decoder norms": "sae.decoder().norms()",
    "whole, and tokens": "whole = sae.load(); whole.decode(whole.encode(x), x)",
}
"""What a run reads of an SAE -> how."""
CHILD = """
import sys
from pathlib import Path
import torch
from stratalens.hookpoint import Hookpoint
from stratalens.saes.formats.sparsify import describe
from stratalens.saes.sae import Checkpoint
torch.set_num_threads(1)
with torch.inference_mode():
    sae = describe(Checkpoint(Path(sys.argv[1]), Hookpoint(0), Hookpoint(0), "layers.0"))
    x = torch.ones(8, sae.d_model)
    print("ready", flush=True)
    sys.stdin.readline()
    READ
    print("done", flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    latents: int = 1_048_576
    d_model: int = 256


class Reading(NamedTuple):
    """What it took to read something of an SAE."""

    bytes: int
    """Peak of the memory of the process, above what it had before."""
    seconds: float


def write_random_sae(folder: Path, latents: int, d_model: int) -> int:
    """Write a random checkpoint in sparsify's format, in float32; return the size of its weights in bytes."""
    folder.mkdir(parents=True)
    weights = {
        "encoder.weight": torch.randn(latents, d_model),
        "encoder.bias": torch.randn(latents),
        "W_dec": torch.randn(latents, d_model),
        "b_dec": torch.randn(d_model),
    }
    save_file(weights, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"num_latents": latents, "k": 32, "d_in": d_model}))
    return (folder / "sae.safetensors").stat().st_size


def read_watched(folder: Path, read: str) -> Reading:
    """Read something of an SAE in a process of its own, and look at its memory from here.

    Args:
        folder: of the checkpoint.
        read: one of `READS`.
    """
    words = [sys.executable, "-c", CHILD.replace("READ", READS[read]), str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        before, started = _memory(child.pid, "VmRSS"), time.perf_counter()
        print(file=child.stdin, flush=True)
        assert child.stdout.readline() == "done\n"
        seconds = time.perf_counter() - started
        reading = Reading(_memory(child.pid, "VmHWM") - before, seconds)
        print(file=child.stdin, flush=True)
    return reading


def _memory(process: int, name: str) -> int:
    match = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert match is not None
    return 1024 * int(match[1])


def main(options: Options) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name) / "layers.0"
        size = write_random_sae(folder, options.latents, options.d_model)
        print(f"{options.latents:,} latents of width {options.d_model}: {size / 1e9:.2f} GB of weights")
        copies = {}
        for read in READS:
            reading = read_watched(folder, read)
            copies[read] = reading.bytes / size
            print(
                f"{read}: {reading.bytes / 1e9:.2f} GB at the peak, {copies[read]:.2f} copies, {reading.seconds:.1f} s"
            )
    if max(copies.values()) > MAX_COPIES:
        sys.exit(f"{max(copies.values()):.2f} copies of the weights at the peak; allowed {MAX_COPIES}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
