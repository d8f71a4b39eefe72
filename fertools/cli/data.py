"""``fertools data``: inspect, preview, convert, and cut faces out of photos."""

from __future__ import annotations

import csv
import dataclasses
import shlex
from pathlib import Path

import click
import numpy as np

from fertools import data, files
from fertools.cli.common import Png, emit, json_option, talk
from fertools.cli.photos import detector_option, make_finder, min_confidence_option
from fertools.errors import DataError
from fertools.faces.collecting import SMALLEST_FACE

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
)


@click.group("data")
def command() -> None:
    """Inspect, preview, convert and make data sets of labelled faces.

    SRC is fer2013.csv or icml_face_data.csv, an .npz file, a pair of .npy files, a folder of images in
    folders named by class (happy/, sad/ ..., perhaps within train/ and test/), or "synthetic" for drawn
    faces.
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
@click.option("--plot", required=True, type=Png(), metavar="FILE", help="Draw the grid as a PNG.")
@click.option(
    "--split", type=click.Choice(data.SPLITS), default="train", show_default=True, help="Which images."
)
@click.option(
    "--per-class", type=click.IntRange(1, 100), default=10, show_default=True, help="Images per row."
)
@seed_option
def preview(src: str, plot: Path, split: str, per_class: int, seed: int) -> None:
    """Draw a grid of images, one row per class."""
    grid = data.preview(data.read(src, seed=seed), split, per_class, seed)
    with files.replacing(plot) as temporary:
        grid.save(temporary, format="PNG")
    talk(f"Wrote {plot}. Next: fertools data info {shlex.quote(src)}")


def _check_free(src: str | Path, dst: Path, *others: Path, force: bool) -> None:
    """Check, before any work, that ``dst`` and files beside it can be written.

    Raises:
        DataError: one would be replaced and nobody asked for it, or ``dst`` would replace what it is made of.
        WriteError: as ``data.check_destination``.
    """
    for path in (dst, *others):
        if not force and path.exists():
            raise DataError(f"{path}: exists already; choose another name, or replace it with --force")
    source, place = Path(src).resolve(), dst.resolve()
    if place in (source, *source.parents):
        raise DataError(f"{dst}: would replace {src}, which it is made of; choose another name")
    data.check_destination(dst, overwrite=force)


@command.command()
@click.argument("src")
@click.argument("dst")
@click.option("--force", is_flag=True, help="Overwrite DST.")
@seed_option
def convert(src: str, dst: str, force: bool, seed: int) -> None:
    """Write SRC as DST: .csv, .npz or a folder of PNGs."""
    _check_free(src, Path(dst), force=force)
    dataset = data.read(src, seed=seed)
    data.write(dataset, dst, overwrite=force)
    talk(f"Wrote {len(dataset):,} images to {dst}. Next: fertools train --data {shlex.quote(dst)}")


@command.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.argument("dst", type=click.Path(path_type=Path))
@detector_option
@min_confidence_option
@click.option(
    "--smallest",
    type=click.FloatRange(min=1),
    default=SMALLEST_FACE,
    show_default=True,
    help="Smallest face to keep, in pixels across.",
)
@click.option("--force", is_flag=True, help="Overwrite DST and the files beside it.")
@seed_option
@json_option
def faces(
    src: Path,
    dst: Path,
    detector: str | None,
    min_confidence: float | None,
    smallest: float,
    force: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Cut the faces out of photos in folders named by class.

    SRC holds folders called happy, Anger or 3, directly or within train/, valid/ and test/; without these, a
    fifth of each class becomes the test split. DST is a .csv or .npz file, or a folder of PNGs. Each photo
    must show one face: photos with none, several or a small one, and duplicates, are left out. The command
    also writes a contact sheet, DST-faces.png, and a list of what was left out and why, DST-left-out.csv.
    """
    from fertools.cli.common import counting
    from fertools.faces.collecting import collect
    from fertools.training.adaptation import check_enough

    beside = dst.stem if dst.suffix.lower() in data.FILES else dst.name
    sheet, listing = (dst.with_name(f"{beside}-{name}") for name in ("faces.png", "left-out.csv"))
    _check_free(src, dst, sheet, listing, force=force)
    with counting("photos") as progress:
        found = collect(
            src, make_finder(detector, min_confidence), smallest=smallest, seed=seed, progress=progress
        )
    data.write(found.dataset, dst, overwrite=force)
    everything = dataclasses.replace(found.dataset, usage=np.zeros_like(found.dataset.usage))
    most = int(np.bincount(found.dataset.labels).max())
    with files.telling(sheet), files.replacing(sheet) as temporary:
        data.preview(everything, "train", min(most, 100), seed).save(temporary, format="PNG")
    with (
        files.telling(listing),
        files.replacing(listing) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(("photo", "reason"))
        writer.writerows((each.path, each.reason) for each in found.left_out)
    counts = found.dataset.counts
    if as_json:
        emit(
            {
                "data": str(dst),
                "images": counts,
                "left_out": [dataclasses.asdict(each) for each in found.left_out],
                "contact_sheet": str(sheet),
            }
        )
    else:
        click.echo(", ".join(f"{name} {count:,}" for name, count in counts.items()))
        for reason, count in found.reasons.items():
            click.echo(f"left out, {reason}: {count:,}")
    talk(f"Wrote {dst}, {sheet} and {listing}. Look at the contact sheet before you train.")
    try:
        check_enough(data.load(dst))
    except DataError as error:
        talk(f"Next: more photos. {error}.")
    else:
        talk(f"Next: fertools adapt {shlex.quote(str(dst))}")
