"""``fertools ensemble``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import default_source, talk
from fertools.cli.exporting import chosen_folder, export_options, write_export
from fertools.errors import ConfigError
from fertools.evaluation import is_run
from fertools.export.ensemble import Ensemble, open_members
from fertools.training import Run


def _weights(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    try:
        return [float(weight) for weight in value.split(",")] if value else None
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: must be numbers, W,W,...") from error


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="W,W,...",
    callback=_weights,
    help="How much each network counts, in the order given.  [default: all alike]",
)
@export_options
def command(
    runs: tuple[Path, ...],
    weights: list[float] | None,
    source: str | None,
    out: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Export several networks as one file that averages inside.

    RUN is a finished run folder, a folder of seeds (each counts) or an export, all trained on the same data.
    The file answers with the weighted mean of their probabilities, and is verified as by fertools export:
    if a gate is broken, nothing is written and the exit code is 1.
    """
    members = open_members(runs)
    try:
        subject = Ensemble(members, weights)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    folder = chosen_folder(subject, out, force=force)
    known = (Run(member.path).facts["data"]["source"] for member in members if is_run(member.path))
    source = source or next(known, None) or default_source()
    talk(f"Ensemble of {len(members)} networks, data: {source}")
    write_export(subject, data.load(source), folder, force=force, **options)
