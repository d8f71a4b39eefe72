"""Detect the format of a source and read it; write a data set in the format of a destination's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from fertools import files
from fertools.data import csv_file, image_folder, npy_pair, npz_file, partition, synthetic
from fertools.data.dataset import Dataset
from fertools.errors import DataError
from fertools.reading import reason

Source = str | os.PathLike[str]

_READERS: Final[dict[str, Callable[[Path, int], Dataset]]] = {
    ".csv": csv_file.read,
    ".npz": npz_file.read,
    ".npy": npy_pair.read,
}

_WRITERS: Final[dict[str, Callable[[Dataset, Path], None]]] = {".csv": csv_file.write, ".npz": npz_file.write}

#: Suffixes of the files that can be written.
FILES: Final = tuple(_WRITERS)

#: Suffixes that mean a file and not a folder.
_OTHER_FILES: Final = (".npy", ".png", ".jpg", ".jpeg", ".zip", ".parquet")

#: Names under which the contest's data is distributed; preferred to other CSV files of a folder.
_CSV_NAMES: Final = ("fer2013.csv", "icml_face_data.csv")

_ACCEPTED: Final = (
    "fer2013.csv or icml_face_data.csv, an .npz file, a pair of .npy files, images in folders named by class "
    "(happy/ ..., perhaps within train/ and test/), a folder that holds one of these, or 'synthetic'"
)


def lasting(source: str) -> str:
    """Return ``source`` so that it is found from any folder."""
    return source if source == synthetic.NAME else os.path.abspath(source)


def read(source: Source, *, seed: int = 0) -> Dataset:
    """Read a data set as it is stored; the format is detected.

    Arguments:
        source: ``"synthetic"`` for drawn faces (``./synthetic`` is a path again), or the path of

            * a CSV file with columns ``emotion``, ``pixels``, ``Usage``;
            * an .npz file with arrays ``images``, ``labels``, ``usage``;
            * a folder with ``train/``, ``test/`` and, if any, ``valid/`` of folders named after classes;
            * a folder of folders named after classes, without splits;
            * one of two .npy files, images and labels, or the folder that holds them;
            * a folder that holds one such CSV or .npz file.

        seed: draws the synthetic faces, and an 80/20 train and test split where a source has none (.npy
            files; CSV and .npz files without usage; folders of classes). ``notes`` says so.

    Raises:
        DataError: the source does not exist, is none of these, is two of these, or is damaged.
    """
    if source == synthetic.NAME:
        return synthetic.generate(seed=seed)
    if not isinstance(source, str | os.PathLike):
        raise DataError(f"{source!r}: not the path of a data set; give {_ACCEPTED}")
    dataset = _read(Path(source), seed)
    if dataset.name == synthetic.NAME:  # a folder of this name, whose faces nobody has drawn
        dataset = replace(dataset, name=f"{dataset.name}/")
    return dataset


def _read(path: Path, seed: int) -> Dataset:
    try:
        if path.is_dir():
            if image_folder.has_splits(path):
                return image_folder.read(path, seed)
            if image_folder.has_classes(path):
                if beside := data_file(path):
                    raise DataError(
                        f"{path}: holds a data set ({beside}) and folders named by class; name the data"
                        " set's file, or put the folders into one of their own"
                    )
                return image_folder.read(path, seed)
            path = _only_file(path)
        elif not path.exists():
            raise DataError(f"{path}: no such file or folder; give {_ACCEPTED}")
        reader = npy_pair.read if path.is_dir() else _READERS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path}: not a data set; give {_ACCEPTED}")
        return reader(path, seed)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({reason(error)}); check the path and its permissions"
        ) from error


def load(source: Source, *, seed: int = 0) -> Dataset:
    """Read a data set and, where it has no validation images, carve 10% of train out as validation.

    The images are drawn with the seed, the same share of every class, and ``notes`` says so.

    Raises:
        DataError: as ``read``.
    """
    return partition.with_carved_validation(read(source, seed=seed), seed)


def write(dataset: Dataset, destination: Source, *, overwrite: bool = False) -> None:
    """Write a data set, whole or not at all, such that ``read`` gives the same images in the same order.

    Arguments:
        dataset: what to write; its notes are not kept.
        destination: a path ending in .csv or .npz, or any other path for a folder of PNG files.
        overwrite: replace what is there. A folder that holds anything but splits is never replaced.

    Raises:
        DataError: the destination exists, or cannot be written in any format.
        WriteError: the disk is full, for example, or permissions are missing.
    """
    path = Path(destination)
    check_destination(path, overwrite=overwrite)
    with files.telling(path):
        if writer := _WRITERS.get(path.suffix.lower()):
            with files.replacing(path) as temporary:
                writer(dataset, temporary)
        else:
            with files.replacing_folder(path) as temporary:
                image_folder.write(dataset, temporary)


def check_destination(path: Path, *, overwrite: bool = False) -> None:
    """Check, before any work, that a data set can be written there.

    Raises:
        DataError: as ``write``.
        WriteError: it is the current folder or a mount point.
    """
    with files.telling(path):
        if path.exists() and not overwrite:
            raise DataError(f"{path}: exists already; choose another name or ask to overwrite it")
        if path.suffix.lower() in _OTHER_FILES:
            raise DataError(
                f"{path}: cannot write {path.suffix} files; name a .csv or .npz file, or a folder"
            )
        if path.suffix.lower() in _WRITERS:
            if path.is_dir():
                raise DataError(f"{path}: is a folder; choose another name")
            return
        if path.exists() and not image_folder.holds_only_splits(path):
            raise DataError(
                f"{path}: holds other things than train/, validation/ and test/; choose another name"
            )
    files.check_place(path)


def data_file(folder: Path) -> str | None:
    """Return the name of a data set among the files of a folder of pictures; None if there is none.

    A table beside pictures is often a list of them, so only one that can be read counts.
    """
    found = (each for each in folder.iterdir() if not each.name.startswith("."))
    held = sorted(each for each in found if each.suffix.lower() in _READERS)
    tables = [each for each in held if each.suffix.lower() != ".npy"]
    for path in tables:
        with suppress(DataError, OSError):
            _READERS[path.suffix.lower()](path, 0)
            return path.name
    if tables != held:
        with suppress(DataError, OSError):
            npy_pair.read(folder, 0)
            return "a pair of .npy files"
    return None


def _only_file(folder: Path) -> Path:
    """Return the one data file of a folder, or the folder itself if it holds .npy files."""
    names = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    tables = [path for path in names if path.suffix.lower() == ".csv"]
    known = [path for path in tables if path.name.lower() in _CSV_NAMES]
    found = (known or tables) + [path for path in names if path.suffix.lower() == ".npz"]
    if not found:
        found = [folder] if any(path.suffix.lower() == ".npy" for path in names) else []
    if len(found) != 1:
        several = f"several data files ({', '.join(path.name for path in found)}); name one"
        raise DataError(
            f"{folder}: " + (several if found else f"no data set in this folder; give {_ACCEPTED}")
        )
    return found[0]
