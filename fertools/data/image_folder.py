"""Folders of image files: ``train/happy/1.png``. Names tell split and class, never alphabetical positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data.dataset import SPLITS, Dataset
from fertools.errors import DataError, ImageError

#: Accepted folder names in lower case -> usage code.
SPLIT_NAMES: Final = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}

#: Accepted folder names in lower case -> label: class names, their usual other spellings, digits.
CLASS_NAMES: Final = (
    {name.lower(): label for label, name in enumerate(LABELS)}
    | {"anger": 0, "disgusted": 1, "fearful": 2, "happiness": 3, "sadness": 4, "surprised": 5}
    | {str(label): label for label in range(len(LABELS))}
)

#: Files that operating systems leave behind; these and hidden files are ignored.
_LITTER: Final = ("thumbs.db", "desktop.ini")

#: A file name written here: the row in eight digits.
_ROW_DIGITS: Final = 8


def recognises(folder: Path) -> bool:
    """Whether the folder holds a ``train`` or ``test`` folder."""
    return any(path.name.lower() in ("train", "test") and path.is_dir() for path in folder.iterdir())


def truth(file: PurePath) -> tuple[str, str] | None:
    """Return split and class of a path such as ``train/happy/1.png``, as in ``SPLITS`` and ``LABELS``."""
    parts = [part.lower() for part in file.parts[-3:-1]]
    if len(parts) < 2 or parts[0] not in SPLIT_NAMES or parts[1] not in CLASS_NAMES:
        return None
    return SPLITS[SPLIT_NAMES[parts[0]]], LABELS[CLASS_NAMES[parts[1]]]


def holds_only_splits(folder: Path) -> bool:
    """Whether this is a folder that holds only folders named after splits."""
    return folder.is_dir() and all(
        path.name.lower() in SPLIT_NAMES and path.is_dir() for path in folder.iterdir()
    )


def read(folder: Path) -> Dataset:
    """Read all images, of any size and mode, as 48x48 grey.

    Folders written by ``write`` are read in the order given by the file names; others by split, class and
    file name.

    Raises:
        DataError: a folder's name is no split or class, a file is not a readable image, there are no
            images, or a split is there under two names.
    """
    from fertools.runtime.preprocessing import to_face

    found = list(_files(folder))
    if not found:
        raise DataError(
            f"{folder}: its train/ and test/ folders hold no images; put them in folders by class"
        )
    stems = {path.stem for _, _, path in found}
    numbered = len(stems) == len(found) and all(len(s) == _ROW_DIGITS and s.isdecimal() for s in stems)
    found.sort(key=(lambda item: item[2].stem) if numbered else lambda item: (*item[:2], str(item[2])))
    images = np.empty((len(found), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    for row, (_, _, path) in enumerate(found):
        try:
            images[row] = to_face(path)
        except ImageError as error:
            raise DataError(f"{error}; replace or remove the file") from error
    usage = np.array([usage for usage, _, _ in found], dtype=np.uint8)
    labels = np.array([label for _, label, _ in found], dtype=np.uint8)
    return Dataset(folder.resolve().name, images, labels, usage)


def write(dataset: Dataset, folder: Path) -> None:
    """Fill an empty folder with ``train/Angry/00000012.png``, where 12 is the row in the data set."""
    from PIL import Image

    for label, name in enumerate(LABELS):
        for usage, split in enumerate(SPLITS):
            rows = np.flatnonzero((dataset.labels == label) & (dataset.usage == usage))
            if rows.size:
                (folder / split / name).mkdir(parents=True)
            for row in rows:
                Image.fromarray(dataset.images[row]).save(folder / split / name / f"{row:0{_ROW_DIGITS}}.png")


def _files(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """Usage code, label and path of every file, in no order."""
    seen: dict[int, Path] = {}
    for split in visible(folder):
        if not split.is_dir():
            continue  # licences and the like may be beside the splits
        usage = _code(split, SPLIT_NAMES)
        if usage in seen:
            raise DataError(f"{folder}: {seen[usage].name}/ and {split.name}/ are the same split; keep one")
        seen[usage] = split
        for kind in visible(split):
            label = _code(kind, CLASS_NAMES)
            if not kind.is_dir():
                raise DataError(f"{kind}: not a folder; a split holds folders named after classes")
            for path in visible(kind):
                yield usage, label, path


def visible(folder: Path) -> Iterator[Path]:
    """Return what is in a folder, without hidden files and those of ``LITTER``."""
    for path in folder.iterdir():
        if not path.name.startswith((".", "__MACOSX")) and path.name.lower() not in _LITTER:
            yield path


def _code(folder: Path, names: dict[str, int]) -> int:
    if folder.name.lower() not in names:
        raise DataError(f"{folder}: unknown folder name; accepted, in any case: {', '.join(names)}")
    return names[folder.name.lower()]
