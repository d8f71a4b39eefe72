"""The processor's name and instruction sets, which decide how fast and how exactly a network runs."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

#: Flags (Linux' names) that decide how fast int8 runs and whether 8-bit products can saturate.
INT8_FEATURES = frozenset(
    ("avx2", "avx512bw", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")
)


@cache
def processor() -> tuple[str, frozenset[str]]:
    """Return name and instruction-set flags as Linux reports them; elsewhere a name and no flags."""
    name, flags = "", frozenset[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key.lower() == "model name":
            name = name or value
        elif key.lower() in ("flags", "features"):
            flags |= frozenset(value.split())
    return name or platform.processor() or platform.machine(), flags


def int8_features() -> list[str]:
    """Return the flags of ``INT8_FEATURES`` that this processor has."""
    return sorted(processor()[1] & INT8_FEATURES)
