"""Check and measure a run on a GPU, part by part, in under ten minutes; without one it says so and does nothing.

python bench/device.py [--output device.json] [--parts speed memory]

`--device cpu --small` runs every part at a tiny size on any machine, to see that it runs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import tyro
from device_setting import Numbers, Setting

PARTS: Mapping[str, tuple[str, str, int]] = {
    "tiny": ("device_checks", "tiny_run", 60),
    "embedded": ("device_checks", "embedded_run", 100),
    "reduce": ("device_checks", "reduction", 40),
    "bytes": ("device_checks", "same_bytes", 60),
    "products": ("device_speed", "products", 45),
    "topk": ("device_speed", "selection", 30),
    "waits": ("device_checks", "waits", 45),
    "out_of_memory": ("device_checks", "out_of_memory", 45),
    "memory": ("device_speed", "announced_memory", 100),
    "quantised": ("device_speed", "quantised", 80),
    "speed": ("device_speed", "speed", 60),
    "wide": ("device_speed", "wide_speed", 90),
}
"""Name of a part -> its module, its function, and the seconds that it may take. The first ones matter most."""
TOTAL_SECONDS = 570
"""Time of all parts together; one that would begin later is left out."""
MARK = "NUMBERS "
"""What the line of a part's numbers begins with."""


@dataclass(frozen=True)
class Options:
    """What to run, and where."""

    device: str = "cuda"
    small: bool = False
    """Tiny sizes, to see that every part runs."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Names of the parts to run, in this order."""
    output: str = "device.json"
    """File for the numbers of all parts."""
    part: str | None = None
    """Run this part in this process and print its numbers."""
    folder: str = ""
    """Folder for its files."""


def run_part(options: Options) -> None:
    """Run one part in this process."""
    module, function, _ = PARTS[options.part or ""]
    setting = Setting(torch.device(options.device), options.small, Path(options.folder))
    with torch.inference_mode():
        numbers: Numbers = getattr(__import__(module), function)(setting)
    print(MARK + json.dumps(numbers), flush=True)


def numbers_of(name: str, options: Options, folder: Path, seconds: float) -> Numbers:
    """Run one part in a process of its own, which cannot disturb the others."""
    words = ["--part", name, "--device", options.device, "--folder", str(folder)]
    command = [sys.executable, str(Path(__file__).resolve()), *words, *(["--small"] if options.small else [])]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {seconds:.0f} s"}
    spent: Numbers = {"seconds_spent": round(time.perf_counter() - started, 1)}
    lines = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        return spent | {"failed": " | ".join(done.stderr.strip().splitlines()[-3:])[-600:]}
    return spent | {"numbers": json.loads(lines[-1])}


def main(options: Options) -> int:
    if options.part is not None:
        run_part(options)
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU here: nothing was measured (every part runs on the CPU with --device cpu --small)")
        return 0
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    print(f"{name}, torch {torch.__version__}", flush=True)
    found: dict[str, Numbers] = {}
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        for part in options.parts:
            left = TOTAL_SECONDS - (time.perf_counter() - started)
            if left < 10:
                found[part] = {"failed": "no time was left"}
            else:
                own = Path(folder) / part
                own.mkdir()
                found[part] = numbers_of(part, options, own, min(left, PARTS[part][2]))
            print(f"{part}: {json.dumps(found[part])}", flush=True)
    record = {"device": name, "torch": str(torch.__version__), "cores": os.cpu_count(), "parts": found}
    Path(options.output).write_text(json.dumps(record, indent=2) + "\n")
    bad = [part for part, own in found.items() if "failed" in own or _is_wrong(own)]
    print(f"{len(found) - len(bad)} of {len(found)} parts ran and were right; see {options.output}")
    if bad:
        print(f"look at: {' '.join(bad)}")
    return 1 if bad else 0


def _is_wrong(own: Numbers) -> bool:
    numbers = own.get("numbers")
    return isinstance(numbers, dict) and numbers.get("right") is False


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
