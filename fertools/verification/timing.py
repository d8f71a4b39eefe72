"""Milliseconds per call, measured side by side on one processor."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROUNDS = 7
#: Most calls of one kind per round, and about how many seconds they may take.
CALLS = 20
LONGEST_ROUND = 1.0
#: Seconds after which idle threads of any engine sleep.
SPINNING = 0.1


def interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call, see ``in_turns``."""
    return {name: typical(rounds) * 1e3 for name, rounds in in_turns(calls).items()}


def typical(rounds: Sequence[Sequence[float]]) -> float:
    """Return the median of the rounds' medians, which one slow round does not change."""
    return statistics.median(map(statistics.median, rounds))


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, *, threads: int = 1
) -> dict[str, list[list[float]]]:
    """Return the seconds of each call, one list per round; the calls take turns, after a warm-up.

    A drifting machine then slows all of them alike, and the ratios hold. A slow call is made less often per
    round. If a call has several ``threads``, each turn waits until the threads of the previous one have
    stopped spinning: onnxruntime's spin for some 40 ms and would occupy the processor.
    """
    counts = {name: calls_a_round(call) for name, call in calls.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if threads > 1:
                time.sleep(SPINNING)
                call()  # so that its own threads are awake
            found[name].append([seconds(call) for _ in range(counts[name])])
    return found


def calls_a_round(call: Callable[[], object], most: int = CALLS) -> int:
    """Return how often to make the call per round, 1 to ``most`` times, after three calls for warm-up."""
    longest = max(seconds(call) for _ in range(3))
    return max(min(most, int(LONGEST_ROUND / max(longest, 1e-9))), 1)


def seconds(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def can_pin() -> bool:
    """Whether this system can pin the threads of a process to one processor (Linux)."""
    return hasattr(os, "sched_setaffinity") and Path("/proc/self/task").is_dir()


@contextmanager
def one_processor() -> Iterator[None]:
    """Keep all threads of this process on one of its processors, so that every engine gets one.

    TensorFlow fixes its thread count at its first use; this is the way to limit it afterwards. Threads
    that start in the block stay on the processor until it ends, and then get what the others had.
    """
    before: dict[int, set[int]] = {}
    for thread in _threads():
        with suppress(ProcessLookupError):  # the thread may have ended meanwhile
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
