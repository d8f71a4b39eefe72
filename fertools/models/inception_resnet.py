"""A small Inception-ResNet for 48x48x1, published as "FaceNet": 21,865,895 parameters.

The blocks are those of Inception-ResNet-v2 (Szegedy et al. 2016, arXiv:1602.07261), behind a stem that
shrinks the image less. No convolution has a bias, no BatchNormalization a scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

#: Convolutions one behind the other: (filters, kernel size), or with "reduce" stride 2 without padding.
Path = tuple[tuple[Any, ...], ...]

#: The residual blocks: how many, their branches, and the factor of the residual.
RESIDUAL: dict[str, tuple[int, tuple[Path, ...], float]] = {
    "a": (4, (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))), 0.15),
    "b": (7, (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))), 0.1),
    "c": (3, (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))), 0.2),
}
#: The branches that halve the image behind blocks A and B, beside a max-pooling.
REDUCTION: dict[str, tuple[Path, ...]] = {
    "a": (((384, 3, "reduce"),), ((256, 1), (256, 3), (384, 3, "reduce"))),
    "b": (
        ((256, 1), (384, 3, "reduce")),
        ((256, 1), (256, 3, "reduce")),
        ((256, 1), (256, 3), (256, 3, "reduce")),
    ),
}
DROPOUT = 0.6


def build() -> keras.Model:
    """Build the network with fresh weights under the current dtype policy.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Input, Model, layers

    def convolution(
        tensor: Any, name: str, filters: int, size: Any, *, stride: int = 1, padding: str = "same"
    ) -> Any:
        tensor = layers.Conv2D(filters, size, stride, padding=padding, use_bias=False, name=name)(tensor)
        return layers.BatchNormalization(scale=False, name=f"{name}_norm")(tensor)

    def unit(tensor: Any, name: str, *arguments: Any, **options: Any) -> Any:
        tensor = convolution(tensor, name, *arguments, **options)
        return layers.Activation("relu", name=f"{name}_relu")(tensor)

    def branches(tensor: Any, name: str, paths: tuple[Path, ...]) -> list[Any]:
        ends = []
        for number, path in enumerate(paths, 1):
            end = tensor
            for place, (filters, size, *reduce) in enumerate(path, 1):
                options = {"stride": 2, "padding": "valid"} if reduce else {}
                end = unit(end, f"{name}_branch{number}_conv{place}", filters, size, **options)
            ends.append(end)
        return ends

    image = Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")
    tensor = unit(image, "stem_conv1", 32, 3, stride=2, padding="valid")
    tensor = unit(tensor, "stem_conv2", 32, 3, padding="valid")
    tensor = unit(tensor, "stem_conv3", 64, 3, padding="valid")
    pooled = layers.MaxPooling2D(3, 1, name="stem_pool1")(tensor)
    tensor = unit(tensor, "stem_conv4", 64, 3, padding="valid")
    tensor = layers.Concatenate(name="stem_join1")([pooled, tensor])
    ends = branches(tensor, "stem", (((64, 1), (64, (1, 7)), (64, (7, 1))), ((64, 1),)))
    ends = [
        unit(end, f"stem_branch{number}_last", 96, 3, padding="valid") for number, end in enumerate(ends, 1)
    ]
    tensor = layers.Concatenate(name="stem_join2")(ends)
    pooled = layers.MaxPooling2D(3, 1, name="stem_pool2")(tensor)
    tensor = unit(tensor, "stem_conv5", 192, 3, padding="valid")
    tensor = layers.Concatenate(name="stem_join3")([tensor, pooled])
    for kind, (count, paths, factor) in RESIDUAL.items():
        for number in range(1, count + 1):
            name = f"{kind}{number}"
            residual = layers.Concatenate(name=f"{name}_join")(branches(tensor, name, paths))
            residual = convolution(residual, f"{name}_out", tensor.shape[-1], 1)
            residual = layers.Rescaling(factor, name=f"{name}_scaled")(residual)
            tensor = layers.Add(name=f"{name}_add")([tensor, residual])
        if kind in REDUCTION:
            name = f"reduction_{kind}"
            pooled = layers.MaxPooling2D(3, 2, name=f"{name}_pool")(tensor)
            ends = branches(tensor, name, REDUCTION[kind])
            tensor = layers.Concatenate(name=f"{name}_join")([pooled, *ends])
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    tensor = layers.Dropout(DROPOUT, name="pool_dropout")(tensor)
    output = layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities")(tensor)
    return Model(image, output, name="inception-resnet")


COMMON = {
    "epochs": 30,
    "batch_size": 64,
    "optimizer": "adam",
    "schedule": "plateau",
    "augmentation": "zoom30",
}
NETWORK = Network(
    name="inception-resnet",
    text='A small Inception-ResNet, known as "FaceNet".',
    build=build,
    parameters=21_865_895,
    multiply_adds=792_223_520,
    published=(Published(0.606, "a random 20% of all images", "30 epochs"),),
    recipes={
        "original": {
            **COMMON,
            "learning_rate": 0.0001,
            "learning_rate_decay": 1e-6,
            "plateau_factor": 0.5,
            "plateau_patience": 6,
        },
        # The other schedule that was published with it, without a result.
        "original-steps": {
            **COMMON,
            "learning_rate": 0.001,
            "learning_rate_steps": "5:0.3,30:0.1,60:0.05,90:0.01",
            "plateau_factor": 0.316,
            "plateau_patience": 5,
        },
    },
)
