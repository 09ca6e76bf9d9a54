"""The number of tokens per batch where the user leaves it to the program."""

import torch

from stratalens.config.options import HOST_BATCH_TOKENS, RunConfig
from stratalens.models.loading import choose_device
from stratalens.models.placement import current_gpu

LARGE_GPU_TOKENS = 16_384
"""A small model keeps a large GPU busy only with large batches."""
GPU_TOKENS = 4096
"""On smaller GPUs, and on mps."""
LARGE_GPU_BYTES = 24_000_000_000
"""A GPU of at least so much memory is a large one."""


def with_batch_tokens(config: RunConfig) -> RunConfig:
    """Replace `--batch_tokens auto` by the number for the device, before anything depends on it.

    Raises:
        ModelError: the machine does not have the device.
    """
    if config.batch_tokens != "auto":
        return config
    number = default_batch_tokens(choose_device(config.device))
    return config.model_copy(update={"batch_tokens": max(number, config.max_length)})


def default_batch_tokens(device: torch.device) -> int:
    """Tokens per batch on a device."""
    if device.type == "cpu":
        return HOST_BATCH_TOKENS
    is_large = device.type == "cuda" and torch.cuda.mem_get_info(current_gpu(device))[1] >= LARGE_GPU_BYTES
    return LARGE_GPU_TOKENS if is_large else GPU_TOKENS
