"""The reference network: four convolution blocks and two dense ones, 4,478,727 parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network, Published

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

    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")], name="sequential")
    # Named by hand: Keras counts its own names on with every network that a process builds.
    for number, (filters, size) in enumerate(CONVOLUTIONS, 1):
        name = f"conv{number}"
        network.add(layers.Conv2D(filters, size, padding="same", name=name))
        network.add(layers.BatchNormalization(name=f"{name}_norm"))
        network.add(layers.Activation("relu", name=f"{name}_relu"))
        network.add(layers.MaxPooling2D(2, name=f"{name}_pool"))
        network.add(layers.Dropout(DROPOUT, name=f"{name}_dropout"))
    network.add(layers.Flatten(name="flatten"))
    for number, units in enumerate(DENSE_UNITS, 1):
        name = f"dense{number}"
        network.add(layers.Dense(units, name=name))
        network.add(layers.BatchNormalization(name=f"{name}_norm"))
        network.add(layers.Activation("relu", name=f"{name}_relu"))
        network.add(layers.Dropout(DROPOUT, name=f"{name}_dropout"))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities"))
    return network


NETWORK = Network(
    name="sequential",
    text="Four convolution blocks and two dense ones: the network of FER2013 notebooks.",
    build=build,
    parameters=4_478_727,
    multiply_adds=290_475_520,
    published=(Published(0.632, "PublicTest + PrivateTest", "100 epochs"),),
    recipes={
        "original": {
            "epochs": 100,
            "batch_size": 64,
            "optimizer": "adam",
            "learning_rate": 0.00035,
            "schedule": "plateau",
            "plateau_factor": 0.1,
            "plateau_patience": 2,
            "augmentation": "flip",
        }
    },
)
