"""Camera degradations as augmentation, inside the compiled step, on every Keras backend.

The training counterpart of ``fertools stress``, which measures with other code (Pillow and SciPy). The
changes are applied in the order of a camera: light, lens, sensor, codec. Each is drawn independently for each
image; an image that a change skips passes it with strength 0.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fertools.contract import IMAGE_SIZE, PIXEL_MAX
from fertools.training.config import CAMERA_KINDS

#: Probability of each change to an image that passes through the camera; light has four. On average about two
#: apply at once.
EACH = 0.2

# The strongest changes at strength 1, drawn uniformly from none to these. For kinds with a factor its
# logarithm is drawn, in either direction.
GAMMA = 2.5
CONTRAST = 3.0
BRIGHTNESS = 0.3
#: The darker edge of the face has 1 - this of the light, the brighter one 1 + this.
SIDE_LIGHT = 0.8
#: Standard deviation of a Gaussian, in pixels.
DEFOCUS = 1.6
#: Length of the path, in pixels.
MOTION = 9.0
#: Smallest face, in pixels across.
SMALLEST_FACE = 14
#: Standard deviation at middle grey, on the 0..1 scale.
NOISE = 26 / PIXEL_MAX
#: JPEG quality, from the best to the worst.
QUALITY = (75.0, 8.0)

#: Table K.1 of ITU-T T.81 (JPEG): quantization of luminance, which libjpeg scales by quality.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


class Camera(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Passes float32 (batch, 48, 48, 1) in 0..1 through a bad camera, in training only.

    Only the student sees its output; teachers see the augmented images before it.

    Arguments:
        share: share of the images that pass through it, 0..1; the others are unchanged.
        strength: factor on the strongest change of each kind, 0 or more.
        kinds: which of ``CAMERA_KINDS`` it applies.
        seed: random seed.
    """

    def __init__(self, share: float, strength: float, kinds: tuple[str, ...], seed: int) -> None:
        super().__init__(dtype="float32", name="camera")
        self.share = share
        self.strength = strength
        self.kinds = kinds
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Degrade, if ``training``."""
        if not training:
            return images
        degraded = images
        for kind in CAMERA_KINDS:
            if kind in self.kinds:
                degraded = getattr(self, f"_{kind}")(degraded)
        chosen = self._uniform(images, 0, 1) < self.share
        return ops.where(chosen, ops.clip(degraded, 0.0, 1.0), images)

    def _uniform(self, images: Any, low: float, high: float) -> Any:
        """A number for each image: (batch, 1, 1, 1)."""
        return keras.random.uniform((ops.shape(images)[0], 1, 1, 1), low, high, seed=self.seed_generator)

    def _drawn(self, images: Any, low: float = 0.0) -> Any:
        """Draw the share of the strongest change: (batch, 1, 1, 1) from ``low`` to 1, or 0 to skip it."""
        chosen = self._uniform(images, 0, 1) < EACH
        return ops.where(chosen, self._uniform(images, low, 1), 0.0) * self.strength

    def _light(self, images: Any) -> Any:
        """Side light, too much or too little light, and the camera's response to it."""
        angle = self._uniform(images, 0, 2 * math.pi)
        across = ops.convert_to_tensor(np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32))
        along = ops.cos(angle) * across[None, None, :, None] + ops.sin(angle) * across[None, :, None, None]
        images = images * ops.maximum(1 + self._drawn(images) * SIDE_LIGHT * along, 0.0)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        gain = ops.exp(self._drawn(images, -1) * math.log(CONTRAST))
        images = (images - mean) * gain + mean + self._drawn(images, -1) * BRIGHTNESS
        gamma = ops.exp(self._drawn(images, -1) * math.log(GAMMA))
        return ops.power(ops.clip(images, 0.0, 1.0), gamma)

    def _defocus(self, images: Any) -> Any:
        """Gaussian blur with replicated edges."""
        sigma = self._drawn(images)[:, 0, 0, 0] * DEFOCUS
        return _multiplied(images, _blurs(), ops.cast(ops.round(sigma * 50), "int32"))

    def _motion(self, images: Any) -> Any:
        """Motion blur: the mean of eight copies along a straight path, made by doubling."""
        angle = self._uniform(images, 0, math.pi)
        step = self._drawn(images) * MOTION / 8
        x, y = (step * ops.cos(angle))[:, 0, 0, 0], (step * ops.sin(angle))[:, 0, 0, 0]
        images = (_moved(images, x * -3.5, y * -3.5) + _moved(images, x * -2.5, y * -2.5)) / 2
        for copies in (2, 4):
            images = (images + _moved(images, x * copies, y * copies)) / 2
        return images

    def _resolution(self, images: Any) -> Any:
        """A small face, enlarged."""
        smaller = self._drawn(images)[:, 0, 0, 0] * (IMAGE_SIZE - SMALLEST_FACE)
        return _multiplied(images, _reductions(), ops.cast(ops.round(smaller), "int32"))

    def _noise(self, images: Any) -> Any:
        """Sensor noise: of the electronics, equal everywhere, and of the light, stronger in bright parts."""
        sigma = self._drawn(images) * NOISE
        of_light = self._uniform(images, 0, 1)
        variance = (1 - of_light) + of_light * 2 * ops.clip(images, 0.0, 1.0)
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        return images + sigma * ops.sqrt(variance) * noise

    def _jpeg(self, images: Any) -> Any:
        """JPEG: rounding of the block coefficients by libjpeg's table for a quality."""
        best, worst = QUALITY
        drawn = self._drawn(images)[..., 0]
        quality = best + (worst - best) * drawn
        percent = ops.where(quality < 50, 5000 / ops.maximum(quality, 1.0), 200 - 2 * quality)
        blocks = IMAGE_SIZE // 8
        table = ops.convert_to_tensor(np.tile(LUMINANCE, (blocks, blocks)))
        table = ops.clip(ops.floor((table * percent + 50) / 100), 1.0, 255.0)
        cosines = ops.convert_to_tensor(np.kron(np.eye(blocks), _cosines()).astype(np.float32))
        pixels = ops.clip(images[..., 0], 0.0, 1.0) * PIXEL_MAX - 128
        coefficients = ops.matmul(ops.matmul(cosines, pixels), ops.transpose(cosines))
        rounded = ops.round(coefficients / table) * table
        pixels = ops.matmul(ops.matmul(ops.transpose(cosines), rounded), cosines)
        return ops.where(drawn[..., None] > 0, (pixels[..., None] + 128) / PIXEL_MAX, images)


def _multiplied(images: Any, matrices: NDArray[np.float32], down: Any, across: Any = None) -> Any:
    """Multiply the columns of each image with one of ``matrices`` (n, 48, 48), and its rows with another.

    ``down`` and ``across`` say with which, int32 (batch,); with the same one if only ``down`` is given.
    """
    table = ops.convert_to_tensor(matrices)
    left = ops.take(table, ops.clip(down, 0, len(matrices) - 1), axis=0)
    right = left if across is None else ops.take(table, ops.clip(across, 0, len(matrices) - 1), axis=0)
    return ops.matmul(ops.matmul(left, images[..., 0]), ops.transpose(right, (0, 2, 1)))[..., None]


def _moved(images: Any, x: Any, y: Any) -> Any:
    """Shift the images by (x, y) pixels, float32 (batch,), with replicated edges."""
    down, across = (ops.cast(ops.round(by * 16), "int32") + len(_shifts()) // 2 for by in (y, x))
    return _multiplied(images, _shifts(), down, across)


@cache
def _shifts() -> NDArray[np.float32]:
    """Shifts by -7, -6.9375, ..., 7 pixels, edges replicated: (225, 48, 48), rows sum to 1."""
    pixels = np.arange(IMAGE_SIZE)
    places = np.clip(pixels[:, None] + np.arange(-112, 113)[:, None, None] / 16, 0, IMAGE_SIZE - 1)
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(places - pixels), 0)
    return weights.astype(np.float32)


@cache
def _blurs() -> NDArray[np.float32]:
    """Gaussians of sigma 0.00, 0.02, ..., 2.5 pixels, edges replicated: (126, 48, 48), rows sum to 1."""
    pixels = np.arange(IMAGE_SIZE)
    beyond = np.arange(-IMAGE_SIZE, 2 * IMAGE_SIZE)
    squares = (pixels[:, None] - beyond) ** 2
    matrices = []
    for sigma in np.arange(126) / 50:
        weights = np.exp(-squares / (2 * max(sigma, 0.02) ** 2))
        folded = np.zeros((IMAGE_SIZE, IMAGE_SIZE))
        np.add.at(folded.T, np.clip(beyond, 0, IMAGE_SIZE - 1), weights.T)
        matrices.append(folded / folded.sum(axis=1, keepdims=True))
    return np.array(matrices, np.float32)


@cache
def _reductions() -> NDArray[np.float32]:
    """Reduction to 48, 47, ..., 8 pixels and enlargement to 48: (41, 48, 48), rows sum to 1."""
    return np.array(
        [_resampling(size, IMAGE_SIZE) @ _resampling(IMAGE_SIZE, size) for size in range(IMAGE_SIZE, 7, -1)],
        np.float32,
    )


def _resampling(size: int, to: int) -> NDArray[np.float64]:
    """The antialiased triangle filter by which the library scales pictures: (to, size)."""
    scale = size / to
    centres = (np.arange(to) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights: NDArray[np.float64] = np.maximum(1.0 - distance, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _cosines() -> NDArray[np.float64]:
    """The orthonormal discrete cosine transform of eight values: (8, 8)."""
    frequency, place = np.mgrid[:8, :8]
    rows: NDArray[np.float64] = np.cos((2 * place + 1) * frequency * np.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows
