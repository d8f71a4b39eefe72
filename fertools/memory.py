"""How much memory this process has used, and keeping what it has."""

from __future__ import annotations

import ctypes
import sys

#: Parameters of glibc's ``mallopt`` (malloc.h), with what makes it keep memory.
KEEPING = {
    -8: 1,  # M_ARENA_MAX: one heap for all threads; theirs hold 64 MiB each and are given back when empty
    -3: 2**30,  # M_MMAP_THRESHOLD: smaller blocks come from the heap, not as fresh pages of their own
    -1: -1,  # M_TRIM_THRESHOLD: the top of the heap is never given back
    -2: 2**26,  # M_TOP_PAD: the heap grows by so many bytes more than are asked for
}


def keep_memory() -> bool:
    """Have the C library reuse freed memory, where it would give it back to the system.

    A training step asks for the memory of all activations and gradients and frees it; taken from the system
    each time, it costs a page fault every 4 KiB (docs/recipe.md). Call it before TensorFlow starts its
    threads. What the process once had it holds to its end.

    Returns whether it took effect: only glibc has what it takes; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all(library.mallopt(parameter, value) for parameter, value in KEEPING.items())


def peak_memory() -> int | None:
    """Largest resident memory of this process so far, in bytes; None where the system does not tell."""
    if sys.platform == "linux":
        # Not getrusage: its maximum holds what the process was before it became this one, too.
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
