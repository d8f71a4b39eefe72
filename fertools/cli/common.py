"""What the sub-commands share: options, and the rule that data goes to stdout and messages to stderr."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from fertools import data, figures
from fertools.data import synthetic
from fertools.errors import ConfigError
from fertools.evaluation import is_run
from fertools.runtime.prediction import VIEWS
from fertools.runtime.providers import PROVIDERS

if TYPE_CHECKING:
    from fertools.data import Dataset
    from fertools.training import Epoch, Run


#: Default folder for new runs, and where the latest run is looked for.
RUNS = Path("runs")

#: Folder of the exports.
EXPORTED = Path("exported")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

model_option = click.option(
    "--model",
    type=click.Path(),
    help="Export folder, .onnx or .ort file, or a model that ships: sequential (the default) or compact.",
)

provider_option = click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAME",
    help=f"Execution provider: auto, {', '.join(PROVIDERS)} or onnxruntime's own name.",
)

precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "int8"]),
    default="auto",
    show_default=True,
    help="Which file of an export folder to use; auto is int8 if there is one.",
)

views_option = click.option(
    "--views",
    type=click.Choice(tuple(VIEWS)),
    default="single",
    show_default=True,
    help="Views of each image; flip is the mean over it and its mirror.",
)

measured_data_option = click.option(
    "--data",
    "source",
    metavar="SRC",
    help="Data set.  [default: $FERTOOLS_DATA, else the run's, else synthetic]",
)


class Png(click.Path):
    """Path of a picture to write."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Refuse another suffix than .png."""
        if Path(value).suffix.lower() != ".png":
            self.fail(f"{value}: the picture is a .png file; name one.", parameter, context)
        return super().convert(value, parameter, context)


def plot_option(what: str) -> Callable[[Any], Any]:
    """Return the option ``--plot``, for what matplotlib draws; without it, an error before any work."""

    def check(context: click.Context, parameter: click.Parameter, plot: Path | None) -> Path | None:
        if plot is not None:
            figures.blank(1, 1)
        return plot

    text = f"Draw the {what} as a PNG."
    return click.option("--plot", type=Png(), callback=check, metavar="FILE", help=text)


def talk(message: str = "") -> None:
    """Print a message to stderr."""
    click.echo(message, err=True)


def suggest_export(run: Run) -> None:
    """Suggest to export ``run``, into a folder of its own: the default one may hold another model."""
    out = EXPORTED / (run.seeds_folder or run.path.resolve()).name
    talk(f"Next: {shlex.join(['fertools', 'export', str(run.path), '--quantize', '--out', str(out)])}")


def emit(document: Any) -> None:
    """Print a JSON document to stdout."""
    click.echo(json.dumps(document, indent=2))


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn the ConfigError of a wrong option into a usage error."""
    try:
        yield
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """End the command on Ctrl-C with ``hint``, which says how to continue, and a shell's exit code for it."""
    try:
        yield
    except KeyboardInterrupt:
        talk(f"Interrupted; {hint}")
        raise SystemExit(128 + signal.SIGINT) from None


def default_source() -> str:
    """Return the data set to use when none is named, and say which it is."""
    source = os.environ.get("FERTOOLS_DATA")
    if source:
        talk(f"No --data: {source}, from the environment variable FERTOOLS_DATA.")
        return source
    talk("No --data and no FERTOOLS_DATA in the environment: synthetic, drawn faces.")
    return synthetic.NAME


def load_data(model: Path, precision: str, source: str | None) -> Dataset:
    """Return the data set to measure ``model`` on: ``source``, else $FERTOOLS_DATA, else that of a run.

    Says which it is if none is named, and whether the model was trained on other data.
    """
    trained_on = _training_data(model, precision)
    if source is None and not os.environ.get("FERTOOLS_DATA") and "source" in trained_on:
        source = trained_on["source"]
        talk(f"No --data: {source}, as in training.")
    dataset = data.load(source or default_source())
    if trained_on and trained_on["fingerprint"] != dataset.fingerprint:
        talk(f"{model} was trained on other data: {trained_on['name']}.")
    return dataset


def _training_data(model: Path, precision: str) -> Mapping[str, Any]:
    """Return name and fingerprint of the data that ``model`` was trained on, and of a run also the source.

    Empty for a .keras file, which tells nothing.
    """
    if is_run(model):
        from fertools.training import Run

        facts: Mapping[str, Any] = Run.open(model).facts["data"]
        return facts
    if model.suffix == ".keras":
        return {}
    from fertools.runtime import Predictor

    return Predictor(model, precision=precision, providers="cpu", threads=1).info.data


class Progress:
    """An observer of training that is also a context manager.

    Arguments:
        epochs: epochs of the whole run.
        steps: steps per epoch.
        done: epochs that were finished earlier.
    """

    def __init__(self, epochs: int, steps: int, done: int = 0) -> None:
        self.epochs = epochs
        self.steps = steps
        self.done = done
        self.bar = _bar() if sys.stderr.isatty() else None
        self.task: Any = None

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
            # Only the epochs of this process count: the speed of earlier ones is unknown.
            self.task = self.bar.add_task("compiling", total=(self.epochs - self.done) * self.steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=(epoch - 1 - self.done) * self.steps + step,
                description=f"epoch {epoch}/{self.epochs}  loss {loss:.4f}",
            )

    def epoch(self, row: Epoch, best: bool) -> None:
        """Print the epoch's line, above the bar."""
        degraded = row.val_degraded_accuracy
        line = (
            f"epoch {row.epoch:>{len(str(self.epochs))}}/{self.epochs}"
            f"  loss {row.loss:.4f}  accuracy {row.accuracy:6.2%}"
            f"  val loss {row.val_loss:.4f}  val accuracy {row.val_accuracy:6.2%}"
            f"{'' if degraded is None else f'  degraded {degraded:6.2%}'}"
            f"  lr {row.learning_rate:.2e}  {row.seconds:.1f} s{' *' if best else ''}"
        )
        if self.bar is not None:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            talk(line)


def train_with_progress(run: Run, dataset: Dataset, *, tensorboard: bool = False) -> Run:
    """Train ``run`` to its end and show its progress. Raises what ``trainer.train`` raises."""
    from fertools.training.trainer import train

    steps = run.config.steps_per_epoch(len(dataset.split("train")))
    with Progress(run.config.epochs, steps, len(run.history())) as progress:
        return train(run, dataset, observer=progress, tensorboard=tensorboard)


def _bar() -> Any:
    """Return a progress bar on stderr that disappears when it is done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that takes how many are done, of how many; at a terminal it shows a bar."""
    if not sys.stderr.isatty():
        yield lambda done, all: None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, all: bar.update(task, completed=done, total=all)
