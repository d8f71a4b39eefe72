"""The reference network: four convolution blocks and two dense ones, 4,478,727 parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS

if TYPE_CHECKING:
    import keras

#: (filters, kernel size) of the convolution blocks, and the units of the dense ones.
CONVOLUTIONS = ((64, 3), (128, 5), (512, 3), (512, 3))
DENSE_UNITS = (256, 512)
DROPOUT = 0.25


def build() -> keras.Sequential:
    """Build the network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    The last layer is float32 under every policy, so that probabilities are never rounded to bfloat16.
    """
    from keras import Sequential, layers

    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1))], name="sequential")
    for filters, size in CONVOLUTIONS:
        network.add(layers.Conv2D(filters, size, padding="same"))
        network.add(layers.BatchNormalization())
        network.add(layers.Activation("relu"))
        network.add(layers.MaxPooling2D(2))
        network.add(layers.Dropout(DROPOUT))
    network.add(layers.Flatten())
    for units in DENSE_UNITS:
        network.add(layers.Dense(units))
        network.add(layers.BatchNormalization())
        network.add(layers.Activation("relu"))
        network.add(layers.Dropout(DROPOUT))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32"))
    return network
