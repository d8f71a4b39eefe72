"""``fertools compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fertools.cli.common import emit, json_option, plot_option, suggest_export, talk
from fertools.training.comparison import compare

if TYPE_CHECKING:
    from fertools.training.comparison import Comparison


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@plot_option("accuracies and losses by epoch")
@json_option
def command(runs: tuple[Path, ...], plot: Path | None, as_json: bool) -> None:
    """Compare runs: their accuracy and loss on the validation split.

    RUN is a run folder, a folder of seeds (mean and standard deviation of its finished runs), or a sweep
    (all of its runs). Unfinished runs are compared by the epochs that they have.
    """
    report(compare(runs), plot, as_json=as_json)


def report(comparison: Comparison, plot: Path | None, *, as_json: bool) -> None:
    """Print and draw a comparison, and suggest the next command for the best run."""
    if as_json:
        emit(comparison.to_dict())
    else:
        click.echo(comparison.to_text())
    if plot:
        from fertools.training.figures import comparison_figure

        comparison_figure(comparison.entries, plot)
        talk(f"The picture is in {plot}.")
    if comparison.best:
        suggest_export(comparison.best)
