"""`bench/device.py`: every part of it runs, at a tiny size on the CPU; on a GPU it has the sizes that count."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stratalens

SCRIPT = Path(stratalens.__file__).parents[1] / "bench" / "device.py"
PARTS = {
    "tiny": ("same_top_30", "specialization_change", "auroc_change", "same_labels"),
    "embedded": ("same_top_30", "seconds", "cpu_seconds"),
    "reduce": ("entries", "error", "ms"),
    "bytes": ("twice_in_one_process", "in_another_process"),
    "products": ("bfloat16 weights, float32", "float32 weights, float32"),
    "topk": ("topk_ms",),
    "waits": ("waits", "slowest_ms"),
    "out_of_memory": ("batches_halved", "change_of_sums", "bytes_left"),
    "memory": ("1 layers", "2 layers", "two passes"),
    "quantised": ("8bit", "4bit", "float16"),
    "speed": ("batches of 512", "batches of 1024", "batches of 2048"),
    "wide": ("batches of 2048",),
}
"""Name of a part -> some of the numbers that it gives."""


def measured(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--output", str(folder / "device.json"), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def every_part(tmp_path_factory) -> dict[str, dict]:
    """Name of a part -> what the record says of it, of one run of all parts."""
    folder = tmp_path_factory.mktemp("device")
    done = measured(folder, "--device", "cpu", "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(PARTS)} of {len(PARTS)} parts ran and were right" in done.stdout
    return json.loads((folder / "device.json").read_text())["parts"]


@pytest.mark.real
@pytest.mark.parametrize("part", PARTS)
def test_a_part_runs_at_a_tiny_size_and_is_right(part, every_part):
    numbers = every_part[part]["numbers"]
    assert set(PARTS[part]) <= set(numbers)
    assert numbers.get("right", True)
    if part == "memory":
        assert [numbers[name]["passes"] for name in PARTS[part]] == [1, 1, 2]
        assert all(own["host_announced"] is not None for own in numbers.values())


@pytest.mark.real
def test_a_part_that_fails_is_told_and_the_others_run(tmp_path):
    done = measured(tmp_path, "--device", "mps", "--small", "--parts", "topk", "reduce")
    assert done.returncode == 1
    assert "look at: topk reduce" in done.stdout
    parts = json.loads((tmp_path / "device.json").read_text())["parts"]
    assert all(own["failed"] for own in parts.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path):
    done = measured(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("no GPU here: nothing was measured")
    assert not (tmp_path / "device.json").exists()
