"""Two small convolutions on three equal channels and two dense layers: 78,335 parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

#: (filters, kernel size, pooling) of the convolutions, and the units of the dense layers.
CONVOLUTIONS = ((8, 4, 4), (16, 2, 2))
UNITS = (120, 64)


def build() -> keras.Model:
    """Build the network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Input, Model, layers

    image = Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")
    tensor = layers.Concatenate(name="three_channels")([image, image, image])
    for number, (filters, size, pooling) in enumerate(CONVOLUTIONS, 1):
        name = f"conv{number}"
        convolution = layers.Conv2D(
            filters, size, padding="same", use_bias=False, activation="relu", name=name
        )
        tensor = layers.MaxPooling2D(pooling, name=f"{name}_pool")(convolution(tensor))
    tensor = layers.Flatten(name="flatten")(tensor)
    for number, units in enumerate(UNITS, 1):
        tensor = layers.Dense(units, activation="relu", name=f"dense{number}")(tensor)
    output = layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities")(tensor)
    return Model(image, output, name="shallow")


NETWORK = Network(
    name="shallow",
    text="Two small convolutions and two dense layers.",
    build=build,
    parameters=78_335,
    multiply_adds=1_035_712,
    input="48x48x3, 0..1",
    published=(Published(0.511, "PublicTest", "30 epochs"),),
    recipes={"original": {"epochs": 30, "batch_size": 50, "optimizer": "adam", "learning_rate": 0.0005}},
)
