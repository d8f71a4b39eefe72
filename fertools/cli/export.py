"""``fertools export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import RUNS, talk
from fertools.cli.exporting import chosen_folder, export_options, write_export
from fertools.errors import RunError
from fertools.evaluation import is_run
from fertools.export.subject import FinishedRun
from fertools.training import Run
from fertools.training.seeds import best_seed, open_runs, siblings


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@export_options
def command(
    run: Path | None,
    source: str | None,
    out: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Export a run to ONNX, verified on the test split.

    RUN is a finished run folder, or a folder of seeds, of which the best on the validation split is taken;
    without it, the run under runs/ that finished last, or the best of its seeds. If a gate of the
    verification is broken, nothing is written, an earlier export stays, and the exit code is 1.
    """
    opened = _chosen(run)
    subject = FinishedRun(opened)
    folder = chosen_folder(subject, out, force=force)
    source = source or opened.facts["data"]["source"]
    talk(f"Run: {opened.path}, data: {source}")
    write_export(subject, data.load(source), folder, force=force, **options)


def _chosen(path: Path | None) -> Run:
    """The run to export: the one that was named, else the best seed. Raises RunError if there is none."""
    if path is not None and is_run(path):
        return Run.open(path)
    if path is None:
        return best_seed(Run.latest_finished(RUNS))
    finished = [run for run in open_runs(path) if run.finished]
    if not finished:
        raise RunError(f"{path}: no run in it is finished; go on with 'fertools train --resume {path}'")
    best = best_seed(finished[0])
    if len(siblings(best)) < len(finished):
        raise RunError(f"{path}: its runs differ in more than the seed; name the one to export")
    return best
