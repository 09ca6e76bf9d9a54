"""A device that is not there: tensors are computed on the CPU, and say that they are elsewhere.

What such a device is known for is made to raise: tensors of two devices in one call, and on mps float64 and `unique` of
large keys. Speed, memory and rounding of a real device are not pretended, nor what happens inside a call.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

MOVES = (Tensor.to, Tensor.cpu, Tensor.copy_)
UNIQUE = (torch.unique, Tensor.unique)
LARGEST_UNIQUE_KEY = 2**24
CPU = torch.device("cpu")


class PretendedTensor(Tensor):
    """A tensor of a pretended device; `on_cpu` has its numbers."""

    on_cpu: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, device: torch.device) -> "PretendedTensor":
        own = Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=numbers.dtype, device=device)
        own.on_cpu = numbers
        return own

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} of a pretended tensor where its device is not pretended")


class PretendedDevice(TorchFunctionMode):
    """While open, there is a device of this type, such as `mps`."""

    def __init__(self, kind: str):
        super().__init__()
        self.device = torch.device(kind, 0)
        self.calls = 0
        """Calls that were computed on the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        values = tree_flatten((args, kwargs))[0]
        here = [value for value in values if isinstance(value, PretendedTensor)]
        if func == Tensor.device.__get__ and here:
            return self.device
        named = [torch.device(value) for value in values if isinstance(value, torch.device) or value == "cpu"]
        target = CPU if func is Tensor.cpu else named[0] if named else self.device if here else CPU
        if here and func not in MOVES:
            self._check(func, [value for value in values if isinstance(value, Tensor)])
        result = func(*tree_map(_here, args), **tree_map(_here, kwargs))
        if target.type != self.device.type:
            return result
        self.calls += 1
        in_place = [value for value in here if value.on_cpu is result]
        return in_place[0] if in_place else tree_map(self._there, result)

    def _check(self, func: Any, tensors: list[Tensor]) -> None:
        if any(not isinstance(value, PretendedTensor) and value.ndim > 0 for value in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        if self.device.type == "mps" and func in UNIQUE:
            keys = _here(tensors[0])
            if keys.numel() and int(keys.max()) > LARGEST_UNIQUE_KEY:
                raise RuntimeError("unique is wrong for such keys on mps")

    def _there(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if self.device.type == "mps" and value.dtype in (torch.float64, torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64: the framework does not support it")
        return PretendedTensor(value, self.device)


def _here(value: Any) -> Any:
    """What a call on the CPU gets in the place of an argument."""
    return value.on_cpu if isinstance(value, PretendedTensor) else CPU if isinstance(value, torch.device) else value
