"""The time that a dry run estimates: blocks and encoders, by a product that keeps the device busy."""

import re
import time
from typing import Any

import pytest
import torch
from refusal import with_options
from tiny import TINY_LATENTS, TINY_WIDTH, write_sae

from stratalens.cli.main import main
from stratalens.commands import dry_run


def test_the_product_on_a_gpu_is_large_and_its_end_is_waited_for(monkeypatch):
    """The GPU pretends: its matrices have no values, and its products take effect when they are waited for."""
    events: list[Any] = []

    class Matrix:
        def __matmul__(self, _other: object) -> None:
            events.append("product")

    def ones(*shape: int, device: torch.device, dtype: torch.dtype) -> Matrix:
        events.append((shape, device.type, dtype))
        return Matrix()

    def synchronize(*_device: torch.device) -> None:
        time.sleep(0.002 if events[-1] == "product" else 0)
        events.append("waited")

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.mps, "synchronize", synchronize)
    for device, side in (("cuda", 8192), ("mps", 4096)):
        events.clear()
        speed = dry_run.matrix_speed(torch.device(device), torch.bfloat16)
        assert events[0] == ((side, side), device, torch.bfloat16)
        assert events[1:] == ["waited", "product", "waited"] * dry_run.MATRIX_ROUNDS
        assert 0.2 * side**3 / 0.001 < speed < side**3 / 0.001, "the time of the product, not of its start"


def test_a_product_on_the_cpu_is_measured():
    assert 1e8 < dry_run.matrix_speed(torch.device("cpu"), torch.float32) < 1e14


def estimated(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, float]:
    assert main(["analyze", *arguments, "--dry_run"]) == 0
    printed = capsys.readouterr().out
    match = re.search(r"million parameters and ([\d,.]+) million of encoders", printed)
    seconds = re.search(r"About ([\d,]+) seconds? of reading", printed)
    assert match is not None, printed
    assert seconds is not None, printed
    return match[1], float(seconds[1].replace(",", ""))


def test_the_encoders_count_in_float32(tiny_arguments, tmp_path, capsys, monkeypatch):
    """The model is a hundred times as fast in its own type as the encoders in float32."""
    monkeypatch.setattr(dry_run, "matrix_speed", lambda _device, dtype: 2e9 if dtype == torch.bfloat16 else 2e7)
    monkeypatch.setattr(dry_run, "count_tokens", lambda _inputs: 1000)
    monkeypatch.setattr(dry_run, "SUSTAINED_SHARE", 1.0)
    monkeypatch.setattr(dry_run, "count_parameters", lambda *_given: (10_000, 0))
    write_sae(tmp_path / "saes" / "layers.1")
    arguments = with_options(tiny_arguments, {"dtype": "bfloat16", "sae_model": str(tmp_path / "saes")})
    encoders = TINY_LATENTS * TINY_WIDTH
    assert estimated(arguments, capsys) == ("0.0", round(1000 * (10_000 / 1e9 + encoders / 1e7)))
    write_sae(tmp_path / "saes" / "layers.2")
    monkeypatch.setattr(dry_run, "count_tokens", lambda _inputs: 100_000)
    assert estimated(arguments, capsys) == ("0.0", round(100_000 * (10_000 / 1e9 + 2 * encoders / 1e7)))
