"""Batches of training images in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fertools.contract import LABELS
from fertools.data import Split
from fertools.training.parallel import own_part


def class_weights(labels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return weights float32 (7,) that give each present class the same total, with mean 1 over images."""
    counts = np.bincount(labels, minlength=len(LABELS))
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Shuffled training batches: inputs, one-hot float32 (b, 7), weights float32 (b,).

    The inputs are "number", int32 (b,), the indices of the images in the split, and with mixup "share",
    float32 (b,), how much of itself each image keeps; the rest comes from the image before it in the batch.
    "weight" repeats the weights, for the part of the loss that is computed inside the network.
    The order of an epoch depends on the seed and the epoch alone, whether the run was interrupted or not;
    ``fit`` must get ``shuffle=False``, or it shuffles the batches again, from Python's random state.
    The last incomplete batch is left out, so that every step has one shape and compiles once.
    With several processes, each gets its part of every batch.

    Arguments:
        split: the training images.
        batch_size: images per batch; at most the size of the split.
        balance: "none", "weights" (see ``class_weights``) or "oversample" (classes drawn equally often).
        mixup: shares are drawn from Beta(mixup, mixup); 0 is no mixup.
        seed: the run's seed.
        weighs_inside: whether the inputs hold "weight".
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        balance: str,
        mixup: float,
        seed: int,
        weighs_inside: bool = False,
    ) -> None:
        super().__init__()
        self.split = split
        self.batch_size = min(batch_size, len(split))
        self.part = own_part(self.batch_size)
        self.mixup = mixup
        self.seed = seed
        self.weighs_inside = weighs_inside
        weights = class_weights(split.labels)
        self.weights = weights if balance == "weights" else np.ones(len(LABELS), np.float32)
        self.chances = None
        if balance == "oversample":
            chances = weights[split.labels].astype(np.float64)
            self.chances = chances / chances.sum()
        self.order: NDArray[np.int32]
        self.shares: NDArray[np.float32]
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Put the images in the order of ``epoch``, counted from 0, and draw their shares."""
        generator = np.random.default_rng([self.seed, epoch])
        count = len(self.split)
        if self.chances is None:
            order = generator.permutation(count)
        else:
            order = generator.choice(count, size=count, p=self.chances)
        self.order = order.astype(np.int32)
        if self.mixup:
            self.shares = generator.beta(self.mixup, self.mixup, count).astype(np.float32)

    def __len__(self) -> int:
        return len(self.split) // self.batch_size

    def __getitem__(self, index: int) -> tuple[Any, Any, Any]:
        place = slice(index * self.batch_size, (index + 1) * self.batch_size)
        numbers = self.order[place]
        inputs: dict[str, NDArray[Any]] = {"number": numbers}
        labels = self.split.labels[numbers]
        targets, weights = np.eye(len(LABELS), dtype=np.float32)[labels], self.weights[labels]
        if self.mixup:
            inputs["share"] = shares = self.shares[place]
            # Each of the two labels keeps its own weight: the blended one is that of their sum.
            targets, weights = blend(weights[:, None] * targets, shares[:, None]), blend(weights, shares)
            targets /= weights[:, None]
        if self.weighs_inside:
            inputs["weight"] = weights
        part = self.part
        return {name: values[part] for name, values in inputs.items()}, targets[part], weights[part]


def for_fit(batches: Batches) -> Any:
    """Return what ``fit`` should get for ``batches``: on TensorFlow, a ``tf.data`` pipeline of them.

    Keras would make one itself that tunes its performance. The thread that tunes wakes after twice the time
    that it slept before, up to a minute, and the end of an epoch waits for it.
    """
    if keras.backend.backend() != "tensorflow":
        return batches
    import tensorflow as tf

    def in_order() -> Iterator[tuple[Any, Any, Any]]:
        return (batches[index] for index in range(len(batches)))

    signature = tf.nest.map_structure(lambda array: tf.TensorSpec(array.shape, array.dtype), next(in_order()))
    options = tf.data.Options()
    options.autotune.enabled = False
    pipeline = tf.data.Dataset.from_generator(in_order, output_signature=signature)
    pipeline = pipeline.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return pipeline.prefetch(2).with_options(options)


def blend(values: NDArray[np.float32], shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blend each value with the one before it, by its share, as ``network.Mixup`` does."""
    return shares * values + (1 - shares) * np.roll(values, 1, axis=0)
