"""A data set as two .npy files side by side, images and labels, told apart by their shapes."""

from __future__ import annotations

from pathlib import Path

from fertools.data import arrays, partition
from fertools.data.dataset import Dataset
from fertools.errors import DataError


def read(path: Path, seed: int) -> Dataset:
    """Read the pair that a file belongs to and split it 80/20 into train and test, drawn with the seed.

    Arguments:
        path: either file. Its folder holds one other .npy file. One of the two has three or four
            dimensions, the images; what both may hold: ``arrays.as_images`` and ``arrays.as_labels``.
        seed: draws the split, the same share of every class.

    Raises:
        DataError: there is no such pair, or a file is damaged or of another dtype, shape or range.
    """
    folder = path.parent
    pair = sorted(other for other in folder.iterdir() if other.suffix.lower() == ".npy")
    if len(pair) != 2:
        raise DataError(
            f"{folder}: holds {len(pair)} .npy files ({', '.join(other.name for other in pair)}); "
            "keep a pair, images and labels, in a folder of its own"
        )
    stored = [(arrays.load(other)[""], other) for other in pair]
    stored.sort(key=lambda item: item[0].ndim)
    (labels, labels_path), (images, images_path) = stored
    if labels.ndim > 2 or images.ndim < 3:
        raise DataError(
            f"{folder}: cannot tell images from labels: {pair[0].name} and {pair[1].name} have the shapes "
            f"{labels.shape} and {images.shape}; store images (n, 48, 48) and labels (n,) or (n, 7)"
        )
    faces, codes = arrays.as_images(images, str(images_path)), arrays.as_labels(labels, str(labels_path))
    arrays.check_rows(faces, codes, folder)
    return partition.with_drawn_test(folder.resolve().name, faces, codes, seed)
