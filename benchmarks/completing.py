"""Doing with the command line what is left to do of a benchmark's runs."""

import shlex
import subprocess
import sys
from pathlib import Path

from fertools.evaluation import is_run
from fertools.training import Run


def fertools(*words: object) -> int:
    """Call the command line. Returns its exit code."""
    command = [str(word) for word in words]
    print(f"\n$ fertools {shlex.join(command)}", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", "fertools", *command], check=False).returncode


def complete(run: Path, source: str, *words: object) -> bool:
    """Begin a run with the command ``words``, or go on with it. Returns whether it is finished."""
    if not is_run(run):
        return not fertools(*words, "--data", source, "--out", run)
    return Run(run).finished or not fertools("train", "--resume", run, "--data", source)
