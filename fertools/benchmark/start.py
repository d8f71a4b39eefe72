"""What a fresh process takes to its first prediction."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fertools.errors import ModelError

#: Processes that are started; the median counts.
TRIES = 5

CODE = """
import json, sys
from fertools.runtime import Predictor
import numpy
path, threads = sys.argv[1], int(sys.argv[2])
Predictor(path, threads=threads).probabilities(numpy.zeros((1, 48, 48), numpy.uint8))
peak = None
if sys.platform == "linux":
    # Not getrusage: its maximum holds what the process was before it became this one, too.
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
elif sys.platform == "darwin":
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(peak), flush=True)
"""


def first_prediction(file: Path, threads: int, tries: int = TRIES) -> tuple[float, int | None]:
    """Median seconds from the start of a process to its first prediction, and its peak memory in bytes.

    Raises ModelError if the file cannot be used.
    """
    seconds, peaks = [], []
    for _ in range(tries):
        begin = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "-c", CODE, str(file), str(threads)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            answer = process.stdout.readline()
            seconds.append(time.perf_counter() - begin)
            _, errors = process.communicate()
        if process.returncode:
            last = (errors.strip().splitlines() or ["it says nothing"])[-1]
            raise ModelError(f"{file}: a process that loads it fails: {last}")
        peaks.append(json.loads(answer))
    return statistics.median(seconds), None if None in peaks else int(statistics.median(peaks))
