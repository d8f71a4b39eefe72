"""What the sub-commands share: options, and the rule that data goes to stdout and talk to stderr."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from fertools.data import synthetic
from fertools.runtime.providers import PROVIDERS
from fertools.runtime.views import VIEWS

#: Where new runs go, and where the latest is looked for, if nothing else is said.
RUNS = Path("runs")

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
    help="Which file of an export folder; auto is int8 if there is one.",
)

views_option = click.option(
    "--views",
    type=click.Choice(tuple(VIEWS)),
    default="single",
    show_default=True,
    help="Views of each image; flip is the mean over it and its mirror.",
)


def talk(message: str = "") -> None:
    """Say something to the person at the terminal, on stderr."""
    click.echo(message, err=True)


def emit(document: Any) -> None:
    """Print a JSON document to stdout."""
    click.echo(json.dumps(document, indent=2))


def default_source() -> str:
    """The data set to use when none is named; says which."""
    source = os.environ.get("FERTOOLS_DATA")
    if source:
        talk(f"No --data: {source}, from the environment variable FERTOOLS_DATA.")
        return source
    talk("No --data and no FERTOOLS_DATA in the environment: synthetic, drawn faces.")
    return synthetic.NAME
