"""``fertools sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import default_source, interruptible, json_option, talk, usage_errors
from fertools.cli.compare import report
from fertools.cli.train import (
    check_other_data,
    chosen_config,
    data_option,
    engine_options,
    new_run_options,
    tensorboard_option,
    train_all,
)
from fertools.training import TrainConfig
from fertools.training.comparison import compare
from fertools.training.run import seed_folder, seeded
from fertools.training.spread import Engine, Job
from fertools.training.sweep import Sweep, grid


@click.command()
@click.option(
    "--set",
    "settings",
    metavar="NAME=V,V,...",
    required=True,
    multiple=True,
    help="Values of one of the options below, e.g. learning_rate=0.1,0.01; given several times, all"
    " combinations. Separate values that contain commas by semicolons.",
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder of the runs; the same command again continues what is unfinished.",
)
@new_run_options
@engine_options
@tensorboard_option
@json_option
def command(
    settings: tuple[str, ...],
    source: str | None,
    out: Path,
    weights: str | None,
    other_data: bool,
    recipe: str | None,
    seeds: int | None,
    engine: Engine,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train over a grid of options and compare the runs.

    Each combination is a run folder in DIR. The runs are trained one after the other, or with --engine ray on
    all processors or GPUs of a cluster. The same command continues an interrupted sweep, and values may be
    added. A run that fails is listed with its reason and does not stop the others; the exit code is then 1.
    """
    check_other_data(other_data, weights)
    configs = _configs(settings, recipe, options, seeds)
    source = source or default_source()
    sweep = Sweep.create(out, configs, data.load(source), weights)
    waiting = [name for name in configs if not sweep.run(name).finished]
    talk(f"Sweep: {out}, {len(configs)} runs, {len(configs) - len(waiting)} finished before")
    failed = []
    jobs = {
        name: Job(sweep.run(name).path, configs[name], source, weights, other_data, tensorboard)
        for name in waiting
    }
    with interruptible(f"the same command continues in {out}."):
        for name, failure in train_all(jobs, engine):
            sweep.note(name, failure)
            if failure:
                failed.append(name)
    comparison = compare([out])
    begun = any(entry.histories for entry in comparison.entries)
    report(comparison, out / "comparison.png" if begun else None, as_json=as_json)
    if failed:
        talk(f"{len(failed)} of {len(configs)} runs failed; the same command tries them again.")
        raise SystemExit(1)


def _configs(
    settings: Sequence[str], recipe: str | None, options: dict[str, Any], seeds: int | None
) -> dict[str, TrainConfig]:
    """Return the configurations of the sweep by run folder. Wrong settings are usage errors."""
    with usage_errors():
        points = grid(settings)
    configs: dict[str, TrainConfig] = {}
    for point, values in points.items():
        for name in values:
            if options[name] is not None:
                raise click.UsageError(f"{name} is given both by --set and as an option; use one of the two.")
        config = chosen_config(recipe, options | values)
        if seeds:
            several = seeded(config, seeds)
            configs |= {seed_folder(Path(point), each.seed).as_posix(): each for each in several}
        else:
            configs[point] = config
    return configs
