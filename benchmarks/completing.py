"""Shared by the benchmarks that train: their options, and completing unfinished runs."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from fertools.evaluation import is_run
from fertools.training import Run

#: Options whose values are paths.
NAMED = {"data", "out", "weights", "teachers"}


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
    """Start a run with the command ``words``, or continue it. Returns whether it is finished.

    Raises:
        SystemExit: the run was made with other options.
    """
    if not is_run(run):
        return not fertools(*words, "--data", source, "--out", run)
    made = options_of(shlex.split(Run(run).facts["commands"][-1], comments=True))
    for name, value in options_of(map(str, words)).items():
        if name in made and not same(made[name], value):
            raise SystemExit(f"{run}: made with --{name} {made[name]}, not {value}; name another --out")
    return Run(run).finished or not fertools("train", "--resume", run, "--data", source)


def options_of(words: Iterable[str]) -> dict[str, str]:
    """Return the options with one value each, without paths, of which a run records the names alone."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            found[name] = []
        elif name:
            found[name].append(word)
    return {key: values[0] for key, values in found.items() if len(values) == 1 and key not in NAMED}


def same(one: str, other: str) -> bool:
    """Whether two values are the same text or number."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other
