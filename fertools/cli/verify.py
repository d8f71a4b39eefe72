"""``fertools verify``."""

from __future__ import annotations

from pathlib import Path

import click

from fertools import data
from fertools.cli.common import default_source, emit, json_option


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--data", "source", metavar="SRC", help="Data set.  [default: $FERTOOLS_DATA, else synthetic]")
@json_option
def command(folder: Path, source: str | None, as_json: bool) -> None:
    """Compare Keras, ONNX and int8 on the test split.

    FOLDER is an export. The exit code is 1 if a gate is broken.
    """
    from fertools.verification import verify

    report = verify(folder, data.load(source or default_source()))
    if as_json:
        emit(report.to_dict())
    else:
        click.echo(report.to_text())
    report.check(f"{folder}: ")
