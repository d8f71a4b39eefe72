"""Batches of uint8 faces in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fertools.contract import LABELS
from fertools.data import Split


def class_weights(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Weights float32 (7,) that give every class present the same total; their mean over images is 1."""
    counts = np.bincount(labels, minlength=len(LABELS))
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Shuffled training batches: uint8 (b, 48, 48, 1), one-hot float32 (b, 7), weights float32 (b,).

    The order of an epoch depends on the seed and the epoch alone, whether the run was interrupted or not;
    ``fit`` must get ``shuffle=False``, or it shuffles the batches again, from Python's random state.
    The last incomplete batch is left out, so that every step has one shape and compiles once.

    Arguments:
        split: the training images.
        batch_size: images a batch; cut to the size of the split.
        balance: "none", "weights" (see ``class_weights``) or "oversample" (classes drawn equally often).
        seed: the run's seed.
    """

    def __init__(self, split: Split, *, batch_size: int, balance: str, seed: int) -> None:
        super().__init__()
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.seed = seed
        weights = class_weights(split.labels)
        self.weights = weights if balance == "weights" else np.ones(len(LABELS), np.float32)
        self.chances = None
        if balance == "oversample":
            chances = weights[split.labels].astype(np.float64)
            self.chances = chances / chances.sum()
        self.order: NDArray[np.intp]
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Put the images in the order of ``epoch``, counted from 0."""
        generator = np.random.default_rng([self.seed, epoch])
        count = len(self.split)
        if self.chances is None:
            self.order = generator.permutation(count)
        else:
            self.order = generator.choice(count, size=count, p=self.chances)

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        labels = self.split.labels[chosen]
        one_hot = np.eye(len(LABELS), dtype=np.float32)[labels]
        return self.split.images[chosen][..., None], one_hot, self.weights[labels]
