"""Measure where detectors find the faces of FER2013: the constants of fertools/faces/framing.py.

    python benchmarks/framing.py fer2013.csv --detector face_detection_yunet_2023mar.onnx

Training images are enlarged four times, with their outermost pixels repeated around them by half a side,
because a detector needs more than the face. Prints, in pixels of the 48x48 frame, the medians and the middle
halves of the most confident box and of the landmarks. Needs the extra ``faces``.
"""

import argparse
import sys
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from fertools import data
from fertools.faces import Detection
from fertools.faces.detectors import Detector, Haar, YuNet

ENLARGED = 4
BORDER = 24
SIDE = 48


@dataclass(frozen=True)
class Framing:
    """Where a detector finds FER2013's faces; arrays hold quartiles (3, ...) in pixels of the frame."""

    images: int
    found: int
    #: (3, 4): x, y, width, height.
    box: npt.NDArray[np.float64]
    #: (3, 5, 2), or None if the detector has none.
    landmarks: npt.NDArray[np.float64] | None


def measure(detector: Detector, images: npt.NDArray[np.uint8]) -> Framing:
    """Run a detector on uint8 images (n, 48, 48); only the most confident box counts."""
    answers = [best for image in images if (best := surest(detector, image)) is not None]
    boxes = np.array([answer.box for answer in answers]) / ENLARGED - [BORDER, BORDER, 0, 0]
    marks = [answer.landmarks for answer in answers if answer.landmarks is not None]
    quartiles = (25, 50, 75)
    return Framing(
        len(images),
        len(answers),
        np.percentile(boxes, quartiles, axis=0),
        np.percentile(np.array(marks) / ENLARGED - BORDER, quartiles, axis=0) if marks else None,
    )


def surest(detector: Detector, image: npt.NDArray[np.uint8]) -> Detection | None:
    """Return the most confident detection, in pixels of the enlarged image with its border."""
    side = SIDE * ENLARGED
    large = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    padded = np.pad(large, BORDER * ENLARGED, mode="edge")
    found = [*detector(np.repeat(padded[:, :, None], 3, axis=2))]
    return max(
        (one for one in found if isinstance(one, Detection)), key=lambda one: one.confidence, default=None
    )


def sample(images: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """Return ``count`` images, evenly spaced among those that are not blank."""
    lively = images[images.std(axis=(1, 2)) > 1]
    return lively[np.linspace(0, len(lively) - 1, count).astype(int)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="fer2013.csv, or another data set that fertools reads")
    parser.add_argument("--detector", action="append", default=[], help="ONNX file of a YuNet; besides Haar")
    parser.add_argument("--images", type=int, default=1500)
    options = parser.parse_args()
    images = sample(data.read(options.source).split("train").images, options.images)
    for name, detector in [("haar", Haar()), *((path, YuNet(path)) for path in options.detector)]:
        framing = measure(detector, images)
        print(f"{name}: found {framing.found / framing.images:.1%} of {framing.images:,}")
        for quantity, column in zip(("x", "y", "width", "height"), framing.box.T, strict=True):
            print(f"  {quantity:<7}{column[1]:6.2f}  (middle half {column[0]:.1f} to {column[2]:.1f})")
        if framing.landmarks is not None:
            print("  landmarks ", ", ".join(f"({x:.1f}, {y:.1f})" for x, y in framing.landmarks[1]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
