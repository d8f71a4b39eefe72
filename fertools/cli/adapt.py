"""``fertools adapt``."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path

import click

from fertools import data
from fertools.cli.common import (
    RUNS,
    emit,
    interruptible,
    json_option,
    suggest_export,
    talk,
    train_with_progress,
    usage_errors,
)
from fertools.errors import ConfigError, RunError
from fertools.runtime.location import SHIPPED, locate
from fertools.training import Run
from fertools.training.adaptation import (
    RECIPE,
    TEACHING,
    adapt_config,
    check_enough,
    measure_change,
    open_base,
    rehearsed,
)


@click.command()
@click.argument("source", metavar="DATA")
@click.option(
    "--model",
    default="compact",
    show_default=True,
    metavar="MODEL",
    help=f"What to adapt: {', '.join(SHIPPED)}, or an export folder.",
)
@click.option(
    "--old-data",
    metavar="SRC",
    help="The data that the model was trained on; some of it is mixed in."
    "  [default: $FERTOOLS_DATA, if it is that data]",
)
@click.option(
    "--epochs", type=int, default=RECIPE["epochs"], show_default=True, help="Passes over the training images."
)
@click.option(
    "--learning-rate",
    type=float,
    default=RECIPE["learning_rate"],
    show_default=True,
    help="Peak of the learning rate.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help=f"New run folder.  [default: {RUNS}/adapted-NNN]",
)
@json_option
def command(
    source: str,
    model: str,
    old_data: str | None,
    epochs: int,
    learning_rate: float,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit a trained model to your own faces.

    Trains it on DATA for some minutes on two cores, gently, so that it keeps what it has learned. If the old
    data is at hand, some of its images are mixed in; otherwise the old model teaches beside the labels.
    Reports the accuracy before and after on the validation split of DATA, and on that of the old data.
    """
    base = open_base(locate(Path(model)))
    with usage_errors():
        config = adapt_config(base, epochs=epochs, learning_rate=learning_rate, seed=seed)
    path = out or Run.next_path(RUNS, "adapted")
    Run.check_free(path)
    mixture = path.parent / f"{path.name}-data.npz"
    if old_data is not None and mixture.exists():
        raise RunError(f"{mixture}: already exists, and would be replaced; choose another folder with --out")
    new = data.load(source)
    check_enough(new)
    old = _old_data(old_data, base.fingerprint)

    from fertools.backend import import_keras, select_device

    import_keras()
    device = select_device(config.device, config.devices)
    from fertools.training.trainer import new_run

    if old is None:
        dataset, place = new, source
        talk(f"Data: {new.name}; {base.path} teaches beside its labels.")
    else:
        dataset = rehearsed(new, old, seed)
        # Kept beside the run, because an export reads it again.
        place = str(mixture)
        data.write(dataset, place)
        dataset = dataclasses.replace(data.load(place), name=dataset.name, notes=dataset.notes)
        talk(f"Data: {new.name}, {dataset.counts['train']:,} train images with those of {old.name}: {place}")
    try:
        run = new_run(
            path,
            config,
            dataset,
            place,
            device,
            base.weights,
            None if old is not None else TEACHING,
            () if old is not None else (base.path,),
            other_data=True,
        )
    except BaseException:  # Ctrl-C too: without a run the mixture is of no use, and in the way
        if old is not None:
            mixture.unlink(missing_ok=True)
        raise
    for note in dataset.notes:
        talk(f"  {note}")
    talk(f"Run: {run.path}, on {device.kind}, {device.name}, {run.facts['precision']}")
    with interruptible(f"continue with: fertools train --resume {shlex.quote(str(path))}"):
        train_with_progress(run, dataset)
    change = measure_change(base, run.best, new, old)
    if as_json:
        emit({"run": str(run.path), "model": base.model, "base": str(base.path), **change.to_dict()})
    else:
        click.echo(change.to_text())
    suggest_export(run)


def _old_data(source: str | None, fingerprint: str) -> data.Dataset | None:
    """Return the data that the model was trained on, if it is at hand.

    Raises:
        ConfigError: ``--old-data`` names other data.
    """
    place = source or os.environ.get("FERTOOLS_DATA")
    if not place:
        return None
    old = data.load(place)
    if old.fingerprint == fingerprint:
        return old
    if source:
        raise ConfigError(f"{source}: the model was trained on other data; leave --old-data out")
    talk(f"$FERTOOLS_DATA, {place}, is not used: the model was trained on other data.")
    return None
