"""``fertools export``, ``fertools ensemble`` and ``fertools verify``."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fertools import data
from fertools.cli.common import EXPORTED, RUNS, default_source, emit, json_option, talk, usage_errors
from fertools.contract import WEB_FOLDER
from fertools.data import Dataset
from fertools.errors import RunError
from fertools.evaluation import is_run
from fertools.export import QuantizeConfig, export_subject
from fertools.export.exporter import TARGETS, WEB, check_out
from fertools.export.quantization import DEFAULT_IMAGES, HISTOGRAM_IMAGES, METHODS
from fertools.export.subject import Ensemble, FinishedRun, Subject, is_export, open_export, open_members
from fertools.faces.finder import DETECTOR_VARIABLE
from fertools.runtime.location import locate
from fertools.training import Run
from fertools.training.run import best_seed, open_runs, siblings
from fertools.verification import BrokenGateError
from fertools.web import Page, WebConfig
from fertools.web.onnxruntime_web import VARIABLE, VERSION


def export_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an export, apart from what is exported.

    The command receives the quantization options as one: ``quantization``, a QuantizeConfig or None.
    """

    @functools.wraps(function)
    def command(
        *args: Any,
        quantize: bool,
        calibration_images: int | None,
        calibration_method: str | None,
        amx: bool,
        target: str,
        web: WebConfig,
        **options: Any,
    ) -> None:
        if target != WEB and web != WebConfig():
            raise click.UsageError(f"--detector and --onnxruntime-web go with --target {WEB}.")
        quantization = _quantization(quantize or target == WEB, calibration_images, calibration_method, amx)
        function(*args, quantization=quantization, target=target, web=web, **options)

    decorated: Callable[..., None] = command
    for option in (
        json_option,
        click.option("--force", is_flag=True, help="Replace an export that was made from other data."),
        click.option(
            "--calibration-method",
            type=click.Choice(METHODS),
            help="How calibration finds the range of an activation: minmax covers all its values,"
            f" percentile cuts off outliers.  [default: {METHODS[0]}]",
        ),
        click.option(
            "--calibration-images",
            type=click.IntRange(min=1),
            help="Training images that calibrate the int8 file."
            f"  [default: {DEFAULT_IMAGES:,} for minmax, else {HISTOGRAM_IMAGES}; all if there are fewer]",
        ),
        click.option(
            "--amx",
            is_flag=True,
            help="Make the int8 file for x86 servers with AMX: the same answers, faster there, slower"
            " elsewhere. Not for processors without VNNI.",
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
        click.option(
            "--data",
            "source",
            metavar="SRC",
            help="The training data.  [default: the run's, else $FERTOOLS_DATA, else synthetic]",
        ),
        click.option(
            "--out", type=click.Path(path_type=Path), help=f"Folder to write.  [default: {EXPORTED}/MODEL]"
        ),
    ):
        decorated = option(decorated)
    return decorated


def web_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a page for browsers, which the command receives as one: ``web``, a WebConfig."""

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
            help="A YuNet face detector (.onnx), with which the page finds faces."
            f"  [default: ${DETECTOR_VARIABLE}, else none]",
        ),
    ):
        command = option(command)
    return command


def serve_hint(folder: Path, page: Page) -> None:
    """Print the size of a page, and how to open it."""
    for note in page.notes:
        talk(note)
    size = f"{page.total / 1e6:.1f} MB, of which {page.ours / 1e6:.1f} MB are the page and the model"
    talk(f"Wrote {folder}/: {size}")
    where = shlex.quote(str(folder))
    talk(f"Next: python -m http.server --directory {where}, then open http://localhost:8000")


@usage_errors()
def _quantization(quantize: bool, images: int | None, method: str | None, amx: bool) -> QuantizeConfig | None:
    """Return how to quantize, or None. Options without ``--quantize`` and wrong values are usage errors."""
    if not quantize:
        if images or method or amx:
            raise click.UsageError("--calibration-images, --calibration-method and --amx go with --quantize.")
        return None
    return QuantizeConfig(images=images, method=method or METHODS[0], amx=amx)


def chosen_folder(subject: Subject, out: Path | None, *, force: bool) -> Path:
    """Return the folder for the export of ``subject``, after checking that nothing is in the way there."""
    folder = out or EXPORTED / subject.name
    check_out(subject, folder, force=force)
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
    """Export ``subject``, trained on ``dataset``, and report the result."""
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
                "temperature_scaling": done.temperature_scaling.to_dict(),
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
    talk(f"Temperature scaling: {done.temperature_scaling}")
    talk(f"Wrote {folder}/: {', '.join(sorted(file.name for file in folder.iterdir()))}")
    if done.page is not None:
        serve_hint(folder / WEB_FOLDER, done.page)
    else:
        talk(f"Next: fertools predict IMAGE --model {shlex.quote(str(folder))}")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@export_options
def command(
    run: Path | None,
    source: str | None,
    out: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Export a run to ONNX, verified on the test split.

    RUN is a finished run folder, or a folder of seeds, of which the best on the validation split is taken.
    Without RUN, it is the run under runs/ that finished last, or the best of its seeds. If a gate of the
    verification is broken, nothing is written, an earlier export stays, and the exit code is 1.

    RUN may be an export or a shipped model (sequential, compact) as well, to make files in another format or
    with another quantization of it, by default in exported/NAME-TARGET.
    """
    path = None if run is None else locate(run)
    if path is not None and is_export(path):
        subject: Subject = open_export(path)
        out = out or EXPORTED / f"{path.resolve().name}-{options['target']}"
        known = None
    else:
        opened = _chosen(path)
        subject, known = FinishedRun(opened), opened.facts["data"]["source"]
    folder = chosen_folder(subject, out, force=force)
    source = source or known or default_source()
    talk(f"{'Run' if known else 'Export'}: {subject.folders[0]}, data: {source}")
    write_export(subject, data.load(source), folder, force=force, **options)


def _chosen(path: Path | None) -> Run:
    """Return the run to export: the one that was named, else the best seed.

    Raises:
        RunError: there is none.
    """
    if path is not None and path.is_file():
        raise RunError(f"{path}: a file; name the folder that it is in, of a run or an export")
    if path is not None and is_run(path):
        return Run.open(path)
    if path is None:
        return best_seed(Run.latest_finished(RUNS))
    finished = [run for run in open_runs(path) if run.finished]
    if not finished:
        raise RunError(f"{path}: no run in it is finished; continue with 'fertools train --resume {path}'")
    best = best_seed(finished[0])
    if len(siblings(best)) < len(finished):
        raise RunError(f"{path}: its runs differ in more than the seed; name the one to export")
    return best


def _weights(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    try:
        return [float(weight) for weight in value.split(",")] if value else None
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: must be numbers, W,W,...") from error


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    metavar="W,W,...",
    callback=_weights,
    help="Weight of each network, in the order given.  [default: equal weights]",
)
@export_options
def ensemble(
    runs: tuple[Path, ...],
    weights: list[float] | None,
    source: str | None,
    out: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Export several networks as one file that averages inside.

    RUN is a finished run folder, a folder of seeds (all of them) or an export; all must be trained on the
    same data. The file answers with the weighted mean of their probabilities. It is verified as by fertools
    export: if a gate is broken, nothing is written and the exit code is 1.
    """
    members = open_members(runs)
    with usage_errors():
        subject = Ensemble(members, weights)
    folder = chosen_folder(subject, out, force=force)
    known = (Run(member.path).facts["data"]["source"] for member in members if is_run(member.path))
    source = source or next(known, None) or default_source()
    talk(f"Ensemble of {len(members)} networks, data: {source}")
    write_export(subject, data.load(source), folder, force=force, **options)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "source",
    metavar="SRC",
    help="The data that the model was trained on.  [default: $FERTOOLS_DATA, else synthetic; with --kit and"
    " --device drawn faces]",
)
@click.option("--other-data", is_flag=True, help="Accept data that the model was not trained on.")
@click.option(
    "--kit",
    type=click.Path(path_type=Path),
    metavar="FILE.zip",
    help="Write a kit that checks the files on a device, instead of verifying here.",
)
@click.option(
    "--images", type=click.IntRange(1, 100_000), help="Images in the kit.  [default: 300, or all if fewer]"
)
@click.option(
    "--device",
    type=click.Path(path_type=Path),
    metavar="RESULT.json",
    help="Judge the result that check.py wrote on a device, and add it to the report and the model card.",
)
@json_option
def verify(
    folder: Path,
    source: str | None,
    other_data: bool,
    kit: Path | None,
    images: int | None,
    device: Path | None,
    as_json: bool,
) -> None:
    """Compare Keras, ONNX and int8 on the test split.

    FOLDER is an export, or a model that ships: sequential or compact. Each gate is proved, broken, or, if the
    split is too small to decide, not proved; it then says how many images would be enough. The exit code is 1
    if a gate is broken.

    With --kit and --device the comparison is with another machine: the kit holds images, the answers of each
    file here, and a script that needs only numpy and onnxruntime. The device must predict the same class on
    99.5% of the images. The kit's images are drawn faces unless --data names your own.
    """
    if kit is not None and device is not None:
        raise click.UsageError("--kit and --device are two steps: write the kit, run it, read its result.")
    if images is not None and kit is None:
        raise click.UsageError("--images goes with --kit.")
    if other_data and (kit is not None or device is not None):
        raise click.UsageError("--other-data is for verifying here; it does not go with --kit or --device.")
    folder = locate(folder)
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
    """Write a kit. $FERTOOLS_DATA is ignored: pictures of people leave this machine only if named."""
    from fertools.verification.kit import IMAGES, write_kit

    if path.suffix.lower() != ".zip":
        raise click.UsageError(f"--kit {path}: a kit is a .zip file; name one.")
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
    from fertools.export.devices import add_device
    from fertools.verification.kit import read_result

    report = read_result(folder, result, data.load(source) if source else None)
    add_device(folder, report)
    if as_json:
        emit(report.to_dict())
    else:
        click.echo(report.to_text())
    talk(f"Added to {folder / 'report.json'} and the model card.")
    report.check(f"{result}: ")
