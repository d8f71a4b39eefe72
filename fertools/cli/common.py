"""What the sub-commands share: options, and the rule that data goes to stdout and talk to stderr."""

from __future__ import annotations

import json
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def talk(message: str = "") -> None:
    """Say something to the person at the terminal, on stderr."""
    click.echo(message, err=True)


def emit(document: Any) -> None:
    """Print a JSON document to stdout."""
    click.echo(json.dumps(document, indent=2))
