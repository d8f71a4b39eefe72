"""A finished run of a small network whose answers are known, and other networks, to export and verify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fertools import data
from fertools.data import Dataset
from fertools.training import TrainConfig

#: Images of each split; this many of the test images are also in train.
COUNTS = (1400, 70, 350)
SEEN = 7
#: One label in this many is wrong.
WRONG = 5
#: For ``fertools.export.rounding.MOST_WEIGHTS``: larger layers would take a minute.
MOST_WEIGHTS = 1200


def barred_faces(*counts: int) -> Dataset:
    """Drawn faces, each with two bars at the height of its class, which make it obvious to any network."""
    drawn = data.synthetic.generate(*counts, seed=3)
    images = drawn.images.copy()
    images[..., :6] = images[..., -6:] = 0
    for image, label in zip(images, drawn.labels, strict=True):
        rows = slice(6 * label + 3, 6 * label + 9)
        image[rows, :6] = image[rows, -6:] = 255
    return Dataset("barred", images, drawn.labels, drawn.usage)


def small_faces() -> Dataset:
    """Barred faces, some of them in two splits, with wrong labels that make ``fitted_network`` 80% right.

    No answer of it is a close call, which rounding could turn.
    """
    faces = barred_faces(*COUNTS)
    images, labels = faces.images.copy(), faces.labels.copy()
    images[-SEEN:] = images[:SEEN]
    labels[::WRONG] = (labels[::WRONG] + 1) % 7
    return Dataset("small", images, labels, faces.usage)


def small_network() -> Any:
    """Two convolutions and a dense layer, all with BatchNormalization, and dropout: 20,167 parameters."""
    from keras import Sequential, layers

    network = Sequential([layers.Input((48, 48, 1))], name="small")
    for filters, stride in ((8, 2), (16, 1)):
        network.add(layers.Conv2D(filters, 3, strides=stride, padding="same"))
        network.add(layers.BatchNormalization(momentum=0.9))
        network.add(layers.Activation("relu"))
        network.add(layers.MaxPooling2D(2))
        network.add(layers.Dropout(0.1))
    network.add(layers.Flatten())
    network.add(layers.Dense(32))
    network.add(layers.BatchNormalization(momentum=0.9))
    network.add(layers.Activation("relu"))
    network.add(layers.Dropout(0.1))
    network.add(layers.Dense(7, activation="softmax"))
    return network


def fitted_network(faces: Dataset) -> Any:
    """The small network with solved weights: right except for the wrong labels, and overconfident.

    Nothing is trained, whose outcome would differ from processor to processor: the convolutions are random,
    each dense layer's columns for the classes are a ridge regression on what it is given.
    """
    import keras

    from fertools.training.network import estimate_statistics

    keras.utils.set_random_seed(0)
    network = small_network()
    images = faces.split("train").images
    drawn = np.arange(len(images)) % 7  # the classes, before some were mixed up
    hidden, last = (layer for layer in network.layers if isinstance(layer, keras.layers.Dense))
    for layer, scale in ((hidden, 1.0), (last, 4.0)):
        estimate_statistics(network, images)
        solve(network, layer, images, drawn, scale)
    return network


def solve(network: Any, layer: Any, images: np.ndarray, classes: np.ndarray, scale: float) -> None:
    """Set the first seven columns of a dense layer to a ridge regression on its input.

    Its answers for ``images``, uint8 (n, 48, 48), are then near 6/7 of ``scale`` in the column of the image's
    class and minus 1/7 of it in the others.
    """
    import keras

    features = keras.Model(network.inputs[0], layer.input)
    given = features.predict(images[..., None] / np.float32(255), verbose=0).astype(np.float64)
    mean = given.mean(axis=0)
    given -= mean
    products = given.T @ given
    penalty = 1e-3 * np.trace(products) * np.eye(len(products))
    solved = np.linalg.solve(products + penalty, given.T @ (np.eye(7)[classes] - 1 / 7))
    kernel, *bias = layer.get_weights()
    if bias:
        bias[0][:7] = -scale * (mean @ solved)
    else:
        solved -= np.outer(mean, mean @ solved) / (mean @ mean)  # blind to what all have in common
    kernel[:, :7] = scale * solved
    layer.set_weights([kernel, *bias])


def lopsided(network: Any) -> Any:
    """Make one channel of the small network 4,096 times the others; the answers stay the same.

    They share one scale in int8, which leaves nothing of the others.
    """
    from keras import layers

    _, norm, _ = (layer for layer in network.layers if isinstance(layer, layers.BatchNormalization))
    dense = next(layer for layer in network.layers if isinstance(layer, layers.Dense))
    channels = norm.gamma.shape[0]
    scale = np.ones(channels, np.float32)
    scale[0] = 4096
    norm.gamma.assign(norm.gamma.numpy() * scale)
    norm.beta.assign(norm.beta.numpy() * scale)
    kernel = dense.kernel.numpy().reshape(-1, channels, dense.units)
    dense.kernel.assign((kernel / scale[:, None]).reshape(-1, dense.units))
    return network


def write_run(folder: Path, network: Any, faces: Dataset) -> Path:
    """A run folder as training leaves it, and its data beside it in ``<folder>.npz``. Returns the folder."""
    source = folder.with_suffix(".npz")
    folder.mkdir(parents=True)
    data.write(faces, source)
    faces = data.load(source)
    counts = {name: int((faces.usage == code).sum()) for code, name in enumerate(data.SPLITS)}
    documents = {
        "config.json": TrainConfig(epochs=6, batch_size=35, device="cpu").to_dict(),
        "run.json": {
            "schema_version": 1,
            "data": {
                "source": str(source),
                "name": faces.name,
                "fingerprint": faces.fingerprint,
                "images": counts,
                "notes": list(faces.notes),
            },
            "device": {"backend": "tensorflow", "kind": "cpu", "name": "some CPU", "has_bfloat16": False},
            "precision": "float32",
            "versions": {"python": "3.11.0"},
            "commands": ["fertools train --data SRC --out small --epochs 6 --batch-size 35 --device cpu"],
        },
        "metrics.json": {"best_epoch": 5, "epochs": 6, "seconds": 3.0, "validation": {"accuracy": 0.75}},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    network.save(folder / "best.keras")
    return folder


def randomize(network: Any, seed: int = 0) -> Any:
    """Give biases, and the statistics, scales and offsets of norms, values far from 0 and 1."""
    from keras import layers

    random = np.random.default_rng(seed)
    for layer in network.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(random.normal(0, 0.5, size))
            layer.moving_variance.assign(random.uniform(0.2, 3, size))
            if layer.scale:
                layer.gamma.assign(random.uniform(-1.5, 1.5, size))
            if layer.center:
                layer.beta.assign(random.normal(0, 0.5, size))
    return network


def decisive(network: Any, faces: np.ndarray) -> Any:
    """Give the last layer weights so that the answers for ``faces`` differ without being all or nothing."""
    import keras

    last = network.layers[-1]
    features = keras.Model(network.inputs[0], last.input).predict(
        faces[..., None] / np.float32(255), verbose=0
    )
    kernel, *bias = last.get_weights()
    mean = features.mean(axis=0)
    kernel -= np.outer(mean, mean @ kernel) / (mean @ mean)  # blind to what all have in common
    last.set_weights([kernel * (4 / np.ptp(features @ kernel)), *bias])
    return network


def branched() -> Any:
    """A network whose norm "plain" can be folded, and the others not, for the reasons in their names."""
    import keras
    from keras import layers

    image = keras.Input((12, 12, 1))
    trunk = layers.Conv2D(4, 3, padding="same")(image)
    trunk = layers.BatchNormalization(name="plain")(trunk)
    forked = layers.Conv2D(4, 3, padding="same")(trunk)
    left = layers.BatchNormalization(name="behind_a_fork")(forked)
    summed = layers.Add()([left, forked])
    summed = layers.BatchNormalization(name="behind_an_add")(summed)
    bent = layers.Conv2D(4, 3, activation="relu")(summed)
    bent = layers.BatchNormalization(name="behind_an_activation")(bent)
    shared = layers.BatchNormalization(name="shared")
    first = shared(layers.Conv2D(3, 1)(bent))
    second = shared(layers.Activation("tanh")(layers.Conv2D(3, 1)(bent)))
    merged = layers.Concatenate()([first, second])
    # As many rows as channels: only the axis distinguishes them.
    rows = layers.Conv2D(10, 1)(merged)
    rows = layers.BatchNormalization(axis=1, name="along_rows")(rows)
    flat = layers.Flatten()(layers.SpatialDropout2D(0.3)(rows))
    return keras.Model(image, layers.Dense(7, activation="softmax")(flat))


def run_onnxruntime(model: onnx.ModelProto, faces: np.ndarray) -> np.ndarray:
    """float32 (n, 7) of uint8 (n, 48, 48), on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": faces[..., None]})[0]
