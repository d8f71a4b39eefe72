"""``fertools train`` and ``fertools distill``."""

from __future__ import annotations

import functools
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fertools import data
from fertools.cli.common import (
    RUNS,
    default_source,
    emit,
    interruptible,
    json_option,
    suggest_export,
    talk,
    usage_errors,
)
from fertools.cluster import ENGINES
from fertools.errors import FertoolsError, RunError, WriteError
from fertools.models import IMAGENET, find
from fertools.training import RECIPES, DistillConfig, Run, TrainConfig, recipe
from fertools.training.config import idle_options
from fertools.training.options import options_of
from fertools.training.run import SeedSummary, open_runs, seed_folder, seeded
from fertools.training.spread import HERE, End, Engine, Job, Train, here, on_ray

if TYPE_CHECKING:
    from fertools.backend import Device


def _weights(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    return None if value == "none" else value


def options_for(configuration: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds an option for each field of ``configuration``; a missing one is None.

    The help of a field ends with its default value.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        for name, allowed in reversed(options_of(configuration).items()):
            default = "none" if allowed.default == "" else allowed.default
            option = click.option(
                f"--{name.replace('_', '-')}",
                type=click.Choice(tuple(allowed.choices)) if allowed.choices else type(allowed.default),
                help=f"{allowed.text}  [default: {default}]",
            )
            function = option(function)
        return function

    return add


def new_run_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a new run: where it starts, and one for each field of TrainConfig.

    The help of a field ends with its value in the default recipe.
    """
    function = options_for(TrainConfig)(function)
    for option in (
        click.option(
            "--recipe",
            type=click.Choice(RECIPES),
            help="Defaults of the options below: ours (default), or those that the network was published with"
            " (original), if it was; fertools models show NAME lists its recipes.",
        ),
        click.option(
            "--seeds",
            type=click.IntRange(1),
            metavar="N",
            help="Train N runs into RUN/seed-..., with consecutive seeds from --seed.  [default: one run]",
        ),
        click.option(
            "--other-data",
            is_flag=True,
            help="Accept weights or teachers that were trained on other data than --data.",
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
    """Add the options for where several runs are trained; the command receives them as one, ``engine``."""

    @functools.wraps(function)
    def command(
        *args: Any, engine: str, address: str | None, cpus: int | None, gpus: float | None, **options: Any
    ) -> None:
        if engine == "local" and (address or cpus or gpus is not None):
            raise click.UsageError("--address, --cpus-per-run and --gpus-per-run go with --engine ray.")
        function(*args, engine=Engine(engine, address, cpus or 1, gpus), **options)

    for option in (
        click.option(
            "--gpus-per-run",
            "gpus",
            type=click.FloatRange(min=0),
            metavar="N",
            help="GPUs per run on Ray.  [default: 1 if the cluster has any]",
        ),
        click.option(
            "--cpus-per-run",
            "cpus",
            type=click.IntRange(min=1),
            metavar="N",
            help="CPUs per run on Ray.  [default: 1]",
        ),
        click.option(
            "--address",
            help="Address of the Ray cluster, e.g. auto.  [default: $RAY_ADDRESS, else this machine]",
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


def train_all(jobs: Mapping[str, Job], engine: Engine) -> Iterator[End]:
    """Complete ``jobs`` and report their progress; returns how each ended."""
    ends = on_ray(jobs, engine) if engine.name == "ray" else here(jobs, _with_progress)
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


@usage_errors()
def chosen_config(name: str | None, options: dict[str, Any]) -> TrainConfig:
    """Return the recipe ``name`` with the given options applied.

    A wrong value is a usage error; so is an option that would have no effect, even with its default value.
    """
    changes = {option: value for option, value in options.items() if value is not None}
    fields = recipe(name or "default", changes.get("model", TrainConfig.model)).to_dict() | changes
    for option, why in idle_options(fields).items():
        if option in changes:
            flag = f"--{option.replace('_', '-')}"
            raise click.UsageError(f"{flag}: has no effect with {why}; leave it out.")
        # The recipe's value belongs to the option that was changed.
        fields[option] = getattr(TrainConfig, option)
    return TrainConfig(**fields)


def check_other_data(other_data: bool, weights: str | None, teachers: Sequence[Path] = ()) -> None:
    """Raise click.UsageError if ``--other-data`` was given without weights or teachers."""
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
    engine: Engine = HERE,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Create one run, or one per seed, and train."""
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
    # All runs are created before the first is trained, so that --resume finds them after an interruption.
    runs: list[Run] = []
    try:
        for place, each in configs.items():
            run = new_run(
                place,
                each,
                dataset,
                source,
                device,
                weights,
                distillation,
                teachers,
                other_data=other_data,
            )
            runs.append(run)
    except BaseException:  # Ctrl-C too: --resume would take some of the seeds for all
        for run in runs:
            shutil.rmtree(run.path, ignore_errors=True)
        raise
    _train(path, runs, source, dataset, device, engine, tensorboard=tensorboard, as_json=as_json)


def resume_runs(
    path: Path,
    source: str | None,
    *,
    engine: Engine,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Resume the run at ``path``, or all unfinished runs of a folder of seeds."""
    runs = open_runs(path)
    if runs[0].path == path:  # not a folder of seeds, in which some may be finished
        runs[0].check_unfinished()
    source = source or runs[0].facts["data"]["source"]
    device, dataset = _prepare(runs[0].config, source)
    _train(path, runs, source, dataset, device, engine, tensorboard=tensorboard, as_json=as_json)


def _prepare(config: TrainConfig, source: str) -> tuple[Device, data.Dataset]:
    """Choose the device and read the data, and report both."""
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
    engine: Engine,
    *,
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train the unfinished runs among ``runs``, which are in ``path``, and report all of them."""
    from fertools.cli.common import train_with_progress

    waiting = [run for run in runs if not run.finished]
    for run in runs:
        if run.finished:
            talk(f"Run: {run.path}, finished before")
    if engine.name == "ray":
        _train_on_ray(path, waiting, source, engine, tensorboard)
        waiting = []
    failed = 0
    for run in waiting:
        talk(f"Device: {device.kind}, {device.name} ({device.backend}), {run.facts['precision']}")
        talk(f"Run: {run.path}")
        try:
            with interruptible(f"continue with: fertools train --resume {shlex.quote(str(path))}"):
                train_with_progress(run, dataset, tensorboard=tensorboard)
        except WriteError:
            talk(f"Once that is fixed, continue with: fertools train --resume {shlex.quote(str(path))}")
            raise
        except FertoolsError as error:  # such as a loss that is NaN; the other seeds may do better
            if len(runs) == 1:
                raise
            talk(f"{run.name}: {error}")
            failed += 1
            continue
        metrics = run.metrics
        talk(
            f"Best epoch {metrics['best_epoch']}: validation accuracy {metrics['validation']['accuracy']:.2%}"
        )
    if failed:
        raise RunError(f"{path}: {failed} of {len(runs)} seeds failed, see above")
    if len(runs) == 1:
        best, document = runs[0], {"run": str(runs[0].path), **runs[0].metrics}
    else:
        summary = SeedSummary.of(runs)
        best, document = summary.best, summary.to_dict()
        talk(
            f"{len(runs)} seeds: validation accuracy {summary.mean:.2%} ± {summary.deviation:.2%},"
            f" best {best.path}"
        )
    suggest_export(best)
    if as_json:
        emit(document)
    else:
        click.echo("\n".join(str(run.path) for run in runs))


def _train_on_ray(path: Path, runs: Sequence[Run], source: str, engine: Engine, tensorboard: bool) -> None:
    """Train ``runs``, which are in ``path``, side by side.

    Raises:
        RunError: a run failed.
    """
    jobs = {run.name: Job(run.path, run.config, source, tensorboard=tensorboard) for run in runs}
    with interruptible(f"continue with: fertools train --resume {shlex.quote(str(path))} --engine ray"):
        failures = {name: failure for name, failure in train_all(jobs, engine) if failure}
    if failures:
        raise RunError(f"{path}: {len(failures)} of {len(runs)} runs failed; continue with --resume {path}")


@click.command()
@data_option
@out_option
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Continue an interrupted run.")
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
    engine: Engine,
    tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network into a run folder.

    Prints the path of the run folder. With --resume an interrupted run continues from its last finished
    epoch and ends as if it had never been interrupted; a folder of --seeds continues with all of its
    unfinished runs.
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
                "--resume uses the options of the run; only --data, --tensorboard and --json go with it."
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
@options_for(DistillConfig)
@data_option
@out_option
@new_run_options
@tensorboard_option
@json_option
def distill(
    first: tuple[Path, ...],
    more: tuple[Path, ...],
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

    Student and teachers see the same augmented images, and the student learns the teachers' probabilities
    beside the labels. Of images that --camera degrades, teachers see the originals. The run keeps copies of
    its teachers, so fertools train --resume RUN does not need them any more.
    """
    given = {name: options.pop(name) for name in options_of(DistillConfig)}
    config = chosen_config(recipe, options)
    with usage_errors():
        distillation = DistillConfig(**{name: value for name, value in given.items() if value is not None})
    if distillation.versions and config.mixup:
        raise click.UsageError("--mixup: not with --versions, whose blends the teachers would not see.")
    if not distillation.label_share and options["label_smoothing"] is not None:
        raise click.UsageError("--label-smoothing: has no effect with --label-share 0; leave it out.")
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
