"""Accuracy through the whole chain: faces set into scenes, found again, cut out and predicted.

    python benchmarks/scenes.py fer2013.csv --detector YUNET.onnx

Every face of the test split appears once, in a scene of 640x480 pixels with 1 to 5 faces, 48 to 200 pixels
large (log-uniform), rotated by up to 12 degrees, with its own lighting (from 0.7 to 1.15 times as
bright, up to 15 grey levels brighter at one side than at the other), on a drawn background or a picture in
the public domain that comes with scikit-image. Around each face its outermost pixels are repeated and fade
into the background, because a crop of FER2013 ends within the head. A face counts as found if the frame that
is cut out for it has its centre in the inner half of the true one and a side between half and twice as long.
FER2013 itself frames faces that loosely, which is why not all of these share half of the union with the true
frame. For each detector:

- the share of faces found, of those that share half of the union, and the false finds per scene;
- how far the frame is from the true one: its centre, in percent of the true side; its side; its turn;
- the accuracy on the faces found, through the chain and of the same faces given directly.

Parameters are chosen with ``--split validation``; ``--fit-haar`` prints the constants of Haar's confidence.
Needs the extras ``faces`` and ``dev`` (scikit-image, scikit-learn).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from fertools import __version__, data, files
from fertools.faces import FaceFinder
from fertools.faces.detectors import Haar
from fertools.faces.framing import Frame
from fertools.runtime import Predictor

WIDTH, HEIGHT = 640, 480
SIZES = (48, 200)
FACES = (1, 5)
DEGREES = 12
BRIGHTNESS = (0.7, 1.15)
SLOPE = 15
#: Pixels (of 48) that are repeated around a face to fade out.
MARGIN = 10
#: In the public domain or CC0 by scikit-image's documentation, without people (and inside its wheel).
PICTURES = ("brick", "chelsea", "coffee", "grass", "gravel", "hubble_deep_field", "moon", "rocket")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A picture and its faces."""

    #: uint8 (480, 640, 3), RGB.
    pixels: Pixels
    #: Where each face is, and its row among the faces given to ``scenes``.
    frames: tuple[Frame, ...]
    rows: tuple[int, ...]


def scenes(faces: Pixels, seed: int = 0) -> Iterator[Scene]:
    """Set uint8 faces (n, 48, 48) into scenes, each once, in an order drawn with the seed."""
    random = np.random.default_rng(seed)
    left = random.permutation(len(faces)).tolist()
    while left:
        count = min(int(random.integers(FACES[0], FACES[1], endpoint=True)), len(left))
        rows, left = left[:count], left[count:]
        pixels = background(random)
        frames = places(random, count)
        for row, frame in zip(rows, frames, strict=True):
            paste(pixels, faces[row], frame, random)
        yield Scene(np.rint(pixels.clip(0, 255)).astype(np.uint8), frames, tuple(rows))


def background(random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return a drawn picture or one of ``PICTURES``: float32 (480, 640, 3), 0..255."""
    if random.random() < 0.5:
        import skimage.data

        whole = np.asarray(getattr(skimage.data, str(random.choice(PICTURES)))())
        whole = np.repeat(whole[:, :, None], 3, axis=2) if whole.ndim == 2 else whole[:, :, :3]
        # A part of random size in the scene's shape.
        most = min(whole.shape[1], whole.shape[0] * WIDTH / HEIGHT)
        width = int(random.uniform(most / 2, most))
        height = int(width * HEIGHT / WIDTH)
        x = int(random.integers(0, whole.shape[1] - width, endpoint=True))
        y = int(random.integers(0, whole.shape[0] - height, endpoint=True))
        part = whole[y : y + height, x : x + width]
        method = cv2.INTER_AREA if width > WIDTH else cv2.INTER_LINEAR
        return cv2.resize(part, (WIDTH, HEIGHT), interpolation=method).astype(np.float32)
    # A room: light that falls off, furniture, the grain of a camera.
    corners = random.uniform(30, 220, (2, 2, 3)).astype(np.float32)
    drawn = cv2.resize(corners, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    for _ in range(int(random.integers(4, 16))):
        color = random.uniform(0, 255, 3).tolist()
        at = (int(random.integers(0, WIDTH)), int(random.integers(0, HEIGHT)))
        if random.random() < 0.5:
            size = random.integers(20, 240, 2)
            cv2.rectangle(drawn, at, (at[0] + int(size[0]), at[1] + int(size[1])), color, -1)
        else:
            cv2.circle(drawn, at, int(random.integers(10, 90)), color, -1)
    drawn = cv2.GaussianBlur(drawn, (0, 0), 1.5)
    return (drawn + random.normal(0, 3, drawn.shape)).astype(np.float32)


def places(random: np.random.Generator, count: int) -> tuple[Frame, ...]:
    """Place frames in the scene, apart by their margins; start over if one has no room."""
    while True:
        frames: list[Frame] = []
        for _ in range(count):
            size = math.exp(random.uniform(*map(math.log, SIZES)))
            side = size * np.exp(1j * math.radians(random.uniform(-DEGREES, DEGREES)))
            for _ in range(50):
                middle = complex(random.uniform(0, WIDTH), random.uniform(0, HEIGHT))
                frame = Frame(middle - side * (1 + 1j) / 2, complex(side))
                low, high = bounds(frame)
                inside = low.real >= 0 and low.imag >= 0 and high.real <= WIDTH and high.imag <= HEIGHT
                if inside and not any(overlap(frame, other, 1 + MARGIN / 24) > 0 for other in frames):
                    frames.append(frame)
                    break
        if len(frames) == count:
            return tuple(frames)


def bounds(frame: Frame, grown: float = 1.0) -> tuple[complex, complex]:
    """Return the corners (left top, right bottom) of the upright rectangle around an enlarged frame."""
    corners = frame.centre + frame.side * grown * np.array([-1 - 1j, 1 - 1j, -1 + 1j, 1 + 1j]) / 2
    return (
        complex(corners.real.min(), corners.imag.min()),
        complex(corners.real.max(), corners.imag.max()),
    )


def overlap(one: Frame, other: Frame, grown: float = 1.0) -> float:
    """Intersection over union of the rectangles around two frames."""
    (low, high), (low2, high2) = bounds(one, grown), bounds(other, grown)
    width = min(high.real, high2.real) - max(low.real, low2.real)
    height = min(high.imag, high2.imag) - max(low.imag, low2.imag)
    if width <= 0 or height <= 0:
        return 0.0
    both = [(b - a).real * (b - a).imag for a, b in ((low, high), (low2, high2))]
    return width * height / (sum(both) - width * height)


def paste(scene: npt.NDArray[np.float32], face: Pixels, frame: Frame, random: np.random.Generator) -> None:
    """Draw a face into the scene at the frame, with its own lighting."""
    lit = face.astype(np.float32) * np.float32(random.uniform(*BRIGHTNESS))
    slope = random.uniform(-SLOPE, SLOPE, 2)
    across = np.linspace(-0.5, 0.5, 48)
    lit = (lit + slope[0] * across + slope[1] * across[:, None]).clip(0, 255).astype(np.float32)
    padded = np.pad(lit, MARGIN, mode="edge")
    inner = np.pad(np.ones((48, 48), np.float32), MARGIN, mode="linear_ramp")
    # From the centre of a pixel of the padded face to that of one in the scene.
    step = frame.side / 48
    start = frame.corner - step * MARGIN * (1 + 1j) + step * (0.5 + 0.5j) - (0.5 + 0.5j)
    matrix = np.array([[step.real, -step.imag, start.real], [step.imag, step.real, start.imag]])
    size = (WIDTH, HEIGHT)
    warped = cv2.warpAffine(padded, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(inner, matrix, size, flags=cv2.INTER_LINEAR)[:, :, None]
    scene += weight * (warped.clip(0, 255)[:, :, None] - scene)


@dataclass(frozen=True)
class Outcome:
    """Results of a detector on the scenes; percentages are of 100."""

    detector: str
    scenes: int
    faces: int
    found: float
    #: Faces whose frames share half of the union.
    close: float
    false_finds: float
    #: Medians over the faces found.
    centre_error: float
    side_error: float
    turn_error: float
    #: Model -> accuracy through the chain and of the same faces given directly.
    accuracy: dict[str, dict[str, float]]


def measure(
    finder: FaceFinder, faces: Pixels, labels: Pixels, predictors: dict[str, Predictor], seed: int, limit: int
) -> Outcome:
    """Find the faces in at most ``limit`` scenes, and predict the crops."""
    rows: list[int] = []
    crops: list[Pixels] = []
    errors: list[tuple[float, float, float]] = []
    seen = false = close = number = 0
    for number, scene in enumerate(scenes(faces, seed), start=1):
        seen += len(scene.rows)
        open_ = dict(zip(scene.rows, scene.frames, strict=True))
        for face in finder.find(scene.pixels):
            best = max(
                (row for row, true in open_.items() if of_face(face.frame, true)),
                key=lambda row: overlap(face.frame, open_[row]),
                default=None,
            )
            if best is None:
                false += 1
                continue
            true = open_.pop(best)
            close += overlap(face.frame, true) >= 0.5
            apart = face.frame.centre - true.centre
            ratio = face.frame.side / true.side
            turn = abs(math.degrees(np.angle(ratio)))
            errors.append((100 * abs(apart) / true.pixels, 100 * abs(abs(ratio) - 1), turn))
            rows.append(best)
            crops.append(face.crop)
        if number == limit:
            break
    truth = labels[rows]
    accuracy = {}
    for name, predictor in predictors.items():
        right = [
            100 * float((predict(predictor, given) == truth).mean())
            for given in (np.stack(crops), faces[rows])
        ]
        accuracy[name] = {"chain": right[0], "direct": right[1]}
    centre, side, turn = np.median(errors, axis=0).tolist()
    return Outcome(
        detector=finder.name,
        scenes=number,
        faces=seen,
        found=100 * len(rows) / seen,
        close=100 * close / seen,
        false_finds=false / number,
        centre_error=centre,
        side_error=side,
        turn_error=turn,
        accuracy=accuracy,
    )


def of_face(found: Frame, true: Frame) -> bool:
    """Return whether a found frame matches the true one."""
    apart = (found.centre - true.centre) / true.side
    return max(abs(apart.real), abs(apart.imag)) <= 0.25 and 0.5 <= found.pixels / true.pixels <= 2


def fit_haar(faces: Pixels, seed: int, limit: int) -> tuple[float, float]:
    """Fit middle and steepness of the logistic function from a box's weight to the share of faces."""
    from sklearn.linear_model import LogisticRegression

    haar = Haar(min_confidence=0.0)
    weights: list[float] = []
    right: list[bool] = []
    for _, scene in zip(range(limit or len(faces)), scenes(faces, seed), strict=False):
        for found in haar(scene.pixels):
            weights.append(haar.MIDDLE + math.log(found.confidence / (1 - found.confidence)) / haar.STEEPNESS)
            right.append(any(of_face(Frame.of_box(found.box), true) for true in scene.frames))
    fitted = LogisticRegression(C=1e6).fit(np.array(weights)[:, None], right)
    steepness, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return -offset / steepness, steepness


def predict(predictor: Predictor, faces: Pixels) -> npt.NDArray[np.int64]:
    """Predict the classes of uint8 faces (n, 48, 48)."""
    batches = [predictor.probabilities(faces[start : start + 64]) for start in range(0, len(faces), 64)]
    return np.concatenate(batches).argmax(axis=1)


def table(outcomes: list[Outcome]) -> str:
    models = list(outcomes[0].accuracy)
    heads = ["detector", "found", "close", "false finds per scene", "centre off", "side off", "turn off"]
    heads += [f"{model}: through the chain (directly)" for model in models]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for one in outcomes:
        cells = [one.detector, f"{one.found:.1f}%", f"{one.close:.1f}%", f"{one.false_finds:.3f}"]
        cells += [f"{one.centre_error:.1f}%", f"{one.side_error:.1f}%", f"{one.turn_error:.1f}°"]
        cells += [f"{one.accuracy[m]['chain']:.1f}% ({one.accuracy[m]['direct']:.1f}%)" for m in models]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="fer2013.csv, or another data set that fertools reads")
    parser.add_argument("--detector", action="append", default=[], help="ONNX file of a YuNet; besides Haar")
    parser.add_argument("--split", choices=data.SPLITS, default="test")
    parser.add_argument("--model", action="append", help="default: sequential and compact as shipped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=0, help="stop after N scenes; default: all faces")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument(
        "--save", type=Path, metavar="FOLDER", help="only write the first scenes as PNG files"
    )
    parser.add_argument("--fit-haar", action="store_true", help="only fit Haar's confidence, on validation")
    options = parser.parse_args()
    faces = data.read(options.source).split("validation" if options.fit_haar else options.split)
    if options.save:
        from PIL import Image

        options.save.mkdir(parents=True, exist_ok=True)
        for number, scene in zip(range(8), scenes(faces.images, options.seed), strict=False):
            Image.fromarray(scene.pixels).save(options.save / f"{number}.png")
        return 0
    if options.fit_haar:
        middle, steepness = fit_haar(faces.images, options.seed, options.scenes)
        print(f"middle {middle:.2f}, steepness {steepness:.2f}")
        return 0
    predictors = {name: Predictor(name) for name in options.model or ("sequential", "compact")}
    outcomes = []
    for detector in ("haar", *options.detector):
        finder = FaceFinder(detector)
        outcomes.append(measure(finder, faces.images, faces.labels, predictors, options.seed, options.scenes))
        print(table(outcomes), file=sys.stderr, end="\n\n", flush=True)
    print(table(outcomes))
    if options.json:
        document: dict[str, Any] = {
            "split": options.split,
            "seed": options.seed,
            "versions": {"fertools": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
            "models": {n: {"precision": p.info.precision} for n, p in predictors.items()},
            "detector_files": {
                path.name: files.file_facts(path)["sha256"] for path in map(Path, options.detector)
            },
            "detectors": [asdict(outcome) for outcome in outcomes],
        }
        files.write_json(options.json, document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
