"""Random changes of the training images, inside the compiled step, on every Keras backend.

Keras' own random layers are not used: RandomRotation, RandomZoom and RandomTranslation silently disable
compilation on JAX. One affine transform does the work of all of them.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fertools.contract import IMAGE_SIZE, PIXEL_MAX
from fertools.training.config import Augmentation

#: Images that are augmented at once outside of a step.
AT_ONCE = 1024

#: Share of the image's area that an erased rectangle covers, and its height/width ratio.
ERASED_AREA = (0.02, 0.2)
ERASED_ASPECT = (0.5, 2.0)


class AugmentedInput(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Scales uint8 (batch, 48, 48, 1) to float32 0..1 and, in training only, changes each image.

    It precedes the network during training and is never part of a saved model.
    """

    def __init__(self, augmentation: Augmentation, seed: int) -> None:
        super().__init__(dtype="float32", name="augmented_input")
        self.augmentation = augmentation
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images: Any, training: bool = False) -> Any:
        """Scale, and augment if ``training``."""
        images = ops.cast(images, "float32") / PIXEL_MAX
        if not training:
            return images
        a = self.augmentation
        if a.flip or a.rotation or a.shift or a.scale:
            images = ops.image.affine_transform(
                images, self._transforms(ops.shape(images)[0]), fill_mode="nearest"
            )
        if a.brightness or a.contrast:
            images = self._relight(images)
        if a.erasing:
            images = self._erase(images)
        return images

    def _uniform(self, count: Any, low: float, high: float) -> Any:
        return keras.random.uniform((count,), low, high, seed=self.seed_generator)

    def _transforms(self, count: Any) -> Any:
        """Return rows (count, 8) that map output pixels to input pixels, about the image's centre."""
        a = self.augmentation
        angle = self._uniform(count, -1, 1) * math.radians(a.rotation)
        zoom = ops.exp(self._uniform(count, -1, 1) * math.log1p(a.scale))
        mirror = ops.where(self._uniform(count, 0, 1) < (0.5 if a.flip else 0.0), -1.0, 1.0)
        x_scale, x_shear = ops.cos(angle) / zoom * mirror, -ops.sin(angle) / zoom
        y_shear, y_scale = ops.sin(angle) / zoom * mirror, ops.cos(angle) / zoom
        centre = (IMAGE_SIZE - 1) / 2
        x_shift = centre - centre * (x_scale + x_shear) + self._uniform(count, -1, 1) * a.shift
        y_shift = centre - centre * (y_shear + y_scale) + self._uniform(count, -1, 1) * a.shift
        zero = ops.zeros_like(angle)
        return ops.stack([x_scale, x_shear, x_shift, y_shear, y_scale, y_shift, zero, zero], axis=1)

    def _relight(self, images: Any) -> Any:
        a, count = self.augmentation, ops.shape(images)[0]
        gain = 1 + self._uniform(count, -1, 1) * a.contrast
        offset = self._uniform(count, -1, 1) * a.brightness
        gain, offset = (ops.reshape(value, (-1, 1, 1, 1)) for value in (gain, offset))
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return ops.clip((images - mean) * gain + mean + offset, 0.0, 1.0)

    def _erase(self, images: Any) -> Any:
        """Fill one rectangle of an image with one random grey value."""
        count = ops.shape(images)[0]
        area = self._uniform(count, *ERASED_AREA) * IMAGE_SIZE**2
        aspect = ops.exp(self._uniform(count, *(math.log(value) for value in ERASED_ASPECT)))
        height, width = ops.sqrt(area * aspect), ops.sqrt(area / aspect)
        top = self._uniform(count, 0, 1) * (IMAGE_SIZE - height)
        left = self._uniform(count, 0, 1) * (IMAGE_SIZE - width)
        chosen = self._uniform(count, 0, 1) < self.augmentation.erasing
        pixel = ops.arange(IMAGE_SIZE, dtype="float32")[None, :]
        rows = (pixel >= top[:, None]) & (pixel < (top + height)[:, None])
        columns = (pixel >= left[:, None]) & (pixel < (left + width)[:, None])
        erased = rows[:, :, None] & columns[:, None, :] & chosen[:, None, None]
        grey = ops.reshape(self._uniform(count, 0, 1), (-1, 1, 1, 1))
        return ops.where(erased[..., None], grey, images)


def augmented(images: NDArray[np.uint8], augmentation: Augmentation, seed: int) -> NDArray[np.uint8]:
    """Return uint8 (n, 48, 48) images, augmented as in training; the same for the same seed."""
    layer = AugmentedInput(augmentation, seed)
    return np.concatenate(
        [
            to_levels(layer(images[start : start + AT_ONCE, ..., None], training=True))
            for start in range(0, len(images), AT_ONCE)
        ]
    )


def to_levels(images: Any) -> NDArray[np.uint8]:
    """Return float images (batch, 48, 48, 1) in 0..1 as uint8 (batch, 48, 48)."""
    levels: NDArray[np.float32] = np.rint(ops.convert_to_numpy(images)[..., 0] * PIXEL_MAX)
    return levels.astype(np.uint8)
