"""``fertools predict``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from fertools.cli.common import (
    emit,
    json_option,
    model_option,
    precision_option,
    provider_option,
    talk,
    views_option,
)
from fertools.cli.photos import STDIN, detector_option, make_finder, min_confidence_option, photos, picture
from fertools.contract import LABELS
from fertools.errors import ImageError
from fertools.reading import PICTURES, open_regular
from fertools.runtime import Prediction, Predictor, to_face

#: Images decoded and predicted at a time.
BATCH = 64

#: A file is plainly not a crop from these on: pixels of the shorter side; ratio of the longer to the shorter.
LARGE_CROP = 200
FAR_FROM_SQUARE = 1.25

Outcome = Prediction | ImageError


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@model_option
@precision_option
@provider_option
@click.option("--threads", type=click.IntRange(min=1), help="Default: the processors this process may use.")
@views_option
@click.option(
    "--find-faces",
    is_flag=True,
    help="IMAGE is a photo: find its faces, and predict each. Needs the extra faces.",
)
@detector_option
@min_confidence_option
@click.option(
    "--draw",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="With --find-faces: write each photo there with boxes, labels and probabilities.",
)
@click.option(
    "--top", type=click.IntRange(1, len(LABELS)), metavar="K", help="Show the K best labels; default: 1."
)
@json_option
def command(
    images: tuple[str, ...],
    model: str | None,
    precision: str,
    provider: str,
    threads: int | None,
    views: str,
    find_faces: bool,
    detector: str | None,
    min_confidence: float | None,
    draw: Path | None,
    top: int | None,
    as_json: bool,
) -> None:
    """Predict the expression on image files.

    IMAGE is a file that shows one face, cropped, - for such a file on stdin, or a folder, which is searched
    for image files.
    Prints one line per file: the path, the label and its probability. Files that cannot be read are
    reported on stderr; the others are still predicted, and the exit code is 1.

    With --find-faces IMAGE is a photo of any number of people, and there is one line per face, the
    largest first: the path, the box (left, top, width, height in pixels), the label and its
    probability. A photo without a face has no line.
    """
    if as_json and top is not None:
        raise click.UsageError("--top is for text: --json has the probabilities of all labels.")
    if not find_faces and (detector or draw or min_confidence is not None):
        raise click.UsageError("--detector, --min-confidence and --draw go with --find-faces.")
    finder = make_finder(detector, min_confidence) if find_faces else None
    predictor = Predictor(model, precision=precision, providers=provider, threads=threads, views=views)
    paths = [path for image in images for path in _files(image)]
    if finder is not None:
        photos(paths, finder, predictor, draw=draw, top=top or 1, as_json=as_json)
        return
    failed = False
    documents: list[dict[str, Any]] = []
    _hint([path for path, error in paths if error is None and path != STDIN])
    width = max((len(_shown(path)) for path, _ in paths), default=0) if sys.stdout.isatty() else None
    for path, outcome in _predict(predictor, iter(paths)):
        if isinstance(outcome, ImageError):
            failed = True
            talk(f"Error: {outcome}")
            documents.append({"path": path, "error": str(outcome)})
        elif as_json:
            documents.append({"path": path, **outcome.to_dict()})
        else:
            click.echo(_line(_shown(path), outcome.top(top or 1), width))
    if as_json:
        emit(documents)
    if failed:
        raise SystemExit(1)


def _files(image: str) -> list[tuple[str, ImageError | None]]:
    """Return the image files that an argument names, sorted; what is hidden in a folder is left out."""
    folder = Path(image)
    if not folder.is_dir():
        return [(image, None)]
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        return [(image, ImageError(f"{image}: there are no image files in this folder"))]
    return [(str(path), None) for path in found]


def _hint(paths: Iterable[str]) -> None:
    """Say so, once, if a file is plainly not a cropped face."""
    from PIL import Image

    from fertools.runtime.decoding import quietly

    for path in paths:
        try:
            with quietly(), open_regular(Path(path)) as file, Image.open(file) as image:
                sides = sorted(image.size)
        except Exception:  # Pillow's readers of damaged files raise nearly anything
            continue  # decoding it later says what is wrong
        if sides[0] >= LARGE_CROP and sides[1] > FAR_FROM_SQUARE * sides[0]:
            talk(
                f"{_shown(path)} does not look like a cropped face, which the network needs: "
                "--find-faces finds the faces of a photo first."
            )
            return


def _predict(
    predictor: Predictor, paths: Iterator[tuple[str, ImageError | None]]
) -> Iterator[tuple[str, Outcome]]:
    """Predict file by file in the given order, with one batch in memory at a time."""
    while chunk := [*islice(paths, BATCH)]:
        faces = []
        errors: list[ImageError | None] = []
        for path, error in chunk:
            try:
                if error is None:
                    faces.append(to_face(picture(path)))
            except ImageError as caught:
                error = caught
            errors.append(error)
        predictions = iter(predictor.predict_batch(faces) if faces else ())
        for (path, _), error in zip(chunk, errors, strict=True):
            yield path, error or next(predictions)


def _shown(path: str) -> str:
    """Return the path in printable form: file names need not be valid Unicode."""
    return click.format_filename(path)


def _line(path: str, scores: tuple[tuple[str, float], ...], width: int | None) -> str:
    """Tab-separated for programs, aligned to ``width`` for terminals."""
    if width is None:
        return "\t".join((path, *(f"{label}\t{score:.4f}" for label, score in scores)))
    longest = max(map(len, LABELS))
    return f"{path:{width}}  " + "  ".join(f"{label:{longest}} {score:6.1%}" for label, score in scores)
