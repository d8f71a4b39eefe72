"""Shared by the benchmarks that train: their options, and completing unfinished runs."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from fertools.evaluation import is_run
from fertools.training import Run


def command_line(description: str, out: str) -> argparse.ArgumentParser:
    """Return the options that both have; ``out`` is the help of --out."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="FER2013, in any form that fertools reads")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out)
    parser.add_argument(
        "--no-training", dest="training", action="store_false", help="write the page from what is there"
    )
    return parser


def fertools(*words: object) -> int:
    """Call the command line. Returns its exit code."""
    command = [str(word) for word in words]
    print(f"\n$ fertools {shlex.join(command)}", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", "fertools", *command], check=False).returncode


def complete(run: Path, source: str, *words: object) -> bool:
    """Start a run with the command ``words``, or continue it. Returns whether it is finished."""
    if not is_run(run):
        return not fertools(*words, "--data", source, "--out", run)
    return Run(run).finished or not fertools("train", "--resume", run, "--data", source)
