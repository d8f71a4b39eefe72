"""Folders of image files: ``train/happy/1.png``, or ``happy/1.png`` without splits.

Names tell split and class, never alphabetical positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Final

import numpy as np

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data.dataset import SPLITS, Bytes, Dataset
from fertools.data.partition import with_drawn_test
from fertools.errors import DataError, ImageError

#: Accepted folder names in lower case -> usage code.
SPLIT_NAMES: Final = {"train": 0, "validation": 1, "valid": 1, "val": 1, "test": 2}

#: Accepted folder names in lower case -> label: class names, their usual other spellings, digits.
CLASS_NAMES: Final = (
    {name.lower(): label for label, name in enumerate(LABELS)}
    | {"anger": 0, "disgusted": 1, "fearful": 2, "happiness": 3, "sadness": 4, "surprised": 5}
    | {str(label): label for label in range(len(LABELS))}
)

#: What a path tells: split and class, as in ``SPLITS`` and ``LABELS``, None where they are unknown.
Truth = Callable[[PurePath], tuple[str | None, str | None]]

#: Files that operating systems leave behind; these and hidden files are ignored.
_LITTER: Final = ("thumbs.db", "desktop.ini")

#: Unreadable files that a message names.
_MOST_TOLD: Final = 10

#: A file name written here: the row in eight digits.
_ROW_DIGITS: Final = 8


def has_splits(folder: Path) -> bool:
    """Whether the folder holds a ``train`` or ``test`` folder."""
    return any(path.name.lower() in ("train", "test") and path.is_dir() for path in folder.iterdir())


def has_classes(folder: Path) -> bool:
    """Whether the folder holds a folder named after a class."""
    return any(path.name.lower() in CLASS_NAMES and path.is_dir() for path in folder.iterdir())


def has_only_classes(folder: Path) -> bool:
    """Whether the folder holds folders named after classes, by words, and no other folders.

    Digits do not count: where nobody has said that folders are classes, they may number anything.
    """
    return has_classes(folder) and all(
        path.name.lower() in CLASS_NAMES and not path.name.isdecimal() for path in _folders(folder)
    )


def truth_by_split(file: PurePath) -> tuple[str | None, str | None]:
    """Return split and class of a path such as ``train/happy/1.png``, as in ``SPLITS`` and ``LABELS``."""
    split = SPLIT_NAMES.get(file.parent.parent.name.lower())
    _, label = truth_by_class(file)
    return (None, None) if split is None or label is None else (SPLITS[split], label)


def truth_by_class(file: PurePath) -> tuple[None, str | None]:
    """Return None and the class of a path such as ``happy/1.png``, as in ``LABELS``."""
    label = CLASS_NAMES.get(file.parent.name.lower())
    return None, None if label is None else LABELS[label]


def holds_only_splits(folder: Path) -> bool:
    """Whether this is a folder that holds only folders named after splits."""
    return folder.is_dir() and all(
        path.name.lower() in SPLIT_NAMES and path.is_dir() for path in folder.iterdir()
    )


def read(folder: Path, seed: int) -> Dataset:
    """Read all images, of any size and mode, as 48x48 grey.

    Folders written by ``write`` are read in the order given by the file names; others by split, class and
    file name. Folders of classes without splits are split 80/20 into train and test, drawn with the seed;
    their images are in the order of a digest of their pixels, so no file's name or date changes the split.

    Raises:
        DataError: a folder's name is no split or class, a file is not a readable image, there are no
            images, a split is there under two names, classes are beside splits, or one without splits is
            empty.
    """
    from fertools.runtime.preprocessing import to_face

    splits = split_folders(folder)
    found = list(_in_splits(splits) if splits else _in_classes(folder))
    if not found:
        raise DataError(
            f"{folder}: its train/ and test/ folders hold no images; put them in folders by class"
        )
    stems = {path.stem for _, _, path in found}
    numbered = len(stems) == len(found) and all(len(s) == _ROW_DIGITS and s.isdecimal() for s in stems)
    found.sort(key=(lambda item: item[2].stem) if numbered else lambda item: (*item[:2], str(item[2])))
    images = np.empty((len(found), IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    faults = []
    for row, (_, _, path) in enumerate(found):
        try:
            images[row] = to_face(path)
        except ImageError as error:
            faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - _MOST_TOLD:,} more" if len(faults) > _MOST_TOLD else ""
        files = "the file" if len(faults) == 1 else "these files"
        raise DataError(f"{'; '.join(faults[:_MOST_TOLD])}{more}; replace or remove {files}")
    name, labels = folder.resolve().name, np.array([label for _, label, _ in found], dtype=np.uint8)
    if splits:
        usage = np.array([usage for usage, _, _ in found], dtype=np.uint8)
        return Dataset(name, images, labels, usage)
    order = _by_content(images, labels)
    return with_drawn_test(name, images[order], labels[order], seed)


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


def split_folders(folder: Path) -> list[Path]:
    """Return the folders named after splits; none where classes are not in splits.

    Raises:
        DataError: another folder is beside them.
    """
    folders = _folders(folder)
    splits = [path for path in folders if path.name.lower() in SPLIT_NAMES]
    if splits and len(splits) < len(folders):
        other = next(path for path in folders if path not in splits)
        raise DataError(
            f"{folder}: holds {splits[0].name}/ beside {other.name}/; put all classes into splits, whose"
            f" names are, in any case: {', '.join(SPLIT_NAMES)}"
        )
    return splits


def _in_splits(splits: list[Path]) -> Iterator[tuple[int, int, Path]]:
    """Usage code, label and path of every file, in no order."""
    seen: dict[int, Path] = {}
    for split in splits:
        usage = SPLIT_NAMES[split.name.lower()]
        if usage in seen:
            raise DataError(
                f"{split.parent}: {seen[usage].name}/ and {split.name}/ are the same split; keep one"
            )
        seen[usage] = split
        for kind in visible(split):
            label = _label(kind)
            if not kind.is_dir():
                raise DataError(f"{kind}: not a folder; a split holds folders named after classes")
            for path in visible(kind):
                yield usage, label, path


def _in_classes(folder: Path) -> Iterator[tuple[int, int, Path]]:
    """0, label and path of every file, in no order: without splits, all may be trained on as yet."""
    for kind in _folders(folder):
        label, paths = _label(kind), list(visible(kind))
        if not paths:
            raise DataError(f"{kind}: holds no images; put some in, or remove the folder")
        for path in paths:
            yield 0, label, path


def _by_content(images: Bytes, labels: Bytes) -> list[int]:
    """Return the rows in the order of a digest of the pixels; of copies, the first class comes first."""
    digests = [hashlib.sha256(image.tobytes()).digest() for image in images]
    return sorted(range(len(labels)), key=lambda row: (digests[row], labels[row]))


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name; licences and the like may be beside them."""
    return sorted(path for path in visible(folder) if path.is_dir())


def visible(folder: Path) -> Iterator[Path]:
    """Return what is in a folder, without hidden files and those of ``LITTER``."""
    for path in folder.iterdir():
        if not path.name.startswith((".", "__MACOSX")) and path.name.lower() not in _LITTER:
            yield path


def _label(folder: Path) -> int:
    if folder.name.lower() not in CLASS_NAMES:
        raise DataError(f"{folder}: unknown folder name; accepted, in any case: {', '.join(CLASS_NAMES)}")
    return CLASS_NAMES[folder.name.lower()]
