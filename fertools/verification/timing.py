"""Milliseconds a call, measured side by side on one processor."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROUNDS = 7
#: Calls of one kind in a round, and about how many seconds they may take.
CALLS = 20
LONGEST_ROUND = 1.0
#: Seconds after which idle threads of any engine sleep.
SPINNING = 0.1


def interleaved(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call, see ``in_turns``."""
    return {name: typical(rounds) * 1e3 for name, rounds in in_turns(calls).items()}


def typical(rounds: Sequence[Sequence[float]]) -> float:
    """The median of the rounds' medians: one slow round does not move it."""
    return statistics.median(map(statistics.median, rounds))


def in_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, *, threads: int = 1
) -> dict[str, list[list[float]]]:
    """Seconds of each call, a list a round: after a warm-up, rounds in which the calls take turns.

    A drifting machine then slows all of them alike, and the ratios hold. A call that takes long is made
    less often in a round. Where a call has several ``threads``, each turn waits until those of the one before
    have stopped spinning: onnxruntime's go on for some 40 ms and would take the processor.
    """
    counts = {name: calls_a_round(call) for name, call in calls.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if threads > 1:
                time.sleep(SPINNING)
                call()  # its own threads are awake then
            found[name].append([seconds(call) for _ in range(counts[name])])
    return found


def calls_a_round(call: Callable[[], object], most: int = CALLS) -> int:
    """How often to make the call in a round, 1 to ``most`` times, after three for warm-up."""
    longest = max(seconds(call) for _ in range(3))
    return max(min(most, int(LONGEST_ROUND / max(longest, 1e-9))), 1)


def seconds(call: Callable[[], object]) -> float:
    """What one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


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
