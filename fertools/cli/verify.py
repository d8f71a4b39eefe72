"""``fertools verify``."""

from __future__ import annotations

from pathlib import Path

import click

from fertools import data
from fertools.cli.common import default_source, emit, json_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "source",
    metavar="SRC",
    help="The data that the model was made from.  [default: $FERTOOLS_DATA, else synthetic]",
)
@click.option("--other-data", is_flag=True, help="The data is other than that, and that is meant.")
@json_option
def command(folder: Path, source: str | None, other_data: bool, as_json: bool) -> None:
    """Compare Keras, ONNX and int8 on the test split.

    FOLDER is an export. A gate is proved, broken, or not proved, where the split is too small to say: it then
    tells how many images would do. The exit code is 1 if one is broken.
    """
    from fertools.verification import verify

    report = verify(folder, data.load(source or default_source()), other_data=other_data)
    if as_json:
        emit(report.to_dict())
    else:
        click.echo(report.to_text())
    report.check(f"{folder}: ")
