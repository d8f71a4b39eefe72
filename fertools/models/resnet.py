"""Residual networks (He et al. 2015, arXiv:1512.03385), one-channel stem, 7 outputs without bias."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

#: Filters of the four stages; all but the first halve the image.
STAGES = (64, 128, 256, 512)
#: How much wider than its inside a bottleneck block is at its end.
EXPANSION = 4


def build(name: str, blocks: tuple[int, ...], *, bottleneck: bool) -> keras.Model:
    """Build the network with fresh weights under the current dtype policy.

    Arguments:
        name: what it is called.
        blocks: residual blocks of each of the four stages.
        bottleneck: blocks of a 1x1, a 3x3, which strides, and a 1x1 convolution instead of two 3x3 ones.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Input, Model, layers

    def convolution(tensor: Any, name: str, filters: int, size: int, stride: int = 1) -> Any:
        tensor = layers.Conv2D(filters, size, stride, padding="same", use_bias=False, name=name)(tensor)
        return layers.BatchNormalization(name=f"{name}_norm")(tensor)

    def relu(tensor: Any, name: str) -> Any:
        return layers.Activation("relu", name=f"{name}_relu")(tensor)

    image = Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")
    tensor = relu(convolution(image, "stem", 64, 7, 2), "stem")
    tensor = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(tensor)
    for stage, (filters, count) in enumerate(zip(STAGES, blocks, strict=True), 1):
        for number in range(1, count + 1):
            block = f"stage{stage}_block{number}"
            stride = 2 if stage > 1 and number == 1 else 1
            path: tuple[tuple[int, int, int], ...]
            if bottleneck:
                path = ((filters, 1, 1), (filters, 3, stride), (EXPANSION * filters, 1, 1))
            else:
                path = ((filters, 3, stride), (filters, 3, 1))
            shortcut = tensor
            if stride > 1 or tensor.shape[-1] != path[-1][0]:
                shortcut = convolution(tensor, f"{block}_shortcut", path[-1][0], 1, stride)
            for place, (width, size, step) in enumerate(path, 1):
                name_of_it = f"{block}_conv{place}"
                tensor = convolution(tensor, name_of_it, width, size, step)
                if place < len(path):
                    tensor = relu(tensor, name_of_it)
            tensor = relu(layers.Add(name=f"{block}_add")([shortcut, tensor]), block)
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    output = layers.Dense(
        len(LABELS), activation="softmax", use_bias=False, dtype="float32", name="probabilities"
    )(tensor)
    return Model(image, output, name=name)


#: Published with "SGD, learning rate 0.1, 100 epochs": no momentum is told, nor a batch size; this is ours.
ORIGINAL = {"epochs": 100, "batch_size": 128, "optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.1}


def _network(
    depth: int, blocks: tuple[int, ...], parameters: int, multiply_adds: int, published: Published
) -> Network:
    name = f"resnet{depth}"
    return Network(
        name=name,
        text=f"The residual network of {depth} layers.",
        build=partial(build, name, blocks, bottleneck=depth > 34),
        parameters=parameters,
        multiply_adds=multiply_adds,
        published=(published,),
        recipes={"original": ORIGINAL},
    )


NETWORKS = (
    _network(18, (2, 2, 2, 2), 11_183_424, 94_346_752, Published(0.586, "PrivateTest", "100 epochs")),
    _network(50, (3, 4, 6, 3), 23_569_216, 209_307_648, Published(0.483, "PublicTest", "100 epochs")),
    _network(152, (3, 8, 36, 3), 58_303_296, 550_225_920, Published(0.498, "PublicTest", "100 epochs")),
)
