"""The number of processors that this process may really use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Return the number of processors available to this process, at least 1.

    Takes into account the affinity mask (taskset, Slurm, Docker's ``--cpuset-cpus``) and the container's CPU
    quota (Docker's ``--cpus``, Kubernetes' limits); ``os.cpu_count`` sees neither.
    """
    if sys.version_info >= (3, 13):
        cpus = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    quota = cpu_quota()
    # Rounded down: the kernel would pause a thread pool larger than the quota in the middle of a prediction.
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def cpu_quota(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> float | None:
    """Return the CPU quota of this process's control groups in processors, e.g. 1.5; None if there is none.

    Of nested groups the tightest counts. Reads version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``)
    as described in the kernel's admin-guide/cgroup-v2.rst and sched-bwc.rst.
    """
    quotas = [quota for folder in _folders(cgroups, membership) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def _folders(cgroups: Path, membership: Path) -> list[Path]:
    """Return the control groups of this process and all their visible parents."""
    folders = []
    for line in _text(membership).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")  # version 2 names no controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / "cpu" if controllers else cgroups
        group = root / path.strip("/")
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return folders


def _quota(folder: Path) -> float | None:
    limit, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not limit:
        limit, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    try:
        quota = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or no such file
        return None
    return quota if quota > 0 else None  # version 1 writes -1 for none


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
