"""What the commands that export share: their options, and making and reporting an export."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fertools.cli.common import emit, json_option, talk
from fertools.contract import WEB_FOLDER
from fertools.data import Dataset
from fertools.errors import ConfigError
from fertools.export import QuantizeConfig, export_subject
from fertools.export.exporter import TARGETS, WEB
from fertools.export.preflight import check_folder
from fertools.export.quantization import DEFAULT_IMAGES, METHODS
from fertools.export.subject import Subject
from fertools.verification import BrokenGateError
from fertools.web import Page, WebConfig
from fertools.web.onnxruntime_web import VARIABLE, VERSION

#: Where exports go if --out does not say.
EXPORTED = Path("exported")


def export_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of an export besides what is exported.

    The command gets those that quantize as one: ``quantization``, a QuantizeConfig or None.
    """

    @functools.wraps(function)
    def command(
        *args: Any,
        quantize: bool,
        calibration_images: int | None,
        calibration_method: str | None,
        target: str,
        web: WebConfig,
        **options: Any,
    ) -> None:
        if target != WEB and web != WebConfig():
            raise click.UsageError(f"--detector and --onnxruntime-web go with --target {WEB}.")
        quantization = _quantization(quantize or target == WEB, calibration_images, calibration_method)
        function(*args, quantization=quantization, target=target, web=web, **options)

    decorated: Callable[..., None] = command
    for option in (
        json_option,
        click.option("--force", is_flag=True, help="Replace an export that was made from other data."),
        click.option("--calibration-method", type=click.Choice(METHODS), help=f"[default: {METHODS[0]}]"),
        click.option(
            "--calibration-images",
            type=click.IntRange(min=1),
            help="Training images that calibrate the int8 file."
            f"  [default: {DEFAULT_IMAGES}, or all if fewer]",
        ),
        click.option("--quantize", is_flag=True, help="Also write an int8 file."),
        web_options,
        click.option(
            "--target",
            type=click.Choice(TARGETS),
            default=TARGETS[0],
            show_default=True,
            help="Format of the files; ort is onnxruntime's mobile format, with the operators that it needs;"
            " triton adds a model repository of Triton Inference Server; web adds a page for browsers, and an"
            " int8 file.",
        ),
        click.option("--data", "source", metavar="SRC", help="The training data, if it has moved since."),
        click.option(
            "--out", type=click.Path(path_type=Path), help=f"Folder to write.  [default: {EXPORTED}/MODEL]"
        ),
    ):
        decorated = option(decorated)
    return decorated


def web_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of a page for browsers, which the command gets as one: ``web``, a WebConfig."""

    @functools.wraps(function)
    def command(*args: Any, detector: Path | None, onnxruntime_web: Path | None, **options: Any) -> None:
        function(*args, web=WebConfig(detector=detector, onnxruntime_web=onnxruntime_web), **options)

    for option in (
        click.option(
            "--onnxruntime-web",
            metavar="DIR",
            type=click.Path(path_type=Path),
            help=f"The npm package onnxruntime-web {VERSION}, unpacked."
            f"  [default: ${VARIABLE}, else fetched by npm, once]",
        ),
        click.option(
            "--detector",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="A YuNet face detector (.onnx), with which the page finds faces.",
        ),
    ):
        command = option(command)
    return command


def serve_hint(folder: Path, page: Page) -> None:
    """Say how large a page is, and how to look at it."""
    for note in page.notes:
        talk(note)
    size = f"{page.total / 1e6:.1f} MB, of which {page.ours / 1e6:.1f} MB are the page and the model"
    talk(f"Wrote {folder}/: {size}")
    talk(f"Next: python -m http.server --directory {folder}, then open http://localhost:8000")


def _quantization(quantize: bool, images: int | None, method: str | None) -> QuantizeConfig | None:
    """How to quantize, or None. Options without ``--quantize`` and wrong values are usage errors."""
    if not quantize:
        if images or method:
            raise click.UsageError("--calibration-images and --calibration-method go with --quantize.")
        return None
    try:
        return QuantizeConfig(images=images, method=method or METHODS[0])
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def chosen_folder(subject: Subject, out: Path | None, *, force: bool) -> Path:
    """Where the export of ``subject`` goes, once nothing is in the way there."""
    folder = out or EXPORTED / subject.name
    check_folder(folder, subject.data, force=force)
    return folder


def write_export(
    subject: Subject,
    dataset: Dataset,
    folder: Path,
    *,
    quantization: QuantizeConfig | None,
    target: str,
    web: WebConfig,
    force: bool,
    as_json: bool,
) -> None:
    """Export ``subject``, trained on ``dataset``, and report what came of it."""
    try:
        done = export_subject(
            subject,
            dataset,
            folder,
            quantization=quantization,
            target=target,
            web=web,
            force=force,
            say=lambda message: talk(f"{message[0].upper()}{message[1:]} ..."),
        )
    except BrokenGateError as error:
        if error.report:
            talk(f"\n{error.report.to_text()}\n")
        raise
    members = done.training.get("members", [])
    if as_json:
        emit(
            {
                "folder": str(folder),
                **({"members": members} if members else {}),
                "calibration": done.calibration.to_dict(),
                "verification": done.report.to_dict(),
            }
        )
    else:
        click.echo(done.report.to_text())
    for member in members:
        talk(
            f"Member: {member['name']}, {member['model']}, share {member['share']:.4g}:"
            f" {member['validation_accuracy']:.2%} on the validation split"
        )
    talk(f"Calibration: {done.calibration}")
    talk(f"Wrote {folder}/: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    if done.page is not None:
        serve_hint(folder / WEB_FOLDER, done.page)
    else:
        talk(f"Next: fertools predict IMAGE --model {folder}")
