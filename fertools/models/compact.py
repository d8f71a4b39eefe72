"""``compact``, for the smallest devices, and ``large``, with twice its filters: plain convolutions.

They are at low resolution and 3x3, because such gain most from int8 kernels: depthwise ones and those at the
full 48x48 pixels hardly do. The first convolution therefore strides at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network

if TYPE_CHECKING:
    from collections.abc import Sequence

    import keras

#: Kernel size and stride of the first convolution: 48x48 -> 24x24.
STEM = (5, 2)


def build(name: str, stem: int, stages: Sequence[Sequence[int]]) -> keras.Sequential:
    """Build a network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.

    Arguments:
        name: of the network.
        stem: filters of the first convolution.
        stages: filters of the 3x3 convolutions of each stage, at 24x24, 12x12, 6x6 ... pixels.
    """
    from keras import Sequential, layers

    network = Sequential([layers.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")], name=name)

    def convolution(name: str, filters: int, size: int = 3, stride: int = 1) -> None:
        network.add(layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name))
        network.add(layers.BatchNormalization(name=f"{name}_norm"))
        network.add(layers.Activation("relu", name=f"{name}_relu"))

    convolution("stem", stem, *STEM)
    for stage, widths in enumerate(stages, 1):
        if stage > 1:
            network.add(layers.MaxPooling2D(2, name=f"stage{stage}_pool"))
        for number, filters in enumerate(widths, 1):
            convolution(f"stage{stage}_conv{number}", filters)
    network.add(layers.GlobalAveragePooling2D(name="pool"))
    network.add(layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities"))
    return network


NETWORKS = (
    Network(
        name="compact",
        text="Plain convolutions at low resolution, for the smallest devices.",
        build=partial(build, "compact", 32, ((32,), (64, 64), (128, 128, 128))),
        parameters=437_159,
        multiply_adds=27_003_776,
    ),
    Network(
        name="large",
        text="compact with twice the filters and one convolution more, for servers and as a teacher.",
        build=partial(build, "large", 64, ((64, 64), (128, 128), (256, 256, 256))),
        parameters=1_777_735,
        multiply_adds=128_325_376,
    ),
)
