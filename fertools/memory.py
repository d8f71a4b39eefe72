"""How much memory this process has used."""

from __future__ import annotations

import sys


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
