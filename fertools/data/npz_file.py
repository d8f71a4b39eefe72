"""A data set as one .npz file: arrays ``images``, ``labels`` and ``usage``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fertools.data import arrays, partition
from fertools.data.dataset import SPLITS, Dataset
from fertools.errors import DataError


def read(path: Path, seed: int) -> Dataset:
    """Read the arrays ``images`` and ``labels``, and ``usage`` where there is one.

    A file without ``usage`` is split 80/20 into train and test, drawn with the seed.

    Raises:
        DataError: the file is damaged, or lacks an array, or one has another dtype, shape or range.
    """
    stored = arrays.load(path)
    missing = [name for name in ("images", "labels") if name not in stored]
    if missing:
        raise DataError(
            f"{path}: no array named {' or '.join(missing)} (it holds {', '.join(stored) or 'none'}); "
            "store images (n, 48, 48), labels (n,) and usage (n,)"
        )
    images = arrays.as_images(stored["images"], f"{path}, images")
    labels = arrays.as_labels(stored["labels"], f"{path}, labels")
    arrays.check_rows(images, labels, path)
    if "usage" not in stored:
        return partition.with_drawn_test(path.name, images, labels, seed)
    usage = arrays.as_codes(stored["usage"], len(SPLITS), f"{path}, usage")
    arrays.check_rows(images, usage, path)
    return Dataset(path.name, images, labels, usage)


def write(dataset: Dataset, path: Path) -> None:
    """Write the three arrays. The same data set gives the same bytes.

    Nothing is compressed: deflate saves 5% of FER2013 and makes reading several times slower.
    """
    with path.open("wb") as file:
        np.savez(file, images=dataset.images, labels=dataset.labels, usage=dataset.usage)
