"""``fertools verify``."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from fertools import data
from fertools.cli.common import default_source, emit, json_option, talk


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "source",
    metavar="SRC",
    help="The data that the model was made from.  [default: $FERTOOLS_DATA, else synthetic; with --kit and"
    " --device drawn faces]",
)
@click.option("--other-data", is_flag=True, help="The data is other than that, and that is meant.")
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Do not verify here, but write a kit that checks the files on a device.",
)
@click.option(
    "--images", type=click.IntRange(1, 100_000), help="Images in the kit.  [default: 300, or all if fewer]"
)
@click.option(
    "--device",
    type=click.Path(path_type=Path),
    metavar="RESULT.json",
    help="Judge what the kit's check.py wrote on a device, and add it to the report and the model card.",
)
@json_option
def command(
    folder: Path,
    source: str | None,
    other_data: bool,
    kit: Path | None,
    images: int | None,
    device: Path | None,
    as_json: bool,
) -> None:
    """Compare Keras, ONNX and int8 on the test split.

    FOLDER is an export. A gate is proved, broken, or not proved, where the split is too small to say: it then
    tells how many images would do. The exit code is 1 if one is broken.

    With --kit and --device the comparison is with another machine: the kit holds images, the answers of each
    file here, and a script that needs numpy and onnxruntime alone; the device must name the same class on
    99.5% of the images. The kit's images are drawn faces unless --data names your own.
    """
    if kit is not None and device is not None:
        raise click.UsageError("--kit and --device are two steps: write the kit, run it, read its result.")
    if images is not None and kit is None:
        raise click.UsageError("--images goes with --kit.")
    if other_data and (kit is not None or device is not None):
        raise click.UsageError("--other-data is for verifying here; it does not go with --kit or --device.")
    if kit is not None:
        _write_kit(folder, kit, source, images, as_json=as_json)
    elif device is not None:
        _read_device(folder, device, source, as_json=as_json)
    else:
        from fertools.verification import verify

        report = verify(folder, data.load(source or default_source()), other_data=other_data)
        if as_json:
            emit(report.to_dict())
        else:
            click.echo(report.to_text())
        report.check(f"{folder}: ")


def _write_kit(folder: Path, path: Path, source: str | None, images: int | None, *, as_json: bool) -> None:
    """Write a kit. The environment's data set is not asked: pictures of people travel by name only."""
    from fertools.verification.kit import IMAGES, write_kit

    dataset = data.load(source) if source else None
    count = write_kit(folder, path, dataset, images=images or IMAGES)
    if as_json:
        emit({"kit": str(path), "images": count})
    else:
        click.echo(path)
    talk(f"{count} images, {dataset.name if dataset else 'drawn faces'}. On the device: python check.py")
    named = f" --data {shlex.quote(source)}" if source else ""
    talk(f"Next, with its result: fertools verify {shlex.quote(str(folder))}{named} --device result.json")


def _read_device(folder: Path, result: Path, source: str | None, *, as_json: bool) -> None:
    from fertools.verification.kit import add_to_report, read_result

    report = read_result(folder, result, data.load(source) if source else None)
    add_to_report(folder, report)
    if as_json:
        emit(report.to_dict())
    else:
        click.echo(report.to_text())
    talk(f"Added to {folder / 'report.json'} and the model card.")
    report.check(f"{result}: ")
