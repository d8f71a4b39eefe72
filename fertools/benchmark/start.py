"""Time and memory of a fresh process until its first prediction."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fertools.errors import ModelError

#: Number of processes that are started; the median counts.
TRIES = 5

CODE = """
import json, sys
from fertools.memory import peak_memory
from fertools.runtime import Predictor
import numpy
path, threads = sys.argv[1], int(sys.argv[2])
Predictor(path, providers="cpu", threads=threads).probabilities(numpy.zeros((1, 48, 48), numpy.uint8))
print(json.dumps(peak_memory()), flush=True)
"""


def first_prediction(file: Path, threads: int, tries: int = TRIES) -> tuple[float, int | None]:
    """Median seconds until a new process has predicted an image on the CPU, and its peak memory in bytes.

    Raises:
        ModelError: the file cannot be used.
    """
    seconds, peaks = [], []
    for _ in range(tries):
        try:
            taken, (answer,) = first_line([sys.executable, "-c", CODE, str(file), str(threads)])
        except ModelError as error:
            raise ModelError(f"{file}: a process that loads it fails: {error}") from error
        seconds.append(taken)
        peaks.append(json.loads(answer))
    return statistics.median(seconds), None if None in peaks else int(statistics.median(peaks))


def first_line(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[float, list[str]]:
    """Run a process to its end.

    Arguments:
        command: the program and its arguments.
        environment: its variables, by default those of this process.

    Returns:
        Seconds from its start to the first line on its stdout, and all lines there.

    Raises:
        ModelError: it fails; the message has the last line of its stderr.
    """
    # stderr is not a pipe: nobody reads it before the first line, and a full pipe would block the process.
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        begin = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", env=environment
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            seconds = time.perf_counter() - begin
            others = process.stdout.read()
        errors.seek(0)
        said = errors.read().strip().splitlines()
    if process.returncode:
        raise ModelError(said[-1] if said else f"exit code {process.returncode}")
    return seconds, [first.rstrip("\n"), *others.splitlines()]
