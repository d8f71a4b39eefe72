"""``fertools score``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import click

from fertools.cli.common import (
    emit,
    interruptible,
    json_option,
    model_option,
    precision_option,
    provider_option,
    talk,
    views_option,
)
from fertools.cli.photos import detector_option, min_confidence_option
from fertools.cluster import ENGINES
from fertools.scoring import Scoring, score

#: Seconds between two lines of progress where there is no terminal.
PACE = 30.0


@click.command()
@click.argument("source", metavar="SRC")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder of Parquet files, e.g. predictions.parquet; the same command again adds what is missing.",
)
@model_option
@precision_option
@provider_option
@views_option
@click.option("--find-faces", is_flag=True, help="Look for faces in each picture; one row per face.")
@detector_option
@min_confidence_option
@click.option(
    "--image-column",
    metavar="NAME",
    help="Column of images of a Parquet file.  [default: the only one that can hold images]",
)
@click.option(
    "--label-column", metavar="NAME", help="Column of labels of a Parquet file.  [default: label or emotion]"
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="Where to compute: on this machine or on a Ray cluster.",
)
@click.option(
    "--address",
    help="Address of the Ray cluster, e.g. auto or 10.0.0.1:6379."
    "  [default: $RAY_ADDRESS, else this machine]",
)
@click.option(
    "--actors",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest number of Ray actors.  [default: as many as fit]",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of onnxruntime; on Ray also the CPUs per actor."
    "  [default: all that this process may use; 1 on Ray]",
)
@json_option
def command(source: str, out: Path, as_json: bool, **options: Any) -> None:
    """Score a data set into Parquet files.

    SRC is a data set, a folder of pictures, a list of them (.txt or .lst, one path per line), a Parquet file
    with a column of images, or a folder of such files. Each image becomes a row: path, box, label,
    probabilities, the model and its digest; an unreadable picture becomes a row with its error. Prints
    counts, and the accuracy where the labels are known, as in folders called happy/, sad/ and so on. If
    interrupted or killed, the same command continues.
    """
    if options["engine"] == "local" and (options["address"] or options["actors"]):
        raise click.UsageError("--address and --actors go with --engine ray.")
    if not options["find_faces"] and (options["detector"] or options["min_confidence"] is not None):
        raise click.UsageError("--detector and --min-confidence go with --find-faces.")
    begin = monotonic()
    with interruptible(f"the same command continues in {out}."), _progress() as progress:
        summary = score(source, out, Scoring(**options), progress=progress)
    rate = f", {progress.rows / (monotonic() - begin):,.0f} rows per second" if progress.rows else ""
    talk(f"Wrote {progress.rows:,} rows to {out}/{rate}; {summary.rows - progress.rows:,} were there before.")
    if as_json:
        emit({"out": str(out), **summary.to_dict()})
    else:
        click.echo(summary.to_text())
    if summary.errors:
        talk(f"{summary.errors:,} rows have no answer; their column error says why.")
    read = f"import pyarrow.parquet as parquet; print(parquet.read_table({str(out)!r})[:2].to_pylist())"
    talk(f"Next: python -c {shlex.quote(read)}")


class _Told:
    """Show the progress of the scoring on stderr: a bar at a terminal, else a line now and then."""

    def __init__(self, bar: Any) -> None:
        self.rows = 0
        self._bar, self._task = bar, bar and bar.add_task("parts", total=None)
        self._last = monotonic()

    def __call__(self, there: int, parts: int, rows: int) -> None:
        self.rows = rows
        if self._bar:
            self._bar.update(self._task, completed=there, total=parts, description=f"{rows:,} rows")
        elif monotonic() - self._last >= PACE:
            self._last = monotonic()
            talk(f"{there:,} of {parts:,} parts, {rows:,} rows")


@contextmanager
def _progress() -> Iterator[_Told]:
    if not sys.stderr.isatty():
        yield _Told(None)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        yield _Told(bar)
