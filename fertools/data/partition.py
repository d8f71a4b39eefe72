"""Random splits for sources that have none."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.data.dataset import SPLITS, Bytes, Dataset

TRAIN, VALIDATION, TEST = range(len(SPLITS))

TEST_SHARE: Final = 0.2
VALIDATION_SHARE: Final = 0.1


def draw(labels: Bytes, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the same share of every class.

    Arguments:
        labels: uint8 (n,).
        share: 0..1, rounded to whole images in each class; a class of two or more images
            gives at least one and keeps at least one.
        seed: the same seed draws the same images.

    Returns:
        bool (n,), true where drawn.
    """
    random = np.random.default_rng(seed)
    drawn = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        count = round(share * len(rows))
        drawn[rows[: min(max(count, 1), len(rows) - 1)]] = True
    return drawn


def with_drawn_test(name: str, images: Bytes, labels: Bytes, seed: int) -> Dataset:
    """Make a data set from a source without splits: 80% train and 20% test.

    Raises:
        DataError: an array's dtype, shape or values are not those of a ``Dataset``.
    """
    usage = np.where(draw(labels, TEST_SHARE, seed), TEST, TRAIN).astype(np.uint8)
    note = f"test: {TEST_SHARE:.0%} of the images drawn, stratified, seed {seed}"
    return Dataset(name, images, labels, usage, (note,))


def with_carved_validation(dataset: Dataset, seed: int) -> Dataset:
    """Move 10% of train to validation, unless there are validation images or train is empty."""
    train = np.flatnonzero(dataset.usage == TRAIN)
    if not train.size or (dataset.usage == VALIDATION).any():
        return dataset
    usage = dataset.usage.copy()
    usage[train[draw(dataset.labels[train], VALIDATION_SHARE, seed)]] = VALIDATION
    note = f"validation: {VALIDATION_SHARE:.0%} of train carved out, stratified, seed {seed}"
    return Dataset(dataset.name, dataset.images, dataset.labels, usage, (*dataset.notes, note))
