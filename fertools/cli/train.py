"""``fertools train``."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import RUNS, default_source, emit, json_option, talk
from fertools.errors import ConfigError
from fertools.models import BUILDERS
from fertools.training import AUGMENTATIONS, RECIPES, Run
from fertools.training.config import BALANCES, DEVICES, OPTIMIZERS, PRECISIONS, SCHEDULES

#: Field of TrainConfig -> type and help of its option. An option that is not given keeps the recipe's value.
OPTIONS: dict[str, tuple[Any, str]] = {
    "model": (click.Choice(tuple(BUILDERS)), "Network to train."),
    "epochs": (int, "Passes over the training images."),
    "batch_size": (int, "Images a step."),
    "optimizer": (click.Choice(OPTIMIZERS), "Optimizer; sgd has Nesterov momentum 0.9."),
    "learning_rate": (float, "Peak of the learning rate."),
    "schedule": (click.Choice(SCHEDULES), "Course of the learning rate."),
    "warmup_epochs": (int, "Epochs of linear warm-up before the cosine."),
    "plateau_factor": (float, "What the plateau schedule multiplies the rate by."),
    "plateau_patience": (int, "Epochs without a lower validation loss before it does."),
    "weight_decay": (float, "Decoupled decay of kernels; 0 switches it off."),
    "label_smoothing": (float, "Share of the target spread over all classes."),
    "augmentation": (click.Choice(tuple(AUGMENTATIONS)), "Random changes of the training images."),
    "class_balance": (click.Choice(BALANCES), "How rare classes are made up for."),
    "early_stopping": (int, "Stop after so many epochs without a better accuracy; 0 never does."),
    "ema": (float, "Momentum of the moving average of the weights; 0 switches it off."),
    "precision": (click.Choice(PRECISIONS), "Arithmetic; auto is bfloat16 where the processor has it."),
    "device": (click.Choice(DEVICES), "Where to train; auto is the GPU if there is one."),
    "seed": (int, "Decides all that is random."),
}


def config_options(function: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of TrainConfig, its help ending with the default recipe's value."""
    for name, (kind, text) in reversed(OPTIONS.items()):
        value = getattr(RECIPES["default"], name)
        option = click.option(f"--{name.replace('_', '-')}", type=kind, help=f"{text}  [default: {value}]")
        function = option(function)
    return function


@click.command()
@click.option("--data", "source", metavar="SRC", help="Data set.  [default: $FERTOOLS_DATA, else synthetic]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help=f"New run folder.  [default: {RUNS}/MODEL-NNN]",
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with an interrupted run."
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Start from the weights of a .keras file, e.g. an export's.  [default: random ones]",
)
@click.option("--recipe", type=click.Choice(tuple(RECIPES)), help="Values of the options below.")
@config_options
@click.option("--tensorboard", is_flag=True, help="Also write TensorBoard logs into the run folder.")
@json_option
def command(
    source: str | None,
    out: Path | None,
    resume: Path | None,
    weights: Path | None,
    recipe: str | None,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network into a run folder.

    Prints the run folder's path. An interrupted run goes on from its last finished epoch with
    --resume, and ends as if it had never been interrupted.
    """
    changes = {name: value for name, value in options.items() if value is not None}
    run = None
    if resume:
        if out or weights or recipe or changes:
            raise click.UsageError(
                "--resume keeps the run's own options; only --data, --tensorboard and --json go with it."
            )
        run = Run.open(resume)
        run.check_unfinished()
        config = run.config
        source = source or run.facts["data"]["source"]
    else:
        try:
            config = dataclasses.replace(RECIPES[recipe or "default"], **changes)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
    source = source or default_source()
    if out:
        Run.check_free(out)

    from fertools.backend import import_keras, select_device

    import_keras()
    device = select_device(config.device)
    dataset = data.load(source)
    counts = ", ".join(f"{name} {(dataset.usage == code).sum():,}" for code, name in enumerate(data.SPLITS))
    talk(f"Data: {dataset.name}, {counts}")
    for note in dataset.notes:
        talk(f"  {note}")

    from fertools.cli.progress import Progress
    from fertools.training.trainer import new_run, train

    if run is None:
        path = out or Run.next_path(RUNS, config.model)
        run = new_run(path, config, dataset, _lasting(source), device, weights)
    talk(f"Device: {device.kind}, {device.name} ({device.backend}), {run.facts['precision']}")
    talk(f"Run: {run.path}")
    steps = config.steps_per_epoch(len(dataset.split("train")))
    try:
        with Progress(config.epochs, steps, len(run.history())) as progress:
            train(run, dataset, observer=progress, tensorboard=tensorboard)
    except KeyboardInterrupt:
        talk(f"Interrupted; go on with: fertools train --resume {shlex.quote(str(run.path))}")
        raise SystemExit(130) from None
    metrics = run.metrics
    talk(f"Best epoch {metrics['best_epoch']}: validation accuracy {metrics['validation']['accuracy']:.2%}")
    talk(f"Next: fertools export {shlex.quote(str(run.path))} --quantize")
    if as_json:
        emit({"run": str(run.path), **metrics})
    else:
        click.echo(run.path)


def _lasting(source: str) -> str:
    """The source as it is found again from another folder."""
    return source if source == data.synthetic.NAME else os.path.abspath(source)
