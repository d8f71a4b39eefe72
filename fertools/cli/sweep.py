"""``fertools sweep``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.backend import visible_gpus
from fertools.cli.common import default_source, json_option, talk
from fertools.cli.compare import report
from fertools.cli.processes import side_by_side
from fertools.cli.training import chosen_config, data_option, new_run_options, tensorboard_option
from fertools.errors import ConfigError
from fertools.evaluation import is_run
from fertools.training import Run, TrainConfig
from fertools.training.compare import compare
from fertools.training.seeds import seed_folder, seeded
from fertools.training.sweep import Sweep, grid


@click.command()
@click.option(
    "--set",
    "settings",
    metavar="NAME=V,V,...",
    required=True,
    multiple=True,
    help="Values of one of the options below, e.g. learning_rate=0.1,0.01; given several times, all"
    " combinations. Where a value has commas, put semicolons between.",
)
@data_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Folder of the runs; the same again goes on with what is unfinished.",
)
@new_run_options
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
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train over a grid of options and compare the runs.

    Each combination is a run folder in DIR, trained in a process of its own, on several GPUs as many at a
    time. The same command goes on with an interrupted sweep, and values may be added. A run that fails stands
    in the table with its reason and does not stop the others; the exit code is then 1.
    """
    configs = _configs(settings, recipe, options, seeds)
    source = source or default_source()
    sweep = Sweep.create(out, configs, data.load(source), weights)
    waiting = [name for name in configs if not sweep.run(name).finished]
    talk(f"Sweep: {out}, {len(configs)} runs, {len(configs) - len(waiting)} finished before")
    failed = []

    def ended(name: str, failure: str | None) -> None:
        sweep.note(name, failure and failure.removeprefix(f"{sweep.run(name).path}: "))
        if failure:
            failed.append(name)

    words = [
        "--data",
        source,
        *(["--other-data"] if other_data else []),
        *(["--tensorboard"] if tensorboard else []),
    ]
    commands = {name: [*_command(sweep.run(name), configs[name], weights), *words] for name in waiting}
    try:
        side_by_side(commands, _places([configs[name] for name in waiting]), say=talk, ended=ended)
    except KeyboardInterrupt:
        talk(f"Interrupted; the same command goes on in {out}.")
        raise SystemExit(130) from None
    comparison = compare([out])
    begun = any(entry.histories for entry in comparison.entries)
    report(comparison, out / "comparison.png" if begun else None, as_json=as_json)
    if failed:
        talk(f"{len(failed)} of {len(configs)} runs failed; the same command tries them again.")
        raise SystemExit(1)


def _configs(
    settings: Sequence[str], recipe: str | None, options: dict[str, Any], seeds: int | None
) -> dict[str, TrainConfig]:
    """The sweep's runs, by their folders in it. Wrong settings are usage errors."""
    try:
        points = grid(settings)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    configs: dict[str, TrainConfig] = {}
    for point, values in points.items():
        for name in values:
            if options[name] is not None:
                raise click.UsageError(f"{name} is given by --set and by itself; take one of the two.")
        config = chosen_config(recipe, options | values)
        if seeds:
            several = seeded(config, seeds)
            configs |= {seed_folder(Path(point), each.seed).as_posix(): each for each in several}
        else:
            configs[point] = config
    return configs


def _command(run: Run, config: TrainConfig, weights: str | None) -> list[str]:
    """The command that makes and trains ``run``, or goes on with it."""
    words = [sys.executable, "-m", "fertools", "train"]
    if is_run(run.path):
        return [*words, "--resume", str(run.path)]
    words += ["--out", str(run.path), *(["--weights", weights] if weights else [])]
    for option, value in config.to_dict().items():
        words += [f"--{option.replace('_', '-')}", str(value)]
    return words


def _places(configs: Sequence[TrainConfig]) -> list[dict[str, str]]:
    """Where runs are trained at the same time: on each GPU one, or one alone."""
    alone = any(config.devices == "all" for config in configs)
    if len(configs) > 1 and not alone and any(config.device != "cpu" for config in configs):
        gpus = visible_gpus()
        if len(gpus) > 1:
            return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
    return [{}]
