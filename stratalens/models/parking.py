"""Keep a model in the memory of the host for a while, so that others can use its GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from stratalens.models.memory import release_device_memory

HOST = torch.device("cpu")


@contextmanager
def parked_on_host(model: nn.Module) -> Iterator[None]:
    """While open, weights and buffers of a model are on the host; afterwards each is where it was.

    They are moved one by one, since a model that is spread over GPUs or quantised refuses to be moved as a whole.
    """
    away = [one for one in chain(model.parameters(), model.buffers()) if one.device != HOST]
    homes = [one.device for one in away]
    _move(away, [HOST] * len(away))
    if away:
        release_device_memory()
    try:
        yield
    finally:
        _move(away, homes)


def _move(tensors: list[Tensor], devices: list[torch.device]) -> None:
    for tensor, device in zip(tensors, devices, strict=True):
        tensor.data = tensor.data.to(device)
