"""Keras probabilities for uint8 faces: the reference that exported files are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fertools.contract import PIXEL_MAX

if TYPE_CHECKING:
    import keras


def probabilities(
    network: keras.Model, images: NDArray[np.uint8], *, batch_size: int = 256
) -> NDArray[np.float32]:
    """Run ``network`` on uint8 (n, 48, 48) images. Returns float32 (n, 7)."""
    scaled = images[..., None].astype(np.float32) / np.float32(PIXEL_MAX)
    result: NDArray[np.float32] = network.predict(scaled, batch_size=batch_size, verbose=0)
    return result
