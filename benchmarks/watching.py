"""Measure frames per second and label flips of fertools watch on a video with faces, on one core.

    taskset -c 0 python benchmarks/watching.py fer2013.csv --detector face_detection_yunet_2023mar.onnx

Draws scenes of 640x480 with up to three faces of the split as benchmarks/scenes.py does, and moves the camera
over each for four seconds at 25 frames a second (it sways, comes nearer and goes away), with the noise of a
sensor in every frame. Prints, for each detector: frames per second of detection, tracking and prediction
(without drawing the video); and label flips per minute and track, of single frames and of smoothed answers.
Needs the extras ``faces`` and ``dev``.
"""

import argparse
import math
import time
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
import scenes

from fertools import data
from fertools.faces import FaceFinder, Tracker
from fertools.runtime import Predictor

RATE = 25
SECONDS = 4
NOISE = 6


def shots(scene: npt.NDArray[np.uint8], random: np.random.Generator) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of a camera that moves over a scene: uint8 (480, 640, 3)."""
    for index in range(RATE * SECONDS):
        phase = 2 * math.pi * index / (RATE * SECONDS)
        matrix = cv2.getRotationMatrix2D((320, 240), 4 * math.sin(phase), 1 + 0.08 * math.sin(2 * phase))
        matrix[:, 2] += 25 * math.sin(phase), 10 * math.sin(3 * phase)
        moved = cv2.warpAffine(scene, matrix, (640, 480), borderMode=cv2.BORDER_REFLECT)
        noisy = moved + random.normal(0, NOISE, moved.shape)
        yield noisy.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="fer2013.csv, or another data set that fertools reads")
    parser.add_argument("--detector", action="append", default=[], help="ONNX file of a YuNet; besides Haar")
    parser.add_argument("--split", choices=data.SPLITS, default="test")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--scenes", type=int, default=15)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    scenes.FACES = (1, 3)
    faces = data.read(options.source).split(options.split).images
    predictor = Predictor(options.model, providers="cpu", threads=1)
    for detector in ("haar", *options.detector):
        finder = FaceFinder(detector, longest_side=320)
        seconds = tracked = 0.0
        frames = single = smooth = 0
        random = np.random.default_rng(0)
        for _, scene in zip(range(options.scenes), scenes.scenes(faces, seed=0), strict=False):
            tracker = Tracker(finder, predictor)
            last: dict[int, tuple[str, str]] = {}
            for index, pixels in enumerate([*shots(scene.pixels, random)]):
                start = time.perf_counter()
                answers = tracker.update(index / RATE, pixels)
                seconds += time.perf_counter() - start
                frames += 1
                for face in answers:
                    labels = face.momentary.label, face.prediction.label
                    before = last.get(face.track, labels)
                    single += labels[0] != before[0]
                    smooth += labels[1] != before[1]
                    last[face.track] = labels
                    tracked += 1 / RATE / 60
        print(
            f"{finder.name}: {frames / seconds:.1f} frames per second; label flips per minute and track:"
            f" {single / tracked:.1f} of single frames, {smooth / tracked:.1f} smoothed"
            f" ({tracked * 60:.0f} s of tracks)",
            flush=True,
        )


if __name__ == "__main__":
    main()
