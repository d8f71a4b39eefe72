"""Photos: ``fertools predict --find-faces``, and the options of all commands that find faces."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fertools import files
from fertools.cli.common import emit, talk
from fertools.errors import ConfigError, ImageError
from fertools.reading import LARGEST_IMAGE

if TYPE_CHECKING:
    from fertools.faces import Face, FaceFinder
    from fertools.runtime import ModelInfo, Prediction, Predictor

detector_option = click.option(
    "--detector",
    metavar="FILE",
    help="ONNX file of a YuNet, or haar for the cascade inside OpenCV.  [default: $FERTOOLS_DETECTOR, else "
    "haar]",
)

min_confidence_option = click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    help="Leave out faces that the detector is less sure of, 0..1.  [default: depends on the detector]",
)


def make_finder(detector: str | None, min_confidence: float | None, **more: Any) -> FaceFinder:
    """Return the face finder that the options ask for."""
    from fertools.faces import FaceFinder

    return FaceFinder(detector, min_confidence=min_confidence, **more)


#: The argument that means a picture on stdin.
STDIN = "-"


def picture(path: str) -> str | bytes:
    """Return what ``to_face`` takes for the argument ``path``: the bytes on stdin for ``-``, else the path.

    Raises:
        ImageError: stdin holds no picture, or too large a one.
    """
    if path != STDIN:
        return path
    content = sys.stdin.buffer.read(LARGEST_IMAGE + 1)
    if not 0 < len(content) <= LARGEST_IMAGE:
        raise ImageError("stdin: larger than 512 MiB" if content else "stdin: there is no picture on it")
    return content


def photos(
    paths: Sequence[tuple[str, ImageError | None]],
    finder: FaceFinder,
    predictor: Predictor,
    *,
    draw: Path | None,
    top: int,
    as_json: bool,
) -> None:
    """Find and predict the faces of photos, file by file, and print one line per face or one JSON document.

    Arguments:
        paths: the files, or why there is none.
        finder: finds the faces.
        predictor: predicts them.
        draw: folder for the pictures with boxes.
        top: labels per line.
        as_json: print JSON instead of lines.
    """
    from fertools.faces.describing import describe

    failed = False
    documents: list[dict[str, Any]] = []
    places = _places([path for path, _ in paths], draw)
    for path, error in paths:
        name = click.format_filename(path)
        try:
            if error is not None:
                raise error
            image = picture(path)
            faces = finder.find(image)
            predictions = predictor.predict_batch([face.crop for face in faces]) if faces else []
        except ImageError as caught:
            failed = True
            talk(f"Error: {caught}")
            documents.append({"path": path, "error": str(caught)})
            continue
        if as_json:
            listed = [describe(*pair, predictor.info) for pair in zip(faces, predictions, strict=True)]
            documents.append({"path": path, "faces": listed})
        else:
            if not faces:
                talk(f"{name}: no face found")
            for face, prediction in zip(faces, predictions, strict=True):
                click.echo(_line(name, face, prediction, top, predictor.info))
        if path in places:
            _write(image, places[path], faces, predictions)
    if draw is not None and places:
        talk(f"Drew the boxes into {draw}.")
    if as_json:
        emit(documents)
    if failed:
        raise SystemExit(1)


def mark(face: Face, prediction: Prediction) -> tuple[Sequence[float], str, str]:
    """What ``fertools.faces.draw`` wants of a face."""
    return face.box, prediction.label, f"{prediction.label} {prediction.confidence:.0%}"


def _line(name: str, face: Face, prediction: Prediction, top: int, info: ModelInfo) -> str:
    """Return a line: tab-separated for programs, aligned for terminals."""
    from fertools.faces.describing import accuracy_at_size

    box = ",".join(map(str, face.box))
    note = ["small"] if face.small else []
    if (measured := accuracy_at_size(face, info)) is not None:
        note = [f"small (accuracy {measured[1]:.0%} on faces of {measured[0]} pixels)"]
    if sys.stdout.isatty():
        scores = [f"{label:8} {score:6.1%}" for label, score in prediction.top(top)]
        return "  ".join([name, f"{box:>19}", *scores, *note])
    return "\t".join([name, box, *(f"{label}\t{score:.4f}" for label, score in prediction.top(top)), *note])


def _places(paths: Sequence[str], folder: Path | None) -> dict[str, Path]:
    """Return the file that each photo is drawn to: its name in the folder.

    Raises:
        ConfigError: two photos have the same name, or one is in the folder itself.
    """
    if folder is None:
        return {}
    taken: dict[Path, str] = {}
    for path in paths:
        suffix = Path(path).suffix.lower()
        own = "stdin" if path == STDIN else Path(path).name
        name = own if suffix in (".jpg", ".jpeg", ".png") else f"{own}.png"
        place = folder / name
        if place in taken and taken[place] != path:
            raise ConfigError(
                f"--draw {folder}: {taken[place]} and {path} would be one file; draw them one after another"
            )
        if place.exists() and Path(path).exists() and place.samefile(path):
            raise ConfigError(
                f"--draw {folder}: {path} is in that folder and would be replaced; name another folder"
            )
        taken[place] = path
    return {path: place for place, path in taken.items()}


def _write(image: str | bytes, place: Path, faces: Sequence[Face], predictions: Sequence[Prediction]) -> None:
    from fertools.faces import draw

    drawn = draw(image, [*map(mark, faces, predictions)])
    kind = "PNG" if place.suffix.lower() == ".png" else "JPEG"
    with files.replacing(place) as temporary:
        drawn.save(temporary, format=kind, **({"quality": 90} if kind == "JPEG" else {}))
