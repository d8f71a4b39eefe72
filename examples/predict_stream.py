"""Label the frames of a camera: python examples/predict_stream.py [EXPORT_FOLDER].

Drawn faces stand in for the camera here. A real one may never end. With OpenCV, which returns BGR, and faces
cut out by your detector, it is::

    while camera.isOpened():
        yield crop(camera.read()[1])[:, :, ::-1]
"""

import sys
import time
from collections.abc import Iterator

import numpy as np

from fertools.data import synthetic
from fertools.runtime import ImageError, Predictor


def camera() -> Iterator[np.ndarray]:
    """Yield twenty frames at 30 per second; the eighth is empty, as happens with cameras."""
    faces = synthetic.generate(train=0, validation=0, test=20).split("test").images
    for number, face in enumerate(faces):
        time.sleep(1 / 30)
        yield face[:0] if number == 7 else face


def main(model: str | None = None) -> None:
    """Print one line per frame."""
    for number, outcome in enumerate(Predictor(model).predict_stream(camera())):
        if isinstance(outcome, ImageError):
            print(f"{number:>3}  skipped: {outcome}")
        else:
            print(f"{number:>3}  {outcome.label:<10}{outcome.confidence:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
