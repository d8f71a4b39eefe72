"""``fertools benchmark``."""

from __future__ import annotations

from pathlib import Path

import click

from fertools.cli.common import emit, json_option, plot_option, talk
from fertools.runtime.location import locate


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads that work on one call."
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1),
    multiple=True,
    default=(1, 64),
    show_default=True,
    help="Images per call; may be given several times.",
)
@plot_option("milliseconds per image")
@json_option
def command(folder: Path, threads: int, batches: tuple[int, ...], plot: Path | None, as_json: bool) -> None:
    """Time the files of an export on this machine's CPU.

    FOLDER is an export, or a model that ships: sequential or compact. The files take turns, so their ratios
    hold on a busy machine too; the absolute times need an idle one. "of matmul speed" is the share of the
    multiply-adds per second that a 768x768x768 matrix product reaches here in the same precision; it needs
    the package onnx (extra train).
    """
    from fertools.benchmark import benchmark, benchmark_figure

    found = benchmark(locate(folder), threads=threads, batches=batches, say=talk)
    if as_json:
        emit(found.to_dict())
    else:
        click.echo(found.to_text())
    if plot:
        benchmark_figure(found, plot)
        talk(f"The picture is in {plot}.")
