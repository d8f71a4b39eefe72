"""``fertools export``."""

from __future__ import annotations

from pathlib import Path

import click

from fertools import data
from fertools.cli.common import RUNS, emit, json_option, talk
from fertools.errors import ConfigError
from fertools.export import export
from fertools.export.exporter import TARGETS
from fertools.export.preflight import check_ready
from fertools.export.quantization import DEFAULT_IMAGES, METHODS, QuantizeConfig
from fertools.training import Run
from fertools.verification import BrokenGateError

#: Where exports go if --out does not say.
EXPORTED = Path("exported")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write.  [default: exported/MODEL]")
@click.option("--data", "source", metavar="SRC", help="The run's data, if it has moved since.")
@click.option(
    "--target",
    type=click.Choice(TARGETS),
    default=TARGETS[0],
    show_default=True,
    help="Format of the files; ort is onnxruntime's mobile format, with the operators that it needs.",
)
@click.option("--quantize", is_flag=True, help="Also write an int8 file.")
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    help=f"Training images that calibrate the int8 file.  [default: {DEFAULT_IMAGES}, or all if fewer]",
)
@click.option("--calibration-method", type=click.Choice(METHODS), help=f"[default: {METHODS[0]}]")
@click.option("--force", is_flag=True, help="Replace an export that was made from other data.")
@json_option
def command(
    run: Path | None,
    out: Path | None,
    source: str | None,
    target: str,
    quantize: bool,
    calibration_images: int | None,
    calibration_method: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export a run to ONNX, verified on the test split.

    RUN is a finished run folder; without it, the one under runs/ that finished last. If a gate of the
    verification is broken, nothing is written, an earlier export stays, and the exit code is 1.
    """
    if not quantize and (calibration_images or calibration_method):
        raise click.UsageError("--calibration-images and --calibration-method go with --quantize.")
    quantization = None
    if quantize:
        try:
            quantization = QuantizeConfig(images=calibration_images, method=calibration_method or METHODS[0])
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
    opened = Run.open(run) if run else Run.latest_finished(RUNS)
    folder = out or EXPORTED / opened.config.model
    check_ready(opened, folder, force=force)
    source = source or opened.facts["data"]["source"]
    talk(f"Run: {opened.path}, data: {source}")
    dataset = data.load(source)
    try:
        done = export(
            opened,
            dataset,
            folder,
            quantization=quantization,
            target=target,
            force=force,
            say=lambda message: talk(f"{message[0].upper()}{message[1:]} ..."),
        )
    except BrokenGateError as error:
        talk(f"\n{error.report.to_text()}\n")
        raise
    if as_json:
        emit(
            {
                "folder": str(folder),
                "calibration": done.calibration.to_dict(),
                "verification": done.report.to_dict(),
            }
        )
    else:
        click.echo(done.report.to_text())
    talk(f"Calibration: {done.calibration}")
    talk(f"Wrote {folder}/: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    talk(f"Next: fertools predict IMAGE --model {folder}")
