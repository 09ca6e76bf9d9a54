"""Measure and free the memory of this process and its devices, and recognise errors that mean it is used up."""

import ctypes
import resource
import sys
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

USABLE_SHARE = 0.9
"""Share of the free memory that a run plans to use."""


class MemoryBytes(NamedTuple):
    """Bytes of the memory of the host and of the device: what is needed, or what may be used."""

    host: int
    device: int
    """0 where the model runs on the CPU; of several GPUs, the sum."""

    def fits(self, limit: "MemoryBytes") -> bool:
        """Whether neither exceeds its limit."""
        return self.host <= limit.host and self.device <= limit.device


def peak_memory_bytes() -> int:
    """Peak so far of the resident set, or of the allocations on all GPUs together if that is larger, in bytes."""
    return max(peak_resident_bytes(), peak_device_bytes())


def peak_resident_bytes() -> int:
    """Peak so far of the resident set of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, ru_maxrss starts from the peak of the parent process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_device_bytes() -> int:
    """Sum over all GPUs of the peak of PyTorch's allocations, in bytes; 0 without one, and on mps, which keeps none."""
    if not torch.cuda.is_available():
        return 0
    return sum(torch.cuda.max_memory_allocated(number) for number in range(torch.cuda.device_count()))


def free_host_bytes() -> int:
    """Bytes of the machine's memory that are free now."""
    return psutil.virtual_memory().available


def free_gpu_bytes(number: int) -> int:
    """Bytes of a GPU that are free now, with those that PyTorch keeps for itself but does not use."""
    unused = torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number)
    return torch.cuda.mem_get_info(number)[0] + unused


def free_mps_bytes() -> int:
    """Bytes of its memory that Metal lets one process use, less what it uses now; at most what is free of the host."""
    return min(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory(), free_host_bytes())


ALLOCATION_FAILURES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Invalid buffer size",
)
"""Texts by which a plain RuntimeError of PyTorch or of a library that it calls shows that memory is used up; Metal
gives the last one for a buffer above its limit."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the host is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATION_FAILURES)


def release_device_memory() -> None:
    """Return to the device what PyTorch keeps of its memory but does not use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def release_free_memory() -> None:
    """Return freed memory to the operating system where the C library can (glibc), so that fragments do not add up."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
