"""A model that is cut takes the memory of the blocks that are left.

Peaks are read from /proc: that of `getrusage` begins with the memory of the process that started this one.
"""

import subprocess
import sys
from pathlib import Path

import pytest

LOAD = """
import re, sys, torch
from stratalens.models.loading import Placement, load_model
blocks = int(sys.argv[2]) or None
load_model(sys.argv[1], blocks=blocks, placement=Placement(torch.device("cpu"), torch.float32))
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""
BLOCK_BYTES = 3_540_096 * 4
"""Of a block of the embedded model in float32: attention 884,736 x 1, MLP 2,654,208, two norms."""


@pytest.mark.real
@pytest.mark.serial
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_blocks_that_are_left_out_are_never_in_memory(embedded_model):
    def peak(blocks: int) -> int:
        words = [sys.executable, "-c", LOAD, str(embedded_model), str(blocks)]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    saved = peak(0) - peak(2)
    assert saved > 0.8 * 28 * BLOCK_BYTES
