"""BatchNormalization statistics that belong to the weights they are used with."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from fertools.contract import PIXEL_MAX
from fertools.models.structure import images_at_once

#: Images that the statistics are taken from; 1,024 validate alike (docs/recipe.md).
IMAGES = 512


def estimate_statistics(network: keras.Model, images: NDArray[np.uint8]) -> None:
    """Set the moving means and variances of ``network`` to those of ``images``, uint8 (n, 48, 48).

    The averages that training keeps belong to other weights (the current ones, while the averaged ones are
    saved), to other images (augmented ones) and to activations that dropout has spread (Li et al. 2018,
    arXiv:1801.05134). One pass without dropout replaces them, in as few batches as memory allows.
    """
    scaled = images[..., None].astype(np.float32) / np.float32(PIXEL_MAX)
    batches = np.array_split(scaled, -(-len(scaled) // images_at_once(network, kept=True)))
    kept = []
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            kept.append((layer, "momentum", layer.momentum))
        elif isinstance(layer, keras.layers.Dropout):
            kept.append((layer, "rate", layer.rate))
            layer.rate = 0.0
    try:
        for number, batch in enumerate(batches):
            for layer, name, _ in kept:
                if name == "momentum":
                    layer.momentum = number / (number + 1)
            network(batch, training=True)
    finally:
        for layer, name, value in kept:
            setattr(layer, name, value)
