"""``fertools distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools.cli.common import json_option
from fertools.cli.training import (
    chosen_config,
    data_option,
    new_run_options,
    out_option,
    start_runs,
    tensorboard_option,
)
from fertools.errors import ConfigError
from fertools.training import DistillConfig


@click.command()
@click.option(
    "--teachers",
    "first",
    type=click.Path(path_type=Path),
    metavar="RUN...",
    required=True,
    multiple=True,
    help="Runs, export folders or .keras files to learn from; their probabilities are averaged.",
)
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="")  # the rest of --teachers
@click.option(
    "--temperature",
    type=float,
    default=DistillConfig.temperature,
    show_default=True,
    help="Softens the probabilities of both before they are compared.",
)
@click.option(
    "--label-share",
    type=float,
    default=DistillConfig.label_share,
    show_default=True,
    help="Share of the loss that comes from the labels.",
)
@data_option
@out_option
@new_run_options
@tensorboard_option
@json_option
def command(
    first: tuple[Path, ...],
    more: tuple[Path, ...],
    temperature: float,
    label_share: float,
    source: str | None,
    out: Path | None,
    weights: str | None,
    other_data: bool,
    recipe: str | None,
    seeds: int | None,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network to answer like others.

    It sees what its teachers see, augmented images of the same data, and learns their probabilities beside
    the labels; images that --camera degrades, they see as they were. The run keeps copies of its teachers:
    fertools train --resume RUN goes on without them.
    """
    config = chosen_config(recipe, options)
    try:
        distillation = DistillConfig(temperature=temperature, label_share=label_share)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    if not label_share and options["label_smoothing"] is not None:
        raise click.UsageError("--label-smoothing: does nothing with --label-share 0; leave it out.")
    start_runs(
        config,
        source,
        out,
        weights=weights,
        other_data=other_data,
        seeds=seeds,
        distillation=distillation,
        teachers=(*first, *more),
        tensorboard=tensorboard,
        as_json=as_json,
    )
