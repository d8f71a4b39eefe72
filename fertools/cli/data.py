"""``fertools data``: inspect, preview and convert."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fertools import data, files
from fertools.cli.common import emit, json_option, talk

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws what is random."
)


@click.group("data")
def command() -> None:
    """Inspect, preview and convert data sets of labelled faces.

    SRC is fer2013.csv or icml_face_data.csv, an .npz file, a pair of .npy files, a folder with train/ and
    test/ folders of images, or `synthetic` for drawn faces.
    """


@command.command()
@click.argument("src")
@seed_option
@json_option
def info(src: str, seed: int, as_json: bool) -> None:
    """Count classes, duplicates, blank images and conflicting labels."""
    inspection = data.inspect(data.read(src, seed=seed))
    if as_json:
        emit(inspection.to_dict())
    else:
        click.echo(inspection.to_text())


@command.command()
@click.argument("src")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="PNG file to write.")
@click.option(
    "--split", type=click.Choice(data.SPLITS), default="train", show_default=True, help="Which images."
)
@click.option(
    "--per-class", type=click.IntRange(1, 100), default=10, show_default=True, help="Images in a row."
)
@seed_option
def preview(src: str, output: Path, split: str, per_class: int, seed: int) -> None:
    """Draw a grid of images, a row for each class."""
    grid = data.preview(data.read(src, seed=seed), split, per_class, seed)
    with files.replacing(output) as temporary:
        grid.save(temporary, format="PNG")
    talk(f"Wrote {output}. What else is in it: fertools data info {shlex.quote(src)}")


@command.command()
@click.argument("src")
@click.argument("dst")
@click.option("--force", is_flag=True, help="Overwrite DST.")
@seed_option
def convert(src: str, dst: str, force: bool, seed: int) -> None:
    """Write SRC as DST: .csv, .npz or a folder of PNGs."""
    dataset = data.read(src, seed=seed)
    data.write(dataset, dst, overwrite=force)
    talk(f"Wrote {len(dataset):,} images to {dst}. Next: fertools train --data {shlex.quote(dst)}")
