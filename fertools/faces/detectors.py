"""Face detectors: OpenCV's cascade, YuNet, or any callable of the user."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fertools.errors import ConfigError, MissingExtraError, ModelError
from fertools.reading import is_utf8

Box = tuple[float, float, float, float]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Detection:
    """A face as a detector sees it, in pixels of the picture that it was given."""

    #: x and y of the left top corner, width, height.
    box: Box
    #: 0..1.
    confidence: float = 1.0
    #: x and y of the eye at the picture's left, the eye at its right, the tip of the nose, the mouth's corner
    #: at the left and at the right; None if the detector tells none.
    landmarks: tuple[tuple[float, float], ...] | None = None


#: Boxes that share at least this much of the smaller one are one face.
_ONE_FACE: Final = 0.5

#: Takes an RGB picture, uint8 (h, w, 3), and returns detections, or bare boxes of four numbers.
Detector = Callable[[Pixels], Iterable[Detection | Sequence[float]]]


def opencv() -> Any:
    """The module cv2, of OpenCV 4.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError("opencv-python-headless", "faces") from error
    return cv2


def open_name(path: str | os.PathLike[str]) -> str:
    """Return a path for OpenCV, which crashes on a name that is not UTF-8. Raises ConfigError for one."""
    name = os.fspath(path)
    if not is_utf8(name):
        raise ConfigError(f"{name}: OpenCV cannot open a name that is not UTF-8: rename it")
    return name


@contextmanager
def quiet(cv2: Any) -> Iterator[None]:
    """Suppress what OpenCV, and FFmpeg in it, write to stderr about an unsuitable file; our error says it."""
    # FFmpeg's level is read once, when the first video is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


class Haar:
    """The frontal-face cascade that is inside OpenCV 4's wheel (Viola and Jones 2001).

    Its confidence is the share of faces among boxes of the same weight. The weight that the cascade's last
    stage gives a box has no scale, so it goes through a logistic function, fitted on scenes of validation
    faces to which boxes were faces (``benchmarks/scenes.py --fit-haar``).

    Raises:
        MissingExtraError: there is no OpenCV, or one without cascades, such as OpenCV 5.
        ConfigError: OpenCV cannot read its own cascade, e.g. in a folder whose name is not ASCII on Windows.
    """

    #: Default of ``FaceFinder``.
    MIN_CONFIDENCE: Final = 0.5
    #: The logistic function: the weight at which half the boxes are faces, and its steepness.
    MIDDLE: Final = 1.46
    STEEPNESS: Final = 0.77

    name: Final = "haar"

    def __init__(self, min_confidence: float = MIN_CONFIDENCE) -> None:
        cv2 = opencv()
        if not hasattr(cv2, "CascadeClassifier"):
            raise MissingExtraError("opencv-python-headless 4 (5 has no cascades)", "faces")
        if not hasattr(cv2, "data"):  # as in OpenCV of a Linux distribution
            raise MissingExtraError("opencv-python-headless 4 (this one is without cascades)", "faces")
        self.min_confidence = min_confidence
        file = cv2.data.haarcascades + "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(file)
        if self._cascade.empty():
            raise ConfigError(
                f"{file}: OpenCV cannot read this cascade; name the ONNX file of a YuNet instead"
            )

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Faces of uint8 (h, w, 3), RGB, whose boxes are at least 24 pixels wide."""
        from fertools.runtime.preprocessing import grey

        found, levels, weights = self._cascade.detectMultiScale3(
            grey(pixels), scaleFactor=1.1, minNeighbors=3, outputRejectLevels=True
        )
        if not len(found):
            return []
        # The last stage of the boxes that passed all stages; OpenCV also gives those that nearly did.
        whole = max(levels)
        detections = [
            Detection((float(x), float(y), float(width), float(height)), self._confidence(float(weight)))
            for (x, y, width, height), level, weight in zip(found, levels, weights, strict=True)
            if level == whole
        ]
        return merge(one for one in detections if one.confidence >= self.min_confidence)

    def _confidence(self, weight: float) -> float:
        return 1 / (1 + math.exp(-self.STEEPNESS * (weight - self.MIDDLE)))


class YuNet:
    """YuNet (Wu et al. 2023, doi:10.1007/s11633-023-1423-y), run by OpenCV from a file of the user.

    Raises:
        ConfigError: there is no such file, or its name is not UTF-8.
        ModelError: the file is no YuNet.
        MissingExtraError: there is no OpenCV.
    """

    #: The least confidence of a face if the caller says nothing: on 700 scenes of validation faces it finds
    #: 91.1% of them with 0.23 false finds per scene, where 0.5 finds 90.6% with 0.17.
    MIN_CONFIDENCE: Final = 0.45

    #: Boxes that overlap more (intersection over union) are one face.
    OVERLAP: Final = 0.3

    #: YuNet is trained on faces of about 10 to 300 pixels. A picture whose longer side exceeds this is
    #: therefore searched a second time, reduced to a quarter.
    LARGEST: Final = 640

    #: Smaller pictures get a black border at the right and below, as OpenCV gives one up to a multiple of 32.
    #: From 32x32 pixels OpenCV 4.14 at times answers with what happened to be in memory: boxes without size.
    SMALLEST: Final = 64

    name: Final = "yunet"

    def __init__(self, path: str | os.PathLike[str], min_confidence: float = MIN_CONFIDENCE) -> None:
        cv2 = opencv()
        self.path = Path(path)
        self.min_confidence = min_confidence
        if not self.path.is_file():
            raise ConfigError(f"{self.path}: no such detector file: name the ONNX file of a YuNet")
        name = open_name(self.path)
        try:
            with quiet(cv2):
                self._net = cv2.FaceDetectorYN.create(name, "", (320, 320), min_confidence, self.OVERLAP)
                self._net.detect(np.zeros((320, 320, 3), np.uint8))
        except cv2.error as error:
            raise ModelError(
                f"{self.path}: OpenCV cannot use it as a YuNet: the file wanted is "
                "face_detection_yunet_2023mar.onnx of OpenCV's model zoo, or one of a fixed input size"
            ) from error

    def __call__(self, pixels: Pixels) -> list[Detection]:
        """Faces of uint8 (h, w, 3), RGB, with their five landmarks."""
        import cv2

        found = self._detect(pixels, 1.0)
        longer = max(pixels.shape[:2])
        if longer > self.LARGEST:
            size = [max(1, round(side / 4)) for side in pixels.shape[1::-1]]
            small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
            found = merge([*found, *self._detect(small, longer / max(size))])
        return found

    def _detect(self, pixels: npt.NDArray[Any], scale: float) -> list[Detection]:
        if min(pixels.shape[:2]) < self.SMALLEST:
            below, right = (max(self.SMALLEST - side, 0) for side in pixels.shape[:2])
            pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)))
        height, width = pixels.shape[:2]
        self._net.setInputSize((width, height))
        _, rows = self._net.detect(np.ascontiguousarray(pixels[:, :, ::-1]))
        if rows is None:
            return []
        return [
            Detection(
                tuple(float(value) * scale for value in row[:4]),  # type: ignore[arg-type]
                float(row[14]),
                tuple((float(x) * scale, float(y) * scale) for x, y in row[4:14].reshape(5, 2)),
            )
            for row in rows
            if np.isfinite(row).all() and min(row[2:4]) > 0
        ]


def merge(found: Iterable[Detection]) -> list[Detection]:
    """Keep the surest of the detections of each face."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.confidence):
        if all(_shared(one.box, other.box) < _ONE_FACE for other in kept):
            kept.append(one)
    return kept


def _shared(one: Box, other: Box) -> float:
    """Intersection over the area of the smaller box."""
    sides = [
        max(0.0, min(one[axis] + one[axis + 2], other[axis] + other[axis + 2]) - max(one[axis], other[axis]))
        for axis in (0, 1)
    ]
    smaller = min(one[2] * one[3], other[2] * other[3])
    return sides[0] * sides[1] / smaller if smaller > 0 else 0.0
