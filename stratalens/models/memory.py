"""Memory of this process."""

import ctypes
import resource
import sys
from pathlib import Path


def peak_memory_bytes() -> int:
    """Largest resident set so far, or the largest allocation on cuda where that is more, in bytes."""
    import torch

    peak = _peak_resident_bytes()
    if torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak


def _peak_resident_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage tells on Linux begins with the peak of the process that started this one
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
"""How allocators of PyTorch's backends say that memory is used up, where they raise a plain RuntimeError."""


def out_of_memory(problem: BaseException) -> bool:
    """Whether an error means that memory, of the device or of the host, is used up."""
    import torch

    if isinstance(problem, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem) for words in ALLOCATION_FAILURES)


def release_free_memory() -> None:
    """Give freed memory back to the system where the C library can (glibc), lest it pile up in fragments."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
