"""``fertools train`` and ``fertools distill``."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fertools import data
from fertools.cli.common import RUNS, default_source, emit, json_option, talk
from fertools.errors import ConfigError, RunError, WriteError
from fertools.models import IMAGENET, NETWORKS, find
from fertools.training import AUGMENTATIONS, RECIPES, DistillConfig, Run, TrainConfig, recipe
from fertools.training.config import (
    BALANCES,
    DEVICE_COUNTS,
    DEVICES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    idle_options,
)
from fertools.training.run import SeedSummary, open_runs, seed_folder, seeded
from fertools.training.spread import End, Job, Train, here, on_ray

if TYPE_CHECKING:
    from fertools.backend import Device
    from fertools.training import DistillConfig


#: Field of TrainConfig -> type and help of its option. An option that is not given keeps the recipe's value.
OPTIONS: dict[str, tuple[Any, str]] = {
    "model": (click.Choice(tuple(NETWORKS)), "Network to train."),
    "epochs": (int, "Passes over the training images."),
    "batch_size": (int, "Images per step."),
    "optimizer": (click.Choice(OPTIMIZERS), "Optimizer."),
    "momentum": (float, "Nesterov momentum of sgd; 0 switches it off."),
    "learning_rate": (float, "Peak of the learning rate."),
    "schedule": (click.Choice(SCHEDULES), "Learning-rate schedule."),
    "learning_rate_decay": (float, "The rate is divided by 1 + this x step; 0 switches it off."),
    "learning_rate_steps": (str, "E:F,E:F,...: after epoch E the rate is multiplied by F. Not with cosine."),
    "warmup_epochs": (int, "Epochs of linear warm-up before the cosine, at most a tenth of all."),
    "plateau_factor": (float, "What the plateau schedule multiplies the rate by."),
    "plateau_patience": (int, "Epochs without a lower validation loss before it does."),
    "weight_decay": (float, "Decoupled decay of kernels; 0 switches it off."),
    "label_smoothing": (float, "Share of the target spread over all classes."),
    "augmentation": (click.Choice(tuple(AUGMENTATIONS)), "Random changes of the training images."),
    "camera": (float, "Share of the images degraded as by a bad camera; teachers see them as they were."),
    "camera_kinds": (str, "Which of its changes are made, with commas."),
    "camera_strength": (float, "What the strongest of its changes are multiplied by."),
    "mixup": (float, "Blend pairs of images by shares from Beta(a, a); 0 blends none."),
    "dropout_scale": (float, "The network's dropout rates are multiplied by this; 0 drops nothing."),
    "class_balance": (click.Choice(BALANCES), "Class balancing."),
    "early_stopping": (int, "Stop after so many epochs without a better accuracy; 0 never does."),
    "ema": (float, "Momentum of the moving average of the weights; 0 switches it off."),
    "start_share": (float, "Share of the weights of --weights in the saved ones; 0 keeps none."),
    "precision": (click.Choice(PRECISIONS), "Arithmetic; auto is bfloat16 where the processor has it."),
    "device": (click.Choice(DEVICES), "Where to train; auto is the GPU if there is one."),
    "devices": (click.Choice(DEVICE_COUNTS), "Split each batch over all such devices, on JAX."),
    "seed": (int, "Random seed."),
}


def _weights(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value == "none" else value


def new_run_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a new run: where it starts, and one for each field of TrainConfig.

    The help of a field ends with the default recipe's value.
    """
    for name, (kind, text) in reversed(OPTIONS.items()):
        value = getattr(TrainConfig, name)
        value = "none" if value == "" else value
        option = click.option(f"--{name.replace('_', '-')}", type=kind, help=f"{text}  [default: {value}]")
        function = option(function)
    for option in (
        click.option(
            "--recipe",
            type=click.Choice(RECIPES),
            help="Values of the options below: ours, or published ones.",
        ),
        click.option(
            "--seeds",
            type=click.IntRange(1),
            metavar="N",
            help="Train N runs into RUN/seed-..., with this and the next seeds.  [default: one run]",
        ),
        click.option(
            "--other-data",
            is_flag=True,
            help="Weights or teachers were trained on other data than --data, and that is meant.",
        ),
        click.option(
            "--weights",
            metavar="imagenet|none|FILE",
            callback=_weights,
            help="Start from the weights of a .keras file, e.g. an export's, or of ImageNet, which Keras"
            " downloads unless it has them, or has them in an .h5 file.  [default: none, random ones]",
        ),
    ):
        function = option(function)
    return function


#: Where several runs are trained, and where they are if nothing else is said.
ENGINES = ("local", "ray")
HERE: Mapping[str, Any] = {"engine": ENGINES[0], "address": None, "cpus": 1, "gpus": None}

data_option = click.option(
    "--data", "source", metavar="SRC", help="Data set.  [default: $FERTOOLS_DATA, else synthetic]"
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help=f"New run folder.  [default: {RUNS}/MODEL-NNN]",
)
tensorboard_option = click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard logs into the run folder."
)


def engine_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where several runs are trained; the command gets them as one, ``engine``."""

    @functools.wraps(function)
    def command(
        *args: Any, engine: str, address: str | None, cpus: int | None, gpus: float | None, **options: Any
    ) -> None:
        if engine == "local" and (address or cpus or gpus is not None):
            raise click.UsageError("--address, --cpus-per-run and --gpus-per-run go with --engine ray.")
        how = {"engine": engine, "address": address, "cpus": cpus or 1, "gpus": gpus}
        function(*args, engine=how, **options)

    for option in (
        click.option(
            "--gpus-per-run",
            "gpus",
            type=click.FloatRange(min=0),
            metavar="N",
            help="On Ray.  [default: 1 if the cluster has any]",
        ),
        click.option(
            "--cpus-per-run", "cpus", type=click.IntRange(min=1), metavar="N", help="On Ray.  [default: 1]"
        ),
        click.option(
            "--address", help="The Ray cluster's, e.g. auto.  [default: $RAY_ADDRESS, else this machine]"
        ),
        click.option(
            "--engine",
            type=click.Choice(ENGINES),
            default=ENGINES[0],
            show_default=True,
            help="Where several runs are trained: here one after the other, or side by side on Ray.",
        ),
    ):
        command = option(command)
    return command


def train_all(
    jobs: Mapping[str, Job], *, engine: str, address: str | None, cpus: int, gpus: float | None
) -> Iterator[End]:
    """Complete ``jobs``, telling how it goes; gives the end of each."""
    if engine == "ray":
        ends = on_ray(jobs, address=address, cpus=cpus, gpus=gpus)
    else:
        ends = here(jobs, _with_progress)
    for name, failure in ends:
        talk(f"{name}: {failure or _best_epoch(Run(jobs[name].path))}")
        yield name, failure


def _with_progress(job: Job) -> Train:
    from fertools.cli.common import train_with_progress

    talk(f"Run: {job.path}")
    return functools.partial(train_with_progress, tensorboard=job.tensorboard)


def _best_epoch(run: Run) -> str:
    metrics = run.metrics
    return f"best epoch {metrics['best_epoch']}, validation accuracy {metrics['validation']['accuracy']:.2%}"


def chosen_config(name: str | None, options: dict[str, Any]) -> TrainConfig:
    """The recipe ``name`` with the options that were given.

    A wrong value is a usage error, and so is an option that would do nothing, even with its default value.
    """
    changes = {option: value for option, value in options.items() if value is not None}
    try:
        fields = recipe(name or "default", changes.get("model", TrainConfig.model)).to_dict() | changes
        for option, why in idle_options(fields).items():
            if option in changes:
                flag = f"--{option.replace('_', '-')}"
                raise click.UsageError(f"{flag}: does nothing with {why}; leave it out.")
            fields[option] = getattr(TrainConfig, option)  # the recipe's was for what has been changed
        return TrainConfig(**fields)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def check_other_data(other_data: bool, weights: str | None, teachers: Sequence[Path] = ()) -> None:
    """Raise click.UsageError if ``--other-data`` was given and there is nothing that it can be about."""
    if other_data and not weights and not teachers:
        raise click.UsageError("--other-data goes with --weights or teachers.")


def start_runs(
    config: TrainConfig,
    source: str | None,
    out: Path | None,
    *,
    weights: str | None = None,
    seeds: int | None = None,
    distillation: DistillConfig | None = None,
    teachers: Sequence[Path] = (),
    other_data: bool = False,
    engine: Mapping[str, Any] = HERE,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Make one run, or one for each seed, and train what was made."""
    check_other_data(other_data, weights, teachers)
    source = source or default_source()
    if out:
        Run.check_free(out)
    device, dataset = _prepare(config, source)

    from fertools.training.trainer import new_run

    if not weights and find(config.model).pretrained:
        talk(
            f"Weights: random ones. {config.model} was published with those of ImageNet: --weights {IMAGENET}"
        )
    path = out or Run.next_path(RUNS, config.model)
    configs = {path: config}
    if seeds:
        configs = {seed_folder(path, each.seed): each for each in seeded(config, seeds)}
    # All are made before the first is trained, so that an interruption leaves what --resume needs.
    runs = [
        new_run(
            place,
            each,
            dataset,
            _lasting(source),
            device,
            weights,
            distillation,
            teachers,
            other_data=other_data,
        )
        for place, each in configs.items()
    ]
    _train(path, runs, source, dataset, device, engine, tensorboard=tensorboard, as_json=as_json)


def resume_runs(
    path: Path,
    source: str | None,
    *,
    engine: Mapping[str, Any] = HERE,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Go on with the run at ``path``, or with all unfinished ones of a folder of seeds."""
    runs = open_runs(path)
    if len(runs) == 1:
        runs[0].check_unfinished()
    source = source or runs[0].facts["data"]["source"]
    device, dataset = _prepare(runs[0].config, source)
    _train(path, runs, source, dataset, device, engine, tensorboard=tensorboard, as_json=as_json)


def _prepare(config: TrainConfig, source: str) -> tuple[Device, data.Dataset]:
    """Choose the device and read the data, saying so."""
    from fertools.backend import import_keras, select_device

    import_keras()
    device = select_device(config.device, config.devices)
    dataset = data.load(source)
    counts = ", ".join(f"{name} {count:,}" for name, count in dataset.counts.items())
    talk(f"Data: {dataset.name}, {counts}")
    for note in dataset.notes:
        talk(f"  {note}")
    return device, dataset


def _train(
    path: Path,
    runs: Sequence[Run],
    source: str,
    dataset: data.Dataset,
    device: Device,
    engine: Mapping[str, Any],
    *,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train the unfinished ones of ``runs``, which lie in ``path``, and report all of them."""
    from fertools.cli.common import train_with_progress

    waiting = [run for run in runs if not run.finished]
    for run in runs:
        if run.finished:
            talk(f"Run: {run.path}, finished before")
    if engine["engine"] == "ray":
        _train_on_ray(path, waiting, source, engine, tensorboard)
        waiting = []
    for run in waiting:
        talk(f"Device: {device.kind}, {device.name} ({device.backend}), {run.facts['precision']}")
        talk(f"Run: {run.path}")
        try:
            train_with_progress(run, dataset, tensorboard=tensorboard)
        except KeyboardInterrupt:
            talk(f"Interrupted; go on with: fertools train --resume {shlex.quote(str(path))}")
            raise SystemExit(130) from None
        except WriteError:
            talk(f"Once that is mended, go on with: fertools train --resume {shlex.quote(str(path))}")
            raise
        metrics = run.metrics
        talk(
            f"Best epoch {metrics['best_epoch']}: validation accuracy {metrics['validation']['accuracy']:.2%}"
        )
    if len(runs) == 1:
        best, document = runs[0], {"run": str(runs[0].path), **runs[0].metrics}
    else:
        summary = SeedSummary.of(runs)
        best, document = summary.best, summary.to_dict()
        talk(
            f"{len(runs)} seeds: validation accuracy {summary.mean:.2%} ± {summary.deviation:.2%},"
            f" best {best.path}"
        )
    talk(f"Next: fertools export {shlex.quote(str(best.path))} --quantize")
    if as_json:
        emit(document)
    else:
        click.echo("\n".join(str(run.path) for run in runs))


def _train_on_ray(
    path: Path, runs: Sequence[Run], source: str, engine: Mapping[str, Any], tensorboard: bool
) -> None:
    """Train ``runs``, which lie in ``path``, side by side. Raises RunError if one fails."""
    jobs = {run.name: Job(run.path, run.config, source, tensorboard=tensorboard) for run in runs}
    try:
        failures = {name: failure for name, failure in train_all(jobs, **engine) if failure}
    except KeyboardInterrupt:
        talk(f"Interrupted; go on with: fertools train --resume {shlex.quote(str(path))} --engine ray")
        raise SystemExit(130) from None
    if failures:
        raise RunError(f"{path}: {len(failures)} of {len(runs)} runs failed; go on with --resume {path}")


def _lasting(source: str) -> str:
    """The source as it is found again from another folder."""
    return source if source == data.synthetic.NAME else os.path.abspath(source)


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
def distill(
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
