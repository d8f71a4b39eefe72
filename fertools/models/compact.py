"""The network for the smallest devices: 437,159 parameters, 27.0M multiply-adds per image.

Plain 3x3 convolutions at low resolution, because these gain most from int8 kernels: depthwise ones and
those at the full 48x48 pixels hardly do. The first convolution therefore strides at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network

if TYPE_CHECKING:
    import keras

#: (filters, kernel size, stride) of the first convolution: 48x48 -> 24x24.
STEM = (32, 5, 2)
#: Filters of the 3x3 convolutions of each stage, at 24x24, 12x12 and 6x6.
STAGES = ((32,), (64, 64), (128, 128, 128))


def build() -> keras.Sequential:
    """Build the network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Sequential, layers

    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")], name="compact")

    def convolution(name: str, filters: int, size: int = 3, stride: int = 1) -> None:
        network.add(layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name))
        network.add(layers.BatchNormalization(name=f"{name}_norm"))
        network.add(layers.Activation("relu", name=f"{name}_relu"))

    convolution("stem", *STEM)
    for stage, widths in enumerate(STAGES, 1):
        if stage > 1:
            network.add(layers.MaxPooling2D(2, name=f"stage{stage}_pool"))
        for number, filters in enumerate(widths, 1):
            convolution(f"stage{stage}_conv{number}", filters)
    network.add(layers.GlobalAveragePooling2D(name="pool"))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities"))
    return network


NETWORK = Network(
    name="compact",
    text="Plain convolutions at low resolution, for the smallest devices.",
    build=build,
    parameters=437_159,
    multiply_adds=27_003_776,
)
