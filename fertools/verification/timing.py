"""Milliseconds a call, measured side by side on one processor."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

ROUNDS = 7
CALLS = 20


def interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call: after a warm-up, rounds in which the calls take turns.

    A drifting machine then slows all of them alike, and the ratios hold.
    """
    for call in calls.values():
        for _ in range(3):
            call()
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            samples = []
            for _ in range(CALLS):
                start = time.perf_counter()
                call()
                samples.append(time.perf_counter() - start)
            rounds[name].append(statistics.median(samples))
    return {name: statistics.median(medians) * 1e3 for name, medians in rounds.items()}


def can_pin() -> bool:
    """Whether this system lets a process's threads be kept on one processor (Linux)."""
    return hasattr(os, "sched_setaffinity") and Path("/proc/self/task").is_dir()


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep all threads of this process on one of its processors, so that every engine gets one.

    TensorFlow fixes its thread count at its first use; this is the way to limit it afterwards. Threads
    that start in the block stay on the processor until it ends, and then get what the others had.
    """
    before: dict[int, set[int]] = {}
    for thread in _threads():
        with suppress(ProcessLookupError):  # it may have ended meanwhile
            before[thread] = os.sched_getaffinity(thread)
    chosen = {min(os.sched_getaffinity(0))}
    try:
        for thread in before:
            _set_affinity(thread, chosen)
        yield
    finally:
        everywhere = set().union(*before.values())
        for thread in _threads():
            _set_affinity(thread, before.get(thread, everywhere))


def _threads() -> list[int]:
    return [int(task.name) for task in Path("/proc/self/task").iterdir()]


def _set_affinity(thread: int, processors: set[int]) -> None:
    with suppress(ProcessLookupError):
        os.sched_setaffinity(thread, processors)
