"""The accuracy of a network on faces as cameras, codecs, detectors and the light make them.

After Hendrycks and Dietterich 2019 (arXiv:1903.12261): a fixed list of changes, each at three severities,
made with a fixed seed; the accuracy at each, and the mean over the changes of their means over the
severities. The changes are made by Pillow and SciPy, not by the code that trains for them
(``fertools.training.camera``).

The accuracy on a face of N pixels is in ``Stress.of("small face")``, whose severities are pixels, and in
``stress.by_face_pixels`` of an export's report.json.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import IMAGE_SIZE
from fertools.data import Dataset
from fertools.errors import MissingExtraError
from fertools.evaluation.measurement import Network
from fertools.runtime.preprocessing import to_face

#: Version of the list below: figures of different versions cannot be compared.
VERSION = 1
SEED = 0

#: uint8 (n, 48, 48).
Faces = NDArray[np.uint8]
Drawn = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """One change and its severities, from mild to severe."""

    name: str
    #: Unit of a severity, for people.
    unit: str
    severities: tuple[float, ...]
    #: Applies it: takes faces, severity, random numbers of each face, float64 (n, 3) in 0..1, and a
    #: generator.
    make: Callable[[Faces, float, Drawn, np.random.Generator], Faces] = field(repr=False)

    def apply(self, faces: Faces, severity: float) -> Faces:
        """Apply the change. The same face, severity and position in the array give the same pixels.

        Of sensor noise, only in an array of the same length: its pixels are drawn after all faces' numbers.
        """
        place = self.severities.index(severity)
        generator = np.random.default_rng([SEED, zlib.crc32(self.name.encode()), place])
        drawn = generator.random((len(faces), 3))
        return self.make(faces, severity, drawn, generator)


def _ndimage() -> Any:
    """scipy.ndimage. Raises MissingExtraError."""
    try:
        from scipy import ndimage
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "train") from error
    return ndimage


def _each(faces: Faces, change: Callable[[int, Faces], Any]) -> Faces:
    return np.stack([np.asarray(change(index, face), np.uint8) for index, face in enumerate(faces)])


def _rounded(values: NDArray[Any]) -> Faces:
    rounded: Faces = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded


def _small(faces: Faces, size: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Reduce to ``size`` pixels across by an antialiased triangle filter, and enlarge as ``to_face`` does."""
    from PIL import Image

    shape, triangle = (int(size), int(size)), Image.Resampling.BILINEAR
    return _each(faces, lambda _, face: to_face(np.asarray(Image.fromarray(face).resize(shape, triangle))))


def _cropped(faces: Faces, scale: float, x: NDArray[np.float64], y: NDArray[np.float64]) -> Faces:
    """Cut out a box ``scale`` times as large, shifted by (x, y) pixels, with replicated edges."""
    from PIL import Image

    border = IMAGE_SIZE // 2
    padded = np.pad(faces, ((0, 0), (border, border), (border, border)), mode="edge")
    size, start = scale * IMAGE_SIZE, border + (1 - scale) * IMAGE_SIZE / 2

    def crop(index: int, face: Faces) -> Any:
        left, top = start + x[index], start + y[index]
        box = (left, top, left + size, top + size)
        return Image.fromarray(face).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box)

    return _each(padded, crop)


def _scaled(faces: Faces, scale: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    nowhere = np.zeros(len(faces))
    return _cropped(faces, scale, nowhere, nowhere)


def _shifted(faces: Faces, percent: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Shift in a random direction."""
    distance, angle = percent / 100 * IMAGE_SIZE, 2 * math.pi * drawn[:, 0]
    return _cropped(faces, 1.0, distance * np.cos(angle), distance * np.sin(angle))


def _turned(faces: Faces, degrees: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Either way."""
    from PIL import Image

    border = IMAGE_SIZE // 2
    padded = np.pad(faces, ((0, 0), (border, border), (border, border)), mode="edge")
    inside = (border, border, border + IMAGE_SIZE, border + IMAGE_SIZE)

    def turn(index: int, face: Faces) -> Any:
        angle = degrees if drawn[index, 0] < 0.5 else -degrees
        return Image.fromarray(face).rotate(angle, Image.Resampling.BILINEAR).crop(inside)

    return _each(padded, turn)


def _defocused(faces: Faces, sigma: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    return _rounded(_ndimage().gaussian_filter(faces.astype(np.float64), (0, sigma, sigma), mode="nearest"))


def _moving(faces: Faces, length: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Blur along a line of ``length`` pixels in a random direction."""
    convolve = _ndimage().convolve
    reach = math.ceil(length / 2)
    along = np.linspace(-length / 2, length / 2, 8 * reach + 1)

    def blur(index: int, face: Faces) -> Faces:
        angle = math.pi * drawn[index, 0]
        kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
        places = np.rint(along[:, None] * (math.sin(angle), math.cos(angle))).astype(int) + reach
        np.add.at(kernel, tuple(places.T), 1 / len(along))
        return _rounded(convolve(face.astype(np.float64), kernel, mode="nearest"))

    return _each(faces, blur)


def _noisy(faces: Faces, sigma: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    return _rounded(faces + sigma * generator.standard_normal(faces.shape))


def _compressed(faces: Faces, quality: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    from PIL import Image

    def compress(_: int, face: Faces) -> Any:
        file = io.BytesIO()
        Image.fromarray(face).save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _each(faces, compress)


def _flattened(faces: Faces, factor: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    means = faces.mean(axis=(1, 2), keepdims=True)
    return _rounded((faces - means) * factor + means)


def _brightened(faces: Faces, levels: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Brighten or darken."""
    return _rounded(faces + np.where(drawn[:, :1, None] < 0.5, levels, -levels))


def _graded(faces: Faces, gamma: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Either way."""
    return _rounded(255 * (faces / 255) ** np.where(drawn[:, :1, None] < 0.5, gamma, 1 / gamma))


def _lit(faces: Faces, percent: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Add light on a random side, and take as much away on the other."""
    across = np.linspace(-1, 1, IMAGE_SIZE)
    angle = 2 * math.pi * drawn[:, 0, None, None]
    along = np.cos(angle) * across + np.sin(angle) * across[:, None]
    return _rounded(faces * np.maximum(1 + percent / 100 * along, 0))


def _occluded(faces: Faces, percent: float, drawn: Drawn, generator: np.random.Generator) -> Faces:
    """Cover a share of the face by one grey square at a random place."""
    side = round(math.sqrt(percent / 100) * IMAGE_SIZE)
    tops, lefts = (np.rint(drawn[:, :2] * (IMAGE_SIZE - side)).astype(int)).T
    changed = faces.copy()
    for face, top, left, grey in zip(changed, tops, lefts, drawn[:, 2], strict=True):
        face[top : top + side, left : left + side] = round(255 * grey)
    return changed


CHANGES = (
    Change("small face", "pixels across", (36, 24, 16), _small),
    Change("large box", "times the face", (1.1, 1.2, 1.3), _scaled),
    Change("tight box", "times the face", (0.9, 0.8, 0.7), _scaled),
    Change("shifted box", "% of its side", (5, 10, 15), _shifted),
    Change("turned box", "degrees", (10, 20, 30), _turned),
    Change("defocus", "pixels, sigma", (0.5, 1, 1.5), _defocused),
    Change("motion blur", "pixels", (3, 5, 7), _moving),
    Change("sensor noise", "grey levels, sigma", (8, 16, 24), _noisy),
    Change("JPEG", "quality", (30, 20, 10), _compressed),
    Change("contrast", "times", (0.6, 0.4, 0.2), _flattened),
    Change("brightness", "grey levels", (30, 60, 90), _brightened),
    Change("gamma", "or its inverse", (1.5, 2, 3), _graded),
    Change("side light", "% of the light", (40, 60, 80), _lit),
    Change("occlusion", "% of the area", (10, 20, 30), _occluded),
)


@dataclass(frozen=True)
class Stressed:
    """Accuracies, as shares, at the severities of one change."""

    name: str
    unit: str
    severities: tuple[float, ...]
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the severities."""
        return float(np.mean(self.accuracies))


@dataclass(frozen=True)
class Stress:
    """One network on ``images`` images of a split: clean, and under every change."""

    data: str
    fingerprint: str
    split: str
    images: int
    clean: float
    changes: tuple[Stressed, ...]
    #: Per image, the share of the changes under which it is classified correctly, float64 (images,). It is
    #: used to compare two networks.
    hits: NDArray[np.float64] = field(repr=False, compare=False)

    @property
    def mean(self) -> float:
        """Mean over the changes of their means over the severities, as a share."""
        return float(np.mean([change.mean for change in self.changes]))

    @property
    def points_lost(self) -> float:
        """How much lower the mean is than the clean accuracy, in points."""
        return 100 * (self.clean - self.mean)

    def of(self, name: str) -> Stressed:
        """Return the accuracies under one change."""
        return next(change for change in self.changes if change.name == name)

    @property
    def by_face_pixels(self) -> dict[str, float]:
        """Accuracy by how many pixels a face is across before it is scaled to 48, as a share.

        Empty if small faces were not among the changes.
        """
        small = next((change for change in self.changes if change.name == "small face"), None)
        if small is None:
            return {}
        sizes = (IMAGE_SIZE, *small.severities)
        return {
            f"{size:g}": value for size, value in zip(sizes, (self.clean, *small.accuracies), strict=True)
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "version": VERSION,
            "seed": SEED,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "images": self.images,
            "clean": self.clean,
            "mean": self.mean,
            "points_lost": self.points_lost,
            "by_face_pixels": self.by_face_pixels,
            "changes": [
                {
                    "name": each.name,
                    "unit": each.unit,
                    "severities": list(each.severities),
                    "accuracies": list(each.accuracies),
                    "mean": each.mean,
                }
                for each in self.changes
            ],
        }


def stress(
    networks: Mapping[str, Network],
    dataset: Dataset,
    split: str = "validation",
    *,
    images: int | None = None,
    changes: Sequence[Change] = CHANGES,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda steps, count: steps,
) -> dict[str, Stress]:
    """Measure networks on the same changed images of a split.

    Arguments:
        networks: by name; each answers uint8 (n, 48, 48) with float32 (n, 7).
        dataset: holds the split.
        split: "train", "validation" or "test".
        images: how many of them, drawn with a fixed seed; None for all.
        changes: the changes to apply.
        progress: takes the steps and their number, and yields them.

    Raises:
        DataError: the split is empty.
        MissingExtraError: SciPy is not installed.
    """
    _ndimage()  # before the work of the changes that do not need it
    whole = dataset.split(split)
    chosen = np.arange(len(whole))
    if images is not None and images < len(whole):
        chosen = np.sort(np.random.default_rng(SEED).permutation(len(whole))[:images])
    faces, labels = whole.images[chosen], whole.labels[chosen]

    def hits(faces: Faces) -> dict[str, NDArray[np.bool_]]:
        return {name: network(faces).argmax(axis=1) == labels for name, network in networks.items()}

    clean = hits(faces)
    steps = [(change, severity) for change in changes for severity in change.severities]
    found = {
        (change.name, severity): hits(change.apply(faces, severity))
        for change, severity in progress(steps, len(steps))
    }

    def summed_up(name: str) -> Stress:
        right = {
            change.name: [found[change.name, each][name] for each in change.severities] for change in changes
        }
        return Stress(
            data=dataset.name,
            fingerprint=dataset.fingerprint,
            split=split,
            images=len(labels),
            clean=float(clean[name].mean()),
            changes=tuple(
                Stressed(
                    change.name,
                    change.unit,
                    change.severities,
                    tuple(float(each.mean()) for each in right[change.name]),
                )
                for change in changes
            ),
            hits=np.mean([np.mean(each, axis=0) for each in right.values()], axis=0),
        )

    return {name: summed_up(name) for name in networks}
