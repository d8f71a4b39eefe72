"""Three convolutions and three dense layers: 2,470,151 parameters, published with Adam and with SGD."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

FILTERS = (32, 64, 128)
UNITS = (1024, 256, 64)


def build(name: str, *, dropout: float) -> keras.Sequential:
    """Build the network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    ``dropout`` is the rate behind each dense layer.
    """
    from keras import Sequential, layers

    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")], name=name)
    for number, filters in enumerate(FILTERS, 1):
        network.add(layers.Conv2D(filters, 3, activation="relu", name=f"conv{number}"))
        network.add(layers.MaxPooling2D(2, name=f"conv{number}_pool"))
    network.add(layers.Flatten(name="flatten"))
    for number, units in enumerate(UNITS, 1):
        network.add(layers.Dense(units, activation="relu", name=f"dense{number}"))
        network.add(layers.Dropout(dropout, name=f"dense{number}_dropout"))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities"))
    return network


# The batch is that of the same authors' mlp.
NETWORKS = (
    Network(
        name="cnn3",
        text="Three convolutions and three dense layers, dropout 0.2.",
        build=partial(build, "cnn3", dropout=0.2),
        parameters=2_470_151,
        multiply_adds=15_832_640,
        published=(Published(0.551, "PublicTest", "15 epochs, Adam"),),
        recipes={"original": {"epochs": 15, "batch_size": 100, "optimizer": "adam", "learning_rate": 0.001}},
    ),
    Network(
        name="cnn3-sgd",
        text="The same with dropout 0.3, as it was published with SGD.",
        build=partial(build, "cnn3-sgd", dropout=0.3),
        parameters=2_470_151,
        multiply_adds=15_832_640,
        published=(Published(0.534, "PublicTest", "150 epochs, SGD"),),
        recipes={
            "original": {
                "epochs": 150,
                "batch_size": 100,
                "optimizer": "sgd",
                "momentum": 0.0,
                "learning_rate": 0.001,
            }
        },
    ),
)
