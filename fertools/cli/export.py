"""``fertools export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import RUNS, talk
from fertools.cli.exporting import chosen_folder, export_options, write_export
from fertools.export.subject import FinishedRun
from fertools.training import Run


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

    RUN is a finished run folder; without it, the one under runs/ that finished last. If a gate of the
    verification is broken, nothing is written, an earlier export stays, and the exit code is 1.
    """
    opened = Run.open(run) if run else Run.latest_finished(RUNS)
    subject = FinishedRun(opened)
    folder = chosen_folder(subject, out, force=force)
    source = source or opened.facts["data"]["source"]
    talk(f"Run: {opened.path}, data: {source}")
    write_export(subject, data.load(source), folder, force=force, **options)
