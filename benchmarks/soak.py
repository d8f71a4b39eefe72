"""Share one Predictor among many threads for a long time: correct answers, stable memory, throughput.

    python benchmarks/soak.py exported/sequential

Every answer on drawn faces must equal, bit for bit, the one that a single caller got for the same face: a
session adds in the same order whoever calls, so any difference means that the callers disturb each other.
Resident memory is read every 1,000 predictions and may rise by 16 MiB after a warm-up by all callers, which a
leak of 17 bytes per prediction would exceed in a million. The throughput is compared with the best of a
single caller in the same run, on one thread or on all processors. The exit code is 1 if an answer was wrong
or the memory grew more.
"""

import argparse
import dataclasses
import json
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from fertools.data import synthetic
from fertools.processor import processor
from fertools.runtime import Predictor
from fertools.runtime.threads import usable_cpus

FACES = 512
CHUNK = 1000
ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class Soak:
    """Results; rates are predictions per second, memory is in MiB."""

    predictions: int
    callers: int
    wrong: int
    rate: float
    memory_start: float
    memory_end: float
    memory_max: float

    @property
    def growth(self) -> float:
        """MiB from the end of the warm-up to the peak."""
        return self.memory_max - self.memory_start


def soak(predictor: Predictor, faces: np.ndarray, predictions: int, callers: int) -> Soak:
    """Predict uint8 (n, 48, 48) over and over from several threads at once."""
    expected = [predictor.predict(face) for face in faces]

    def work(start: int, stop: int) -> tuple[int, float]:
        """Return the number of wrong answers and the memory at the end."""
        wrong = 0
        for number in range(start, stop):
            index = number % len(faces)
            wrong += predictor.predict(faces[index]) != expected[index]
        return wrong, resident()

    with ThreadPoolExecutor(callers) as pool:
        warm = [*pool.map(work, range(callers), [CHUNK] * callers)]
        memory_start = resident()
        start = time.perf_counter()
        starts = range(0, predictions, CHUNK)
        found = [*pool.map(work, starts, [*starts[1:], predictions])]
        seconds = time.perf_counter() - start
        memory_end = resident()
    return Soak(
        predictions,
        callers,
        sum(wrong for wrong, _ in (*warm, *found)),
        predictions / seconds,
        memory_start,
        memory_end,
        max([memory_end, *(memory for _, memory in found)]),
    )


def resident() -> float:
    """Return this process's resident memory in MiB; outside Linux, its peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20
    # In KiB, on macOS in bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def single_rate(predictor: Predictor, faces: np.ndarray) -> float:
    """Return the predictions per second of one caller in its best round."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for face in faces:
            predictor.predict(face)
        seconds.append(time.perf_counter() - start)
    return len(faces) / min(seconds)


def print_table(model: str, result: Soak, single: dict[int, float], max_growth: float) -> None:
    best = max(single, key=lambda threads: single[threads])
    print(f"{model} on {processor()[0]}, {usable_cpus()} processors")
    for name, text in {
        "predictions": f"{result.predictions:,} by {result.callers} callers",
        "wrong": f"{result.wrong:,} (compared bit for bit)",
        "per second": f"{result.rate:,.0f}, {result.rate / single[best]:.2f} times the best of a single"
        f" caller ({single[best]:,.0f}, threads={best})",
        "memory": f"{result.memory_start:.1f} MiB at the start, {result.memory_end:.1f} at the end,"
        f" {result.memory_max:.1f} at most: +{result.growth:.1f} of {max_growth:g} allowed",
    }.items():
        print(f"{name:<13}{text}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="export folder or ONNX file; default: the one shipped")
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1, help="threads of the shared Predictor; default: 1")
    parser.add_argument("--max-growth", type=float, default=16.0, metavar="MIB")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    faces = synthetic.generate(train=0, validation=0, test=FACES).split("test").images

    single = {}
    for threads in sorted({1, options.threads, usable_cpus()}):
        single[threads] = single_rate(Predictor(options.model, providers="cpu", threads=threads), faces)
    predictor = Predictor(options.model, providers="cpu", threads=options.threads)
    result = soak(predictor, faces, options.predictions, options.callers)

    if options.json:
        document: dict[str, Any] = {
            "model": {"name": predictor.info.name, "precision": predictor.info.precision},
            "processor": processor()[0],
            "processors": usable_cpus(),
            "threads": options.threads,
            "single_rates": single,
            "max_growth": options.max_growth,
            **dataclasses.asdict(result),
        }
        print(json.dumps(document, indent=2))
    else:
        print_table(repr(predictor), result, single, options.max_growth)
    return int(result.wrong > 0 or result.growth > options.max_growth)


if __name__ == "__main__":
    sys.exit(main())
