"""``fertools evaluate``."""

from __future__ import annotations

from pathlib import Path

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
    views_option,
)
from fertools.evaluation import confusion_figure, is_run, measure, open_network


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@measured_data_option
@click.option(
    "--split",
    type=click.Choice(data.SPLITS),
    help="Split to measure.  [default: validation for a run or .keras file, where something may still be"
    " chosen; test for an export]",
)
@precision_option
@views_option
@plot_option("confusion matrix")
@json_option
def command(
    model: Path,
    source: str | None,
    split: str | None,
    precision: str,
    views: str,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure a run or an exported model on a split.

    MODEL is a run folder, an export folder, an .onnx, .ort or .keras file, or a model that ships: sequential
    or compact. The figures are given twice: for the whole split, and without the images that are also in
    another split.
    """
    # A choice made on the test split would flatter itself, so before an export it must be asked for.
    split = split or ("validation" if is_run(model) or model.suffix == ".keras" else "test")
    network = open_network(model, precision)
    dataset = load_data(model, precision, source)
    measurement = measure(network, dataset, split, views)
    if as_json:
        emit({"model": str(model), **measurement.to_dict()})
    else:
        click.echo(measurement.to_text())
    if plot:
        confusion_figure(measurement.official, plot, f"{model.resolve().name}, {measurement.title}")
        talk(f"Wrote {plot}.")
