"""Dense layers alone, 2304-1024-256-64-7: 2,639,623 parameters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS, PIXEL_MAX
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

UNITS = (1024, 256, 64)
DROPOUT = 0.2


def build(*, scaled: bool) -> keras.Sequential:
    """Build the network with fresh weights under the current dtype policy.

    Arguments:
        scaled: whether the dense layers get pixels in 0..1, or raw ones in 0..255 as the published network.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Sequential, layers

    name = "mlp-scaled" if scaled else "mlp"
    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")], name=name)
    if not scaled:
        network.add(layers.Rescaling(PIXEL_MAX, dtype="float32", name="raw_pixels"))
    network.add(layers.Flatten(name="flatten"))
    for number, units in enumerate(UNITS, 1):
        network.add(layers.Dense(units, activation="relu", name=f"dense{number}"))
        network.add(layers.Dropout(DROPOUT, name=f"dense{number}_dropout"))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities"))
    return network


ORIGINAL = {"epochs": 15, "batch_size": 100, "optimizer": "adam", "learning_rate": 0.001}
NETWORKS = (
    Network(
        name="mlp",
        text="Three dense layers on raw pixels, which collapse to the majority class.",
        build=partial(build, scaled=False),
        parameters=2_639_623,
        multiply_adds=2_638_272,
        input="48x48x1, 0..255",
        published=(Published(0.250, "PublicTest", "15 epochs"),),
        recipes={"original": ORIGINAL},
    ),
    Network(
        name="mlp-scaled",
        text="The same on pixels in 0..1, which cures it.",
        build=partial(build, scaled=True),
        parameters=2_639_623,
        multiply_adds=2_638_272,
        recipes={"original": ORIGINAL},
    ),
)
