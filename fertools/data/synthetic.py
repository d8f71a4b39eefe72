"""Drawn faces with the seven expressions: no download, no real person, the same bytes for the same seed.

A face is a handful of numbers. Its identity, pose, light and camera are drawn uniformly from ``RANGES``. The
parts that an expression moves start from ``FEATURES``, which follows the prototypes of Ekman and Friesen's
Facial Action Coding System (1978): a smile lifts the corners of the mouth, surprise opens eyes and mouth,
fear also draws the brows together, and so on. Expressions may be faint, so some faces are ambiguous.

Every image has its own random generator, seeded by (seed, split, position): a split of 100 begins like one
of 1000, and no split repeats another's images.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data.dataset import Bytes, Dataset
from fertools.data.drawing import Numbers, draw
from fertools.errors import ConfigError

NAME: Final = "synthetic"

#: What varies between faces independently of the expression, with its range. Lengths are in units in which a
#: head is about 2 high, greys are 0..255, light is a slope.
RANGES: Final = {
    # camera and pose
    "zoom": (20.0, 24.0),  # pixels per unit
    "left": (-1.6, 1.6),  # pixels
    "down": (-1.6, 1.6),  # pixels
    "tilt": (-0.07, 0.07),  # tangent of half the angle: 0.07 is 8 degrees
    "turn": (-0.07, 0.07),  # how far the features are in front of the middle of the head
    "light_across": (-0.28, 0.28),
    "light_along": (-0.22, 0.22),
    "contrast": (0.6, 1.1),
    "brightness": (-25.0, 25.0),
    "blur": (0.0, 1.0),
    "noise": (3.0, 16.0),  # greys, half the width of a triangular distribution
    # identity
    "background": (20.0, 230.0),
    "skin": (105.0, 215.0),
    "hair": (10.0, 95.0),
    "hairline": (-0.78, -0.58),
    "head_width": (0.72, 0.86),
    "eye_apart": (0.33, 0.41),
    "eye_height": (-0.16, -0.08),
    "brow_weight": (0.03, 0.065),
    "nose_length": (0.26, 0.36),
    "lip_weight": (0.03, 0.055),
    "mouth_level": (0.48, 0.58),
    "beard": (-1.6, 0.5),  # nothing below 0
    "glasses": (-3.0, 0.8),  # nothing below 0
    # something in front of the face
    "cover_left": (-0.8, 0.8),
    "cover_down": (-0.9, 0.9),
    "cover_size": (-0.7, 0.25),  # nothing below 0
    "cover_grey": (20.0, 220.0),
    # how strong the expression is
    "intensity": (0.4, 1.0),
}

#: What expressions move: the neutral value, half its range without an expression, and what each full
#: expression adds, in the order of ``contract.LABELS``. Heights grow downwards.
FEATURES: Final = {
    #              neutral  varies   angry disgust  fear  happy    sad surprise neutral
    "brow_inner": (-0.36, 0.030, (+0.15, +0.07, -0.14, +0.00, -0.13, -0.15, 0.0)),
    "brow_outer": (-0.36, 0.030, (-0.05, +0.07, +0.01, +0.01, +0.09, -0.12, 0.0)),
    "brow_arch": (0.05, 0.020, (-0.03, -0.03, -0.03, +0.02, -0.02, +0.07, 0.0)),
    "brow_gap": (0.17, 0.020, (-0.06, -0.04, -0.06, +0.00, -0.03, +0.02, 0.0)),
    "eye_open": (0.085, 0.012, (-0.01, -0.05, +0.05, -0.03, -0.03, +0.07, 0.0)),
    "lid_slope": (0.00, 0.015, (+0.06, +0.02, -0.04, +0.00, -0.07, +0.00, 0.0)),
    "mouth_width": (0.30, 0.025, (-0.05, -0.03, +0.07, +0.14, -0.05, -0.11, 0.0)),
    "mouth_curve": (0.00, 0.025, (-0.08, -0.14, -0.05, +0.18, -0.15, +0.00, 0.0)),
    "mouth_open": (0.01, 0.010, (+0.01, +0.07, +0.10, +0.10, +0.00, +0.22, 0.0)),
    "mouth_lift": (0.00, 0.020, (+0.00, +0.09, +0.00, +0.03, -0.02, -0.07, 0.0)),
    "teeth": (0.10, 0.150, (+0.20, +0.80, +0.80, +1.00, +0.00, +0.00, 0.0)),
    "nose_wrinkle": (0.00, 0.080, (+0.10, +1.00, +0.00, +0.05, +0.00, +0.00, 0.0)),
    "cheek_fold": (0.10, 0.120, (+0.05, +0.80, +0.00, +0.80, +0.15, +0.00, 0.0)),
    "forehead": (0.05, 0.100, (+0.00, +0.00, +0.50, +0.00, +0.20, +0.80, 0.0)),
    "frown": (0.05, 0.100, (+1.00, +0.30, +0.25, +0.00, +0.25, +0.00, 0.0)),
}

#: Faces drawn at a time: their working arrays fit a processor's cache.
_BATCH = 32


def generate(train: int = 3000, validation: int = 500, test: int = 1000, *, seed: int = 0) -> Dataset:
    """Draw a data set with the classes in equal shares and in turn.

    Arguments:
        train: number of training images, 0 or more.
        validation: number of validation images, 0 or more.
        test: number of test images, 0 or more.
        seed: 0 or more. The same seed gives the same bytes on every machine: the drawing uses only operations
            that IEEE 754 defines to the last bit, and uniform random numbers.

    Raises:
        ConfigError: a count or the seed is negative.
    """
    counts = (train, validation, test)
    if min(*counts, seed) < 0:
        raise ConfigError(f"counts and seed must be 0 or more, got {counts} and seed {seed}")
    images = np.empty((sum(counts), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    usage = np.repeat(np.arange(3, dtype=np.uint8), counts)
    position = np.concatenate([np.arange(count) for count in counts])
    labels = (position % len(LABELS)).astype(np.uint8)
    for start in range(0, len(images), _BATCH):
        rows = slice(start, start + _BATCH)
        keys = [
            (seed, int(split), int(place)) for split, place in zip(usage[rows], position[rows], strict=True)
        ]
        images[rows] = _faces(labels[rows], keys)
    return Dataset(NAME, images, labels, usage)


def _faces(labels: Bytes, keys: list[tuple[int, int, int]]) -> Bytes:
    """Draw one face per label, uint8 (n, 48, 48), each from the random numbers of its own key."""
    generators = [np.random.default_rng(key) for key in keys]
    uniform = np.stack([generator.random(len(RANGES) + len(FEATURES)) for generator in generators])
    columns = iter(uniform.astype(np.float32).T[..., np.newaxis, np.newaxis])
    face: Numbers = {}
    for (name, (low, high)), column in zip(RANGES.items(), columns, strict=False):
        face[name] = np.float32(low) + np.float32(high - low) * column
    for (name, (neutral, varies, moves)), column in zip(FEATURES.items(), columns, strict=True):
        move = np.asarray(moves, dtype=np.float32)[labels][:, np.newaxis, np.newaxis]
        face[name] = np.float32(neutral) + np.float32(varies) * (2 * column - 1) + face["intensity"] * move
    return draw(face, _triangular(generators))


def _triangular(generators: list[np.random.Generator]) -> npt.NDArray[np.float32]:
    """float32 (n, 48, 48) in -1..1, triangular: near enough to camera noise, and free of exp and log."""
    shape = (2, IMAGE_SIZE, IMAGE_SIZE)
    pairs = np.stack([generator.random(shape, dtype=np.float32) for generator in generators])
    return pairs[:, 0] - pairs[:, 1]
