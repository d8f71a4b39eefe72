"""``fertools quickstart``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fertools import data, files
from fertools.cli.common import emit, json_option, talk
from fertools.contract import LABELS
from fertools.errors import RunError
from fertools.evaluation import is_run
from fertools.training import Run, TrainConfig

if TYPE_CHECKING:
    from fertools.runtime import Prediction

#: Network -> the default recipe, cut down to a few minutes on two cores. Small batches make more steps.
CONFIGS = {
    "compact": TrainConfig(model="compact", epochs=8, batch_size=32, augmentation="light"),
    "sequential": TrainConfig(epochs=5, batch_size=16),
}
#: Test images that are made worse in the export.
STRESS_IMAGES = 256
STEPS = 6


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default="quickstart",
    show_default=True,
    help="Folder for everything that is written.",
)
@click.option(
    "--model",
    type=click.Choice(tuple(CONFIGS)),
    default="compact",
    show_default=True,
    help="Network to train; the reference network, sequential, takes several times as long.",
)
@json_option
def command(out: Path, model: str, as_json: bool) -> None:
    """Run the whole pipeline on synthetic faces.

    Draws faces, trains a network on them, exports it to ONNX and int8, verifies both against Keras, and
    predicts. Takes a few minutes on two cores; nothing is downloaded. If interrupted, run it again: it
    continues where it stopped.
    """
    step = _Steps()
    step("draw synthetic faces")
    dataset = data.load(data.synthetic.NAME)
    with files.replacing(out / "faces.png") as temporary:
        data.preview(dataset, "train").save(temporary)
    talk(f"      {len(dataset):,} faces; a sample is in {out / 'faces.png'}")

    step(f"train {model}, {CONFIGS[model].epochs} epochs")
    run = _train(dataset, out / "run", CONFIGS[model])

    step("export to ONNX, quantize to int8, verify on the test split")
    from fertools.export import QuantizeConfig, export

    done = export(
        run,
        dataset,
        out / "exported",
        quantization=QuantizeConfig(),
        stress_images=STRESS_IMAGES,
        say=lambda message: talk(f"      {message}"),
    )

    step("evaluate the int8 file")
    from fertools.evaluation import confusion_figure

    int8 = done.report.row("int8").evaluation
    confusion_figure(int8, out / "confusion.png", "int8, synthetic faces, test split")
    talk(f"      macro F1 {int8.macro_f1:.2%}; the confusion matrix is in {out / 'confusion.png'}")

    step("predict one new face of each expression, from PNG files")
    predictions = _predict(dataset, out)
    width = max(map(len, LABELS))
    for label, prediction in predictions.items():
        talk(f"      {label:<{width}} -> {prediction.label:<{width}} {prediction.confidence:.1%}")

    step("result: Keras, ONNX and int8 on the test split")
    if as_json:
        emit(
            {
                "folder": str(out),
                "verification": done.report.to_dict(),
                "predictions": {label: prediction.to_dict() for label, prediction in predictions.items()},
            }
        )
    else:
        click.echo(done.report.to_text())
    faces, exported = (shlex.quote(str(out / name)) for name in ("faces", "exported"))
    talk(f"\nNext: fertools predict {faces} --model {exported} --top 3")
    talk("      fertools train --data fer2013.csv    (your own faces: see docs/data.md)")


class _Steps:
    """Numbers the steps on stderr."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, title: str) -> None:
        self.number += 1
        talk(f"[{self.number}/{STEPS}] {title}")


def _train(dataset: data.Dataset, path: Path, config: TrainConfig) -> Run:
    """Train into ``path``, or resume there; a finished run is used as it is."""
    if Run(path).finished:
        talk(f"      {path} is already finished")
        return _of(Run.open(path), config)
    from fertools.backend import select_device

    device = select_device(config.device)  # before anything else imports Keras, so that it starts quietly
    from fertools.cli.common import train_with_progress
    from fertools.training.trainer import new_run

    if is_run(path):
        run = _of(Run.open(path), config)
    else:
        run = new_run(path, config, dataset, data.synthetic.NAME, device)
    talk(f"      on {device.kind}, {device.name} ({device.backend}), {run.facts['precision']}")
    return train_with_progress(run, dataset)


def _of(run: Run, config: TrainConfig) -> Run:
    """Return ``run`` if it is of the requested network.

    Raises:
        RunError: it is of another network.
    """
    if run.config.model != config.model:
        raise RunError(f"{run.path}: this is a run of {run.config.model}; choose another folder with --out")
    return run


def _predict(dataset: data.Dataset, out: Path) -> dict[str, Prediction]:
    """Save the first test face of each class as a PNG and predict it from the file."""
    from PIL import Image

    from fertools.runtime import Predictor

    test = dataset.split("test")
    folder = out / "faces"
    predictor = Predictor(out / "exported")
    predictions = {}
    for code, label in enumerate(LABELS):
        file = folder / f"{label}.png"
        with files.replacing(file) as temporary:
            Image.fromarray(test.images[(test.labels == code).argmax()]).save(temporary)
        predictions[label] = predictor.predict(file)
    return predictions
