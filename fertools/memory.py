"""Peak memory of this process, and keeping freed memory."""

from __future__ import annotations

import ctypes
import sys

#: Parameters of glibc's ``mallopt`` (malloc.h) and the values that make it keep memory.
KEEPING = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads; per-thread heaps of 64 MiB are returned when empty
    -4: 0,  # M_MMAP_MAX: no block gets fresh pages of its own; older glibcs refuse a high M_MMAP_THRESHOLD
    -1: -1,  # M_TRIM_THRESHOLD: the top of the heap is never given back
    -2: 2**26,  # M_TOP_PAD: extra bytes by which the heap grows
}


def keep_memory() -> bool:
    """Make the C library reuse freed memory instead of returning it to the system.

    A training step allocates and frees the memory of all activations and gradients; taken from the system
    each time, it costs a page fault every 4 KiB (docs/recipe.md). Call it before TensorFlow starts its
    threads. The process then keeps its peak memory to its end.

    Returns whether it took effect: it needs glibc and does nothing elsewhere.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    taken = [library.mallopt(parameter, value) for parameter, value in KEEPING.items()]
    return all(taken)


def peak_memory() -> int | None:
    """Return the peak resident memory of this process in bytes; None where the system does not report it."""
    if sys.platform == "linux":
        # Not getrusage: its maximum includes the process image before exec.
        with open("/proc/self/status") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")), None)
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
