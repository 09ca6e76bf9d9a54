"""Memory of this process."""

import ctypes
import resource
import sys


def peak_memory_bytes() -> int:
    """Largest resident set so far, or the largest allocation on cuda where that is more, in bytes."""
    import torch

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak


def release_free_memory() -> None:
    """Give freed memory back to the system where the C library can (glibc), lest it pile up in fragments."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
