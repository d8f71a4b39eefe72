"""``fertools train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools.cli.common import json_option
from fertools.cli.training import (
    chosen_config,
    data_option,
    engine_options,
    new_run_options,
    out_option,
    resume_runs,
    start_runs,
    tensorboard_option,
)


@click.command()
@data_option
@out_option
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with an interrupted run."
)
@new_run_options
@engine_options
@tensorboard_option
@json_option
def command(
    source: str | None,
    out: Path | None,
    resume: Path | None,
    weights: str | None,
    other_data: bool,
    recipe: str | None,
    seeds: int | None,
    engine: dict[str, Any],
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network into a run folder.

    Prints the run folder's path. An interrupted run goes on from its last finished epoch with
    --resume, and ends as if it had never been interrupted; so does a folder of --seeds, with all that is
    unfinished in it.
    """
    if resume:
        if (
            out
            or weights
            or other_data
            or recipe
            or seeds
            or any(value is not None for value in options.values())
        ):
            raise click.UsageError(
                "--resume keeps the run's own options; only --data, --tensorboard and --json go with it."
            )
        resume_runs(resume, source, engine=engine, tensorboard=tensorboard, as_json=as_json)
    else:
        start_runs(
            chosen_config(recipe, options),
            source,
            out,
            weights=weights,
            other_data=other_data,
            seeds=seeds,
            engine=engine,
            tensorboard=tensorboard,
            as_json=as_json,
        )
