"""Find out what a source is and read it; write a data set in the format that a destination names."""

from __future__ import annotations

import os
from pathlib import Path

from fertools.data import npz_file, partition, synthetic
from fertools.data.dataset import Dataset
from fertools.errors import DataError


def read(source: str | os.PathLike[str], *, seed: int = 0) -> Dataset:
    """Read a data set as it is stored.

    Arguments:
        source: a path.
        seed: draws what a source leaves open.

    Raises:
        DataError: there is nothing at the path, or nothing that can be read.
    """
    if source == synthetic.NAME:
        return synthetic.generate(seed=seed)
    path = Path(source)
    if path.is_dir():
        path = next(path.glob("*.npz"))
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    return npz_file.read(path, seed)


def load(source: str | os.PathLike[str], *, seed: int = 0) -> Dataset:
    """Read a data set and, where it has no validation images, carve 10% of train out as validation.

    The images are drawn with the seed, the same share of every class, and ``notes`` says so.

    Raises:
        DataError: as ``read``.
    """
    return partition.with_carved_validation(read(source, seed=seed), seed)
