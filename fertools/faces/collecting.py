"""From folders of photos, named by class, to a data set of faces in the training framing."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.contract import LABELS
from fertools.data.dataset import Dataset
from fertools.data.image_folder import CLASS_NAMES, SPLIT_NAMES, split_folders, visible
from fertools.data.partition import with_drawn_test
from fertools.errors import DataError, ImageError
from fertools.faces.finder import FaceFinder

#: Smallest face, in pixels across: three quarters of the crop. docs/stress.md has the accuracy on smaller
#: faces.
SMALLEST_FACE: Final = 36


@dataclass(frozen=True)
class LeftOut:
    """A photo that gave no face."""

    path: str
    reason: str


@dataclass(frozen=True)
class Collection:
    """The faces that were found, and what was left out."""

    dataset: Dataset
    left_out: tuple[LeftOut, ...]

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> number of photos, the most frequent first; the part in brackets is left out."""
        counts = Counter(each.reason.partition(" (")[0] for each in self.left_out)
        return dict(counts.most_common())


def collect(
    folder: Path,
    finder: FaceFinder,
    *,
    smallest: float = SMALLEST_FACE,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, all: None,
) -> Collection:
    """Cut the one face out of every photo below ``folder``.

    Arguments:
        folder: holds folders named by class (``happy/``, ``Anger/``, ``3/``) of photos, directly or within
            ``train/``, ``valid/`` and ``test/``. Without these, a fifth of each class is drawn as test.
        finder: finds the faces.
        smallest: the smallest face to keep, in pixels across.
        seed: draws the test split.
        progress: gets the number of photos done and of all.

    A photo is left out if it has no face, several (it is unclear which one has the expression) or one that is
    too small, if it cannot be read, or if its crop duplicates an earlier one.

    Raises:
        DataError: there are no photos in folders named by class, a folder's name is no class, or no photo
            has a face.
    """
    photos = sorted(_photos(folder))
    if not photos:
        raise DataError(
            f"{folder}: no photos in folders named by class; put them into folders called"
            f" {', '.join(LABELS)}, perhaps within train/ and test/"
        )
    crops, labels, usages, left_out = [], [], [], []
    seen: dict[bytes, Path] = {}
    for done, (path, label, usage) in enumerate(photos, 1):
        crop, reason = _crop(path, finder, smallest, seen)
        if crop is None:
            left_out.append(LeftOut(str(path.relative_to(folder)), reason))
        else:
            crops.append(crop)
            labels.append(label)
            usages.append(usage)
        progress(done, len(photos))
    if not crops:
        raise DataError(
            f"{folder}: none of the {len(photos)} photos has one face of at least {smallest:g} pixels:"
            f" {left_out[0].path}: {left_out[0].reason}"
        )
    name, images = folder.resolve().name, np.stack(crops)
    truth = np.array(labels, dtype=np.uint8)
    if None in usages:
        dataset = with_drawn_test(name, images, truth, seed)
    else:
        dataset = Dataset(name, images, truth, np.array(usages, dtype=np.uint8))
    return Collection(dataset, tuple(left_out))


def _crop(
    path: Path, finder: FaceFinder, smallest: float, seen: dict[bytes, Path]
) -> tuple[npt.NDArray[np.uint8] | None, str]:
    """Return the photo's face, uint8 (48, 48), and "", or None and the reason; ``seen`` has earlier crops."""
    try:
        faces = finder.find(path)
    except ImageError as error:
        return None, f"unreadable ({str(error).removeprefix(f'{path}: ')})"
    if not faces:
        return None, "no face"
    if len(faces) > 1:
        return None, f"several faces ({len(faces)})"
    (face,) = faces
    if face.frame.pixels < smallest:
        return None, f"too small ({face.frame.pixels:.0f} pixels)"
    digest = hashlib.sha256(face.crop.tobytes()).digest()
    if digest in seen:
        return None, f"duplicate (of {seen[digest].parent.name}/{seen[digest].name})"
    seen[digest] = path
    return face.crop, ""


def _photos(folder: Path) -> Iterator[tuple[Path, int, int | None]]:
    """Return all photos below the folder with label and usage code; no code without folders of splits."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    splits = split_folders(folder)
    for split in splits or [folder]:
        usage = SPLIT_NAMES[split.name.lower()] if splits else None
        for kind in visible(split):
            if not kind.is_dir():
                continue  # licences and the like
            if kind.name.lower() not in CLASS_NAMES:
                known = ", ".join(CLASS_NAMES)
                raise DataError(f"{kind}: its name is no class; known, in any case: {known}")
            for photo in visible(kind):
                yield photo, CLASS_NAMES[kind.name.lower()], usage
