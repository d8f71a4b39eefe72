"""``fertools stress``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import (
    emit,
    json_option,
    load_data,
    measured_data_option,
    plot_option,
    precision_option,
    talk,
)
from fertools.evaluation import open_network
from fertools.evaluation.stress import Stress, stress
from fertools.tables import text_table

HEADER = ("change", "severities, mild to severe", "mild", "middle", "severe", "mean", "points")


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@measured_data_option
@click.option(
    "--split", type=click.Choice(data.SPLITS), default="validation", show_default=True, help="Which images."
)
@click.option(
    "--images", type=click.IntRange(1), help="Number of images, always the same ones.  [default: all]"
)
@precision_option
@plot_option("accuracy against severity")
@json_option
def command(
    model: Path,
    source: str | None,
    split: str,
    images: int | None,
    precision: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure a model on worse images: small, blurred, noisy, badly lit.

    MODEL is a run folder, an export folder, an .onnx, .ort or .keras file, or a model that ships: sequential
    or compact. Changes that a camera, a codec, a detector or the light makes are applied to the split at
    three severities, the same in every call. Their mean accuracy is printed beside the clean one.
    """
    network = open_network(model, precision)
    dataset = load_data(model, precision, source)
    found = stress({"model": network}, dataset, split, images=images, progress=_progress)["model"]
    if as_json:
        emit({"model": str(model), **found.to_dict()})
    else:
        _print(found)
    if plot:
        from fertools.evaluation.figures import stress_figure

        title = f"{model.resolve().name}, {found.data}, {found.split} split, {found.images:,} images"
        stress_figure(found, plot, title)
        talk(f"Wrote {plot}.")


def _progress(steps: Iterable[Any], count: int) -> Iterable[Any]:
    """Return a progress bar on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not sys.stderr.isatty():
        return steps
    return track(steps, "changes", total=count, console=console, transient=True)


def _print(found: Stress) -> None:
    """Print the table, worst change first."""
    rows = [
        (
            change.name,
            f"{', '.join(f'{value:g}' for value in change.severities)} {change.unit}",
            *(f"{value:.1%}" for value in (*change.accuracies, change.mean)),
            f"{100 * (change.mean - found.clean):+.1f}",
        )
        for change in sorted(found.changes, key=lambda each: each.mean)
    ]
    click.echo(f"{found.data}, {found.split} split, {found.images:,} images")
    click.echo(text_table(HEADER, rows, left=(0, 1)))
    click.echo()
    click.echo(f"clean     {found.clean:7.2%}")
    click.echo(
        f"stressed  {found.mean:7.2%}   mean of the changes, {found.points_lost:.2f} points below clean"
    )
