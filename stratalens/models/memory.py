"""Measure and free the memory of this process, and recognise errors that mean it is used up."""

import ctypes
import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Peak so far of the resident set, or of the allocations on cuda if that is larger, in bytes."""
    import torch

    peak = _peak_resident_bytes()
    if torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, ru_maxrss starts from the peak of the parent process
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


ALLOCATION_FAILURES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "bad_alloc",
)
"""Texts by which a plain RuntimeError of one of PyTorch's allocators shows that memory is used up."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the memory of the device or of the host is used up."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in ALLOCATION_FAILURES)


def release_free_memory() -> None:
    """Return freed memory to the operating system where the C library can (glibc), so that fragments do not add up."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
