"""What stands in front of the augmentation and behind it: the training images on the device, and mixup.

A batch is only the numbers of its images. The images themselves lie on the device as uint8 from the
beginning, and all that happens to them happens inside the compiled step.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


class ImageStore(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Holds uint8 images (n, 48, 48); maps int32 numbers (batch,) to uint8 (batch, 48, 48, 1)."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        super().__init__(dtype="uint8", name="image_store")
        self.images = self.add_weight(
            shape=(*images.shape, 1), dtype="uint8", initializer="zeros", trainable=False, name="images"
        )
        self.images.assign(images[..., None])

    def call(self, numbers: Any) -> Any:
        """Pick the images."""
        return ops.take(self.images, numbers, axis=0)


class Mixup(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Blends every image of a batch with the one before it (Zhang et al. 2018, arXiv:1710.09412).

    The labels are blended alike where the batch is made, see ``batches.Batches``.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32", name="mixup")

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Blend float32 images (batch, 48, 48, 1), of which each keeps its share, float32 (batch,)."""
        images, shares = inputs
        shares = ops.reshape(shares, (-1, 1, 1, 1))
        return shares * images + (1 - shares) * ops.roll(images, 1, axis=0)
