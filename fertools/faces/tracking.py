"""Track faces: detected every few frames, followed in between, with smoothed predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fertools.errors import ConfigError
from fertools.faces.describing import where
from fertools.faces.finder import Face, FaceFinder
from fertools.faces.framing import Frame
from fertools.faces.picture import Picture
from fertools.runtime import Prediction, Predictor

Pixels = npt.NDArray[np.uint8]

#: A detection belongs to a track if the overlap (intersection over union) of both squares is at least this,
#: or, once the track is lost, if its centre is no further away than the track's side.
_SHARED: Final = 0.3

#: Tracked points per face, across and down.
_GRID: Final = 7
#: Least number of points that must return to where they were.
_LEAST: Final = 8
#: Largest error of a point after forward and backward tracking, in pixels (Kalal et al. 2010,
#: doi:10.1109/ICPR.2010.675).
_RETURN: Final = 1.0


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A face in one frame of a video."""

    #: Number of the track, from 1 on, the same for the same face.
    track: int
    #: x and y of the left top corner, width, height in pixels, within the picture.
    box: tuple[int, int, int, int]
    #: Confidence of the detector when it last saw the face, 0..1.
    confidence: float
    #: Whether the picture has fewer than 48 pixels of the face each way.
    small: bool
    #: Smoothed over the recent frames of the track.
    prediction: Prediction
    #: The prediction for this frame alone.
    momentary: Prediction

    def to_dict(self) -> dict[str, Any]:
        """Return the face, named as by ``Face.to_dict``, and its smoothed prediction as JSON types."""
        return {
            "track": self.track,
            **where(self),
            "label": self.prediction.label,
            "confidence": round(self.prediction.confidence, 4),
            "probabilities": {label: round(score, 4) for label, score in self.prediction.scores},
        }


@dataclass(slots=True)
class _Track:
    number: int
    frame: Frame
    #: Box of the face relative to the frame: centre and size in frame sides.
    centre: complex
    size: tuple[float, float]
    confidence: float
    #: Time when the detector last saw it.
    seen: float
    #: Whether its points have been lost since.
    lost: bool = False
    #: float64 (7,), smoothed, and when it was last renewed.
    scores: npt.NDArray[np.float64] | None = None
    renewed: float = 0.0

    def take(self, face: Face, time: float) -> None:
        """Continue from a detection."""
        self.frame, self.confidence, self.seen, self.lost = face.frame, face.confidence, time, False
        self.centre, self.size = _relative(face)


class Tracker:
    """Follows the faces of one video. Not to be shared by threads.

    The finder looks for faces in every ``every``-th frame. In between, a grid of points in each face is
    followed by optical flow (Lucas and Kanade, with pyramids) and moves, scales and turns its frame. A face
    that the finder no longer sees is followed for ``memory`` seconds, up to the next search, and not reported
    once its points are lost; if it returns within that time, it keeps its number. The probabilities are an
    exponential mean over time.

    Arguments:
        finder: finds the faces.
        predictor: predicts the crops.
        every: frames from one search to the next; 1 searches every frame.
        smoothing: time constant of the mean, in seconds; 0 is no smoothing.
        memory: how long a face is kept without being detected, in seconds.

    Raises:
        ConfigError: an argument makes no sense.
    """

    def __init__(
        self,
        finder: FaceFinder,
        predictor: Predictor,
        *,
        every: int = 5,
        smoothing: float = 0.5,
        memory: float = 1.0,
    ) -> None:
        if every < 1:
            raise ConfigError(f"every must be at least 1, not {every}")
        if not (smoothing >= 0 and memory >= 0):
            raise ConfigError(
                f"smoothing and memory must be seconds, 0 or more, not {smoothing} and {memory}"
            )
        self.finder = finder
        self.predictor = predictor
        self.every = every
        self.smoothing = smoothing
        self.memory = memory
        #: Tracks so far.
        self.count = 0
        self._tracks: list[_Track] = []
        self._frames = 0
        self._before: Pixels | None = None

    def update(self, time: float, pixels: Pixels) -> list[TrackedFace]:
        """Process the next frame; return its faces, ordered by number.

        Arguments:
            time: in seconds, later than the frame before.
            pixels: uint8 (h, w, 3), RGB; all frames of one size.
        """
        import cv2

        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        if self._before is not None and self._before.shape == grey.shape:
            for track in self._tracks:
                moved = None if track.lost else follow(self._before, grey, track.frame)
                track.frame, track.lost = moved or track.frame, moved is None
        self._before = grey
        picture = Picture(pixels)
        if self._frames % self.every == 0:
            self._assign(self.finder.find(pixels), time)
            # Only now: between two searches no face can be seen again, however long that takes.
            self._tracks = [track for track in self._tracks if time - track.seen <= self.memory]
        self._frames += 1
        return [*self._answers(picture, time)]

    def _assign(self, faces: list[Face], time: float) -> None:
        """Assign each face to the track that it continues, or to a new one."""
        fits = [
            (fit, index, place)
            for index, face in enumerate(faces)
            for place, track in enumerate(self._tracks)
            if (fit := _fit(face.frame, track)) > 0
        ]
        given: dict[int, int] = {}
        for _, index, place in sorted(fits, reverse=True):
            if index not in given and place not in given.values():
                given[index] = place
        for index, face in enumerate(faces):
            if index in given:
                self._tracks[given[index]].take(face, time)
            else:
                self.count += 1
                self._tracks.append(_Track(self.count, face.frame, *_relative(face), face.confidence, time))

    def _answers(self, picture: Picture, time: float) -> Iterator[TrackedFace]:
        shown = []
        for track in self._tracks:
            box = None if track.lost else _box(track, picture)
            crop = None if box is None else track.frame.crop(picture)
            if box is not None and crop is not None:
                shown.append((track, box, crop))
        if not shown:
            return
        rows = self.predictor.probabilities(np.stack([crop for _, _, crop in shown]))
        for (track, box, _), row in zip(shown, rows, strict=True):
            now = row.astype(np.float64)
            if track.scores is None or self.smoothing == 0:
                track.scores = now
            else:
                track.scores += (1 - math.exp(-(time - track.renewed) / self.smoothing)) * (
                    now - track.scores
                )
            track.renewed = time
            yield TrackedFace(
                track.number,
                box,
                track.confidence,
                track.frame.small,
                self._prediction(track.scores),
                self._prediction(now),
            )

    def _prediction(self, scores: npt.NDArray[np.float64]) -> Prediction:
        return Prediction.of(self.predictor.labels, scores.tolist())


def follow(before: Pixels, after: Pixels, frame: Frame) -> Frame | None:
    """Follow a frame from one grey picture to the next: uint8 (h, w) both.

    Returns:
        The frame moved by the similarity of most of its points; None if too few of them are found again.
    """
    import cv2

    # The inner part of the frame, because the corners belong to the background.
    inner = np.linspace(0.15, 0.85, _GRID)
    grid = (frame.corner + frame.side * (inner[None, :] + 1j * inner[:, None])).ravel()
    # The part of both pictures that the face can have reached, shrunk to some 100 pixels.
    reach = 0.6 * frame.pixels
    height, width = after.shape
    left, top = max(int(grid.real.min() - reach), 0), max(int(grid.imag.min() - reach), 0)
    right, bottom = min(int(grid.real.max() + reach), width), min(int(grid.imag.max() + reach), height)
    if right - left < 16 or bottom - top < 16:
        return None
    scale = min(1.0, 128 / max(right - left, bottom - top))
    size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
    old, new = (
        cv2.resize(whole[top:bottom, left:right], size, interpolation=cv2.INTER_AREA)
        for whole in (before, after)
    )
    start = ((grid - complex(left, top)) * scale).astype(np.complex64)
    points = np.stack([start.real, start.imag], axis=1)[:, None]
    there, found, _ = cv2.calcOpticalFlowPyrLK(old, new, points, None, winSize=(11, 11), maxLevel=2)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(new, old, there, None, winSize=(11, 11), maxLevel=2)
    good = (found & found_back).ravel().astype(bool)
    good &= np.abs(back - points).max(axis=(1, 2)) < _RETURN
    if good.sum() < _LEAST:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(points[good], there[good], ransacReprojThreshold=1.0)
    if matrix is None:
        return None
    turn = complex(matrix[0, 0], matrix[1, 0])
    if not 0.8 < abs(turn) < 1.25:
        return None  # no face grows this much from one frame to the next
    corner = (frame.corner - complex(left, top)) * scale * turn + complex(matrix[0, 2], matrix[1, 2])
    return Frame(corner / scale + complex(left, top), frame.side * turn)


def _fit(frame: Frame, track: _Track) -> float:
    """Score how well a detection continues a track: 1..2 by overlap, 0..1 if near a lost one, else 0."""
    side, other = frame.pixels, track.frame.pixels
    apart = frame.centre - track.frame.centre
    # Squares along the axes of the first, which is accurate enough for faces.
    shared = [max(0.0, (side + other) / 2 - abs(gap)) for gap in (apart.real, apart.imag)]
    both = min(shared[0], side, other) * min(shared[1], side, other)
    union = both / (side**2 + other**2 - both)
    if union >= _SHARED:
        return 1 + union
    alike = track.lost and 0.5 < side / other < 2
    return max(0.0, 1 - abs(apart) / max(side, other)) if alike else 0.0


def _relative(face: Face) -> tuple[complex, tuple[float, float]]:
    """Return centre and size of a face's box in sides of its frame, from the frame's middle."""
    x, y, width, height = face.box
    side = face.frame.pixels
    return (complex(x + width / 2, y + height / 2) - face.frame.centre) / side, (
        width / side,
        height / side,
    )


def _box(track: _Track, picture: Picture) -> tuple[int, int, int, int] | None:
    """Return the face's box in whole pixels of the picture; None if it is outside."""
    side = track.frame.pixels
    width, height = (share * side for share in track.size)
    centre = track.frame.centre + track.centre * side
    return picture.clip((centre.real - width / 2, centre.imag - height / 2, width, height))
