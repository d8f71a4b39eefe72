"""Networks of ``keras.applications`` with a new head, at 200x200 RGB; published with ImageNet's weights."""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from fertools.contract import IMAGE_SIZE, LABELS, PIXEL_MAX
from fertools.models.network import Network, Published

if TYPE_CHECKING:
    import keras

SIZE = 200
UNITS = (1024, 1024)
DROPOUT = 0.5
#: Scale and offset of 0..1 pixels, by the names that ``keras.applications`` has for them. The means of
#: "caffe" are blue, green and red; the channels need no swap, since all three are equal.
NORMALIZATION: dict[str, tuple[float, Any]] = {
    "caffe": (PIXEL_MAX, [-103.939, -116.779, -123.68]),
    "tf": (2.0, -1.0),
}

#: Names that Keras gives by itself.
UNNAMED = re.compile(
    "(conv2d|batch_normalization|activation|max_pooling2d|average_pooling2d|concatenate|custom_scale_layer)"
    r"(?:_\d+)?"
)
ENSEMBLE = "the four with equal weights"


def build(name: str, application: str, mode: str, weights: str | None = None) -> keras.Model:
    """Build the network under the current dtype policy.

    Arguments:
        name: what it is called.
        application: the function of ``keras.applications`` that builds it without its top.
        mode: one of ``NORMALIZATION``, what ImageNet's weights expect.
        weights: None for fresh ones; for ImageNet's below the head "imagenet", which Keras may download, or
            the file that it would.

    Input: float32 (batch, 48, 48, 1) in 0..1. Output: float32 (batch, 7) probabilities.
    """
    from keras import Input, Model, applications, layers

    image = Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="scaled_image")
    # In float32 under every policy, and resized before the channels are copied: a third of the work.
    tensor = layers.Resizing(SIZE, SIZE, interpolation="bilinear", dtype="float32", name="resize")(image)
    tensor = layers.Concatenate(dtype="float32", name="three_channels")([tensor, tensor, tensor])
    scale, offset = NORMALIZATION[mode]
    tensor = layers.Rescaling(scale, offset, dtype="float32", name="normalize")(tensor)
    base = getattr(applications, application)(include_top=False, weights=weights, input_tensor=tensor)
    _name_layers(base)
    tensor = layers.BatchNormalization(name="features_norm")(base.output)
    tensor = layers.GlobalAveragePooling2D(name="pool")(tensor)
    tensor = layers.Dropout(DROPOUT, name="pool_dropout")(tensor)
    for number, units in enumerate(UNITS, 1):
        tensor = layers.Dense(units, activation="relu", name=f"dense{number}")(tensor)
        tensor = layers.BatchNormalization(name=f"dense{number}_norm")(tensor)
        tensor = layers.Dropout(DROPOUT, name=f"dense{number}_dropout")(tensor)
    output = layers.Dense(len(LABELS), activation="softmax", dtype="float32", name="probabilities")(tensor)
    return Model(image, output, name=name)


def _name_layers(base: keras.Model) -> None:
    """Number the layers that Keras has named: it counts on with every network that a process builds."""
    counts: Counter[str] = Counter()
    for layer in base.layers:
        if found := UNNAMED.fullmatch(layer.name):
            counts[found[1]] += 1
            layer.name = f"{found[1]}_{counts[found[1]]}"


def _network(
    application: str, mode: str, parameters: int, multiply_adds: int, learning_rate: float = 0.0005
) -> Network:
    name = f"transfer-{application.lower()}"
    return Network(
        name=name,
        text=f"{application} with a new head.",
        build=partial(build, name, application, mode),
        pretrained=partial(build, name, application, mode),
        parameters=parameters,
        multiply_adds=multiply_adds,
        input=f"{SIZE}x{SIZE}x3, ImageNet ({mode})",
        published=(
            Published(0.7275, "PublicTest", "at most 50 epochs", ENSEMBLE),
            Published(0.7378, "PrivateTest", "at most 50 epochs", ENSEMBLE),
        ),
        recipes={
            "original": {
                "epochs": 50,
                "batch_size": 32,
                "optimizer": "adam",
                "learning_rate": learning_rate,
                "learning_rate_decay": 0.001,
                "augmentation": "zoom10",
                "early_stopping": 10,
            }
        },
    )


NETWORKS = (
    _network("VGG16", "caffe", 16_307_015, 12_149_115_904),
    _network("ResNet50", "caffe", 26_759_047, 3_315_804_160),
    _network("InceptionV3", "tf", 24_974_119, 2_068_088_416),
    _network("InceptionResNetV2", "tf", 56_981_735, 4_634_193_504, learning_rate=0.0001),
)
