"""A finished run of a network that trains in seconds, for tests of what comes after training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fertools import data
from fertools.data import Dataset
from fertools.training import TrainConfig

#: Images of each split; so many of the test images also stand in train.
COUNTS = (1400, 70, 350)
SEEN = 7


def small_faces() -> Dataset:
    """Drawn faces, a few of them in two splits."""
    drawn = data.synthetic.generate(*COUNTS, seed=3)
    images = drawn.images.copy()
    images[-SEEN:] = images[:SEEN]
    return Dataset("small", images, drawn.labels, drawn.usage)


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


def trained_network(faces: Dataset) -> Any:
    """The small network after a few seconds of training: far better than chance, and sure of itself."""
    import keras

    keras.utils.set_random_seed(0)
    network = small_network()
    network.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    train = faces.split("train")
    network.fit(train.images[..., None] / np.float32(255), train.labels, batch_size=35, epochs=6, verbose=0)
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
        },
        "metrics.json": {"best_epoch": 5, "epochs": 6, "seconds": 3.0, "validation": {"accuracy": 0.75}},
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    network.save(folder / "best.keras")
    return folder
