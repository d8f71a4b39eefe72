"""Faces of a picture, ready for the predictor."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE
from fertools.errors import ConfigError
from fertools.faces.describing import where
from fertools.faces.detectors import Detection, Detector, Haar, YuNet, opencv
from fertools.faces.framing import Frame
from fertools.faces.picture import Picture

#: Environment variable with the detector file to use when none is named.
DETECTOR_VARIABLE: Final = "FERTOOLS_DETECTOR"

#: Name of the detector that needs no file.
HAAR: Final = Haar.name


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face in a picture, in pixels of the upright picture."""

    #: x and y of the left top corner, width, height; within the picture.
    box: tuple[int, int, int, int]
    #: Confidence of the detector, 0..1.
    confidence: float
    #: x and y of the eye at the picture's left, the eye at its right, the tip of the nose, the mouth's corner
    #: at the left and at the right; None if the detector tells none.
    landmarks: tuple[tuple[float, float], ...] | None
    #: uint8 (48, 48), grey, framed like the training images: the input of ``Predictor.predict``.
    crop: npt.NDArray[np.uint8] = field(repr=False)
    #: The square of the picture, perhaps turned, that became ``crop``.
    frame: Frame

    @property
    def small(self) -> bool:
        """Whether the face has fewer pixels in the picture than in the crop, which is then an enlargement."""
        return self.frame.small

    def to_dict(self) -> dict[str, Any]:
        """Return ``box``, ``face_confidence`` (the detector's), ``small`` and ``landmarks`` as JSON types."""
        landmarks = self.landmarks and [[round(x, 1), round(y, 1)] for x, y in self.landmarks]
        return {**where(self), "landmarks": landmarks}


class FaceFinder:
    """Finds the faces of pictures and cuts them out like the training images. Threads may share it.

    Arguments:
        detector: None for the file that the environment variable ``FERTOOLS_DETECTOR`` names, else OpenCV's
            cascade; ``"haar"`` for the cascade in any case; the path of a YuNet's ONNX file, which finds
            more and aligns faces by their landmarks; or a callable. A callable takes RGB pixels, uint8
            (h, w, 3), and returns boxes (x, y, width, height) or ``Detection`` objects. A box is cropped as
            it is, or made square; landmarks are aligned with those of the training images.
        min_confidence: faces with less are left out; the default depends on the detector (docs/faces.md) and
            is 0 for a callable.
        longest_side: a larger picture is shrunk to this longer side for the detector; the crop comes from the
            original. A larger value finds smaller faces, in time proportional to its square.

    Raises:
        ConfigError: an argument makes no sense, or there is no such file.
        ModelError: the file is no YuNet.
        MissingExtraError: OpenCV 4 is not installed.
    """

    def __init__(
        self,
        detector: str | os.PathLike[str] | Detector | None = None,
        *,
        min_confidence: float | None = None,
        longest_side: int = 1280,
    ) -> None:
        if min_confidence is not None and not 0 <= min_confidence <= 1:
            raise ConfigError(f"min_confidence must be 0..1, not {min_confidence}")
        if longest_side < IMAGE_SIZE:
            raise ConfigError(f"longest_side must be at least {IMAGE_SIZE} pixels, not {longest_side}")
        opencv()
        if detector is None:
            detector = os.environ.get(DETECTOR_VARIABLE) or HAAR
        self._arguments = (detector, min_confidence, longest_side)
        self.longest_side = longest_side
        self._detect: Detector
        #: The detector's file; None for one that needs none.
        self.file: Path | None = None
        if callable(detector):
            self._detect, usual = detector, 0.0
            #: Name of the detector, for reports: ``"haar"``, ``"yunet"`` or the name of the callable.
            self.name = getattr(detector, "__name__", type(detector).__name__)
        elif detector == HAAR:
            usual, self.name = Haar.MIN_CONFIDENCE, HAAR
            self._detect = Haar(usual if min_confidence is None else min_confidence)
        else:
            usual, self.name = YuNet.MIN_CONFIDENCE, YuNet.name
            yunet = YuNet(detector, usual if min_confidence is None else min_confidence)
            self._detect, self.file = yunet, yunet.path
        self.min_confidence = usual if min_confidence is None else min_confidence
        # OpenCV's detectors keep the size of the picture as state.
        self._one_at_a_time = threading.Lock()

    def find(self, image: Any) -> list[Face]:
        """Find the faces of a picture, the largest first; none if there are none.

        A file of up to 50 megapixels needs at most 4 bytes per pixel, as decoded by Pillow, and 100 MB.

        Arguments:
            image: a path, the bytes of an image file, a Pillow image or an array, as ``to_face`` takes it.

        Raises:
            ImageError: the image cannot be used.
            ConfigError: the callable detector returned something that is not a box.
        """
        picture = Picture(image)
        shrunk = picture.within(self.longest_side)
        scale = (picture.width / shrunk.shape[1], picture.height / shrunk.shape[0])
        with self._one_at_a_time:
            found = [_detection(answer) for answer in self._detect(shrunk)]
        faces = [
            self._face(picture, _scaled(detection, scale))
            for detection in found
            if detection.confidence >= self.min_confidence
        ]
        return sorted((face for face in faces if face is not None), key=lambda face: -face.frame.pixels)

    def _face(self, picture: Picture, detection: Detection) -> Face | None:
        """Cut a detection out of its picture; None if it lies outside."""
        if detection.landmarks is None:
            frame = Frame.of_box(detection.box)
        else:
            frame = Frame.of_landmarks(np.asarray(detection.landmarks))
        box = picture.clip(detection.box)
        crop = frame.crop(picture)
        if crop is None or box is None:
            return None
        return Face(box, detection.confidence, detection.landmarks, crop, frame)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), *self._arguments)

    def __repr__(self) -> str:
        how = f"min_confidence={self.min_confidence:g}, longest_side={self.longest_side}"
        return f"<FaceFinder {self.name}, {how}>"


def _again(kind: type[FaceFinder], detector: Any, min_confidence: float | None, longest: int) -> FaceFinder:
    return kind(detector, min_confidence=min_confidence, longest_side=longest)


def _detection(answer: Detection | Sequence[float]) -> Detection:
    """Check what a detector returned for one face."""
    try:
        one = answer if isinstance(answer, Detection) else Detection(tuple(map(float, answer)))  # type: ignore[arg-type]
        numbers = np.array([*one.box, one.confidence, *np.ravel(one.landmarks or ())], np.float64)
        whole = len(one.box) == 4 and len(numbers) in (5, 15) and bool(np.isfinite(numbers).all())
    except (TypeError, ValueError):
        whole = False
    if not whole or min(one.box[2:]) <= 0:
        raise ConfigError(
            f"the detector gave {answer!r}: it must give boxes of four numbers (x, y, width, height) or "
            "fertools.faces.Detection objects, with five landmarks or none"
        )
    return one


def _scaled(detection: Detection, scale: tuple[float, float]) -> Detection:
    """Scale a detection by factors across and down."""
    across, down = scale
    x, y, width, height = detection.box
    landmarks = detection.landmarks and tuple((x * across, y * down) for x, y in detection.landmarks)
    return Detection((x * across, y * down, width * across, height * down), detection.confidence, landmarks)
