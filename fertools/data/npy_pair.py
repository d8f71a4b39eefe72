"""A data set as two .npy files side by side, images and labels, told apart by their shapes."""

from __future__ import annotations

from pathlib import Path

from fertools.contract import LABELS
from fertools.data import arrays, partition
from fertools.data.arrays import Array
from fertools.data.dataset import Dataset
from fertools.errors import DataError


def read(path: Path, seed: int) -> Dataset:
    """Read the pair that a file belongs to and split it 80/20 into train and test, drawn with the seed.

    Arguments:
        path: the folder, or either file in it. The images have three or four dimensions, the labels one or
            two; ``arrays.as_images`` and ``arrays.as_labels`` say what they may hold. Further .npy files may
            be there if no other two fit together by their shapes; the notes name them.
        seed: draws the split, the same share of every class.

    Raises:
        DataError: there is no such pair, or a file is damaged or of another dtype, shape or range.
    """
    folder = path if path.is_dir() else path.parent
    stored = {
        other: arrays.load_one(other)
        for other in sorted(folder.iterdir())
        if other.suffix.lower() == ".npy" and not other.name.startswith(".")
    }
    pairs = [
        (images, labels)
        for images, faces in stored.items()
        for labels, codes in stored.items()
        if faces.ndim >= 3 and codes.ndim in (1, 2) and (len(stored) == 2 or _fit(faces, codes))
    ]
    if len(pairs) != 1 or path not in (folder, *pairs[0]):
        held = ", ".join(f"{other.name} {array.shape}" for other, array in stored.items())
        why = "several pairs of images and labels" if len(pairs) > 1 else "no pair of images and labels"
        if len(pairs) == 1:
            why = f"{path.name} beside a pair of images and labels"
        raise DataError(
            f"{folder}: holds {why} ({held}); keep images (n, 48, 48) and labels (n,) or (n, 7) in a folder"
            " of their own"
        )
    ((images_path, labels_path),) = pairs
    faces = arrays.as_images(stored[images_path], str(images_path))
    codes = arrays.as_labels(stored[labels_path], str(labels_path))
    arrays.check_rows(faces, codes, folder)
    dataset = partition.with_drawn_test(folder.resolve().name, faces, codes, seed)
    others = [f"{other.name} {array.shape}" for other, array in stored.items() if other not in pairs[0]]
    if others:
        note = f"read: {images_path.name} and {labels_path.name}, the only two whose shapes fit together;"
        dataset = dataset.with_note(f"{note} left out: {', '.join(others)}")
    return dataset


def _fit(images: Array, labels: Array) -> bool:
    """Whether these can be images and their labels."""
    return len(images) == len(labels) and (labels.ndim == 1 or labels.shape[1] in (1, len(LABELS)))
