"""Random splits for sources that have none."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.data.dataset import SPLITS, Bytes, Dataset, image_ids

TRAIN, VALIDATION, TEST = range(len(SPLITS))

TEST_SHARE: Final = 0.2
VALIDATION_SHARE: Final = 0.1


def draw(images: Bytes, labels: Bytes, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Draw the same share of every class. Byte-identical images are drawn together, or not at all.

    Arguments:
        images: uint8 (n, 48, 48).
        labels: uint8 (n,); of copies, that of the first counts.
        share: 0..1, rounded to whole images in each class, without copies; a class of two or more images
            gives at least one and keeps at least one.
        seed: the same seed draws the same images.

    Returns:
        bool (n,), true where drawn.
    """
    random = np.random.default_rng(seed)
    _, firsts, originals = np.unique(image_ids(images), return_index=True, return_inverse=True)
    codes = labels[firsts]
    drawn = np.zeros(len(codes), dtype=np.bool_)
    for label in np.unique(codes):
        rows = random.permutation(np.flatnonzero(codes == label))
        count = round(share * len(rows))
        drawn[rows[: min(max(count, 1), len(rows) - 1)]] = True
    return drawn[originals]


def with_drawn_test(name: str, images: Bytes, labels: Bytes, seed: int) -> Dataset:
    """Make a data set from a source without splits: 80% train and 20% test.

    Raises:
        DataError: an array's dtype, shape or values are not those of a ``Dataset``.
    """
    drawn = draw(images, labels, TEST_SHARE, seed)
    usage = np.where(drawn, TEST, TRAIN).astype(np.uint8)
    note = f"test: {np.count_nonzero(drawn):,} of {len(drawn):,} images drawn, stratified, seed {seed}"
    return Dataset(name, images, labels, usage, (note,))


def with_carved_validation(dataset: Dataset, seed: int) -> Dataset:
    """Move 10% of train to validation, unless there are validation images or train is empty."""
    train = np.flatnonzero(dataset.usage == TRAIN)
    if not train.size or (dataset.usage == VALIDATION).any():
        return dataset
    usage = dataset.usage.copy()
    drawn = draw(dataset.images[train], dataset.labels[train], VALIDATION_SHARE, seed)
    usage[train[drawn]] = VALIDATION
    count = np.count_nonzero(drawn)
    note = f"validation: {count:,} of {len(train):,} train images carved out, stratified, seed {seed}"
    return Dataset(dataset.name, dataset.images, dataset.labels, usage, (*dataset.notes, note))
