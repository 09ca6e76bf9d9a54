"""Pretend that GPUs are there: their number and free memory, for what plans by them. No tensor can lie on them."""

from collections.abc import Sequence

import pytest
import torch


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, free_bytes: Sequence[int], total_bytes: int | None = None) -> None:
    """Let PyTorch say that there are GPUs with so much free memory each, of which the first is the current one."""

    def memory(device: torch.device | int | str | None = None) -> tuple[int, int]:
        device = device if isinstance(device, int) else torch.device(device or "cuda").index or 0
        return free_bytes[device], total_bytes or free_bytes[device]

    answers = {
        "is_available": lambda: True,
        "device_count": lambda: len(free_bytes),
        "current_device": lambda: 0,
        "mem_get_info": memory,
        "memory_reserved": lambda _device=None: 0,
        "memory_allocated": lambda _device=None: 0,
        "is_bf16_supported": lambda **_options: True,
        "empty_cache": lambda: None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
