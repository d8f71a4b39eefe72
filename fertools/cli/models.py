"""``fertools models``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fertools.cli.common import emit, json_option, plot_option, talk
from fertools.models import NETWORKS, Network, build
from fertools.models.measured import Measured, measured
from fertools.runtime.location import SHIPPED
from fertools.tables import text_table

HEADER = (
    "name",
    "parameters",
    "multiply-adds",
    "input",
    "published",
    "measured here with its published recipe, validation / test",
)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the networks that can be trained.

    Published results are the authors', on the split that they name. Measured results are of our own training
    with the recipe that the network was published with. The models that ship were trained longer, by other
    recipes.
    """
    if ctx.invoked_subcommand:
        if as_json:
            raise click.UsageError(f"--json: goes after {ctx.invoked_subcommand}.")
        return
    runs = measured()
    if as_json:
        emit([_document(network, runs.get(network.name, [])) for network in NETWORKS.values()])
        return
    rows = [_row(network, runs.get(network.name, [])) for network in NETWORKS.values()]
    click.echo(text_table(HEADER, rows, left=(0, 3, 4, 5)))
    talk(f"{' and '.join(SHIPPED)} ship trained: fertools info --model NAME has their accuracy.")
    talk("Next: fertools models show NAME, or fertools train --model NAME")


@command.command()
@click.argument("name", type=click.Choice(tuple(NETWORKS)), metavar="NAME")
@plot_option("network")
@json_option
def show(name: str, plot: Path | None, as_json: bool) -> None:
    """Show the layers of a network, and what is known of it."""
    from fertools.backend import import_keras

    import_keras()
    from fertools.models.drawing import network_figure
    from fertools.models.structure import structure

    network, runs = NETWORKS[name], measured().get(name, [])
    built = build(name)
    if as_json:
        emit(_document(network, runs) | {"layers": [layer.to_dict() for layer in structure(built)]})
    else:
        built.summary(print_fn=click.echo)
        click.echo(network.text)
        click.echo(f"Input: {network.input}. Multiply-adds: {network.multiply_adds:,} per image.")
        for result in network.published:
            click.echo(f"Published: {result}.")
        for run in runs:
            click.echo(f"Measured: {run}.")
        click.echo(f"Recipes: {', '.join(('default', *network.recipes))}.")
    if plot:
        network_figure(built, plot)
        talk(f"The picture is in {plot}.")
    talk(f"Next: fertools train --model {name}{' --recipe original' if network.recipes else ''}")


def _row(network: Network, runs: list[Measured]) -> tuple[str, str, str, str, str, str]:
    return (
        network.name,
        f"{network.parameters:,}",
        f"{network.multiply_adds:,}",
        network.input,
        ", ".join(
            f"{result.accuracy:.1%} {result.split}{' (ensemble)' if result.ensemble else ''}"
            for result in network.published
        )
        or "-",
        ", ".join(f"{run.validation:.1%} / {run.test:.1%} ({run.epochs} epochs)" for run in runs) or "-",
    )


def _document(network: Network, runs: list[Measured]) -> dict[str, Any]:
    return {
        "name": network.name,
        "text": network.text,
        "parameters": network.parameters,
        "multiply_adds": network.multiply_adds,
        "input": network.input,
        "published": [result.to_dict() for result in network.published],
        "measured": [run.to_dict() for run in runs],
        "recipes": ["default", *network.recipes],
    }
