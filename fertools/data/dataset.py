"""Labelled faces in memory, and their three splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.errors import ConfigError, DataError

Bytes = npt.NDArray[np.uint8]

#: Split names; a split's position is its usage code.
SPLITS: Final = ("train", "validation", "test")

#: What the CSV files of the 2013 contest call the splits, in the order of the usage codes.
USAGES: Final = ("Training", "PublicTest", "PrivateTest")


@dataclass(frozen=True, eq=False)
class Split:
    """Some images with their labels.

    Attributes:
        images: uint8 (n, 48, 48), grey, 0..255.
        labels: uint8 (n,), 0..6, positions in ``contract.LABELS``.
    """

    images: Bytes
    labels: Bytes

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """All the images of a source, in the order of the source. The arrays are read-only.

    Attributes:
        name: where the images came from, for messages and reports, e.g. ``"fer2013.csv"``.
        images: uint8 (n, 48, 48), grey, 0..255.
        labels: uint8 (n,), 0..6, positions in ``contract.LABELS``.
        usage: uint8 (n,), 0..2, positions in ``SPLITS``.
        notes: what was done to the source on the way, e.g. a split that was drawn.

    Raises:
        DataError: an array has another dtype, shape or values.
    """

    name: str
    images: Bytes
    labels: Bytes
    usage: Bytes
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rows = len(self.labels)
        for field, shape in (
            ("images", (rows, IMAGE_SIZE, IMAGE_SIZE)),
            ("labels", (rows,)),
            ("usage", (rows,)),
        ):
            array = getattr(self, field)
            if array.dtype != np.uint8 or array.shape != shape:
                raise DataError(
                    f"{self.name}: {field} must be uint8 {shape}, got {array.dtype} {array.shape}; convert it"
                )
            # The fingerprint and the image ids are computed once, so the arrays must not change.
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, field, view)
        for field, names in (("labels", LABELS), ("usage", SPLITS)):
            wrong = np.flatnonzero(getattr(self, field) >= len(names))
            if wrong.size:
                raise DataError(
                    f"{self.name}: {field}[{wrong[0]}] is {getattr(self, field)[wrong[0]]}, "
                    f"not in 0..{len(names) - 1} ({', '.join(names)}); correct or remove the row"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, name: str) -> Split:
        """The images of one split, in the order of the source.

        Raises:
            ConfigError: there is no split of that name.
            DataError: the split is empty.
        """
        return self._select(name, self.usage == _code(name))

    def deduplicated(self, name: str) -> Split:
        """Return the images of one split that are not, byte for byte, in another split too.

        Duplicates within the split stay.

        Raises:
            ConfigError: there is no split of that name.
            DataError: no image is left.
        """
        rows = self.usage == _code(name)
        rows[rows] = self.only_in(name)
        return self._select(name, rows)

    def with_note(self, note: str) -> Dataset:
        """Return the data set with one more note."""
        return replace(self, notes=(*self.notes, note))

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of every split."""
        return {name: int(np.count_nonzero(self.usage == code)) for code, name in enumerate(SPLITS)}

    def only_in(self, name: str) -> npt.NDArray[np.bool_]:
        """Mark the images of one split that are in no other: bool, one value per image of ``split(name)``."""
        inside = self.usage == _code(name)
        return ~np.isin(self.image_ids[inside], self.image_ids[~inside])

    def _select(self, name: str, rows: npt.NDArray[np.bool_]) -> Split:
        if not rows.any():
            held = ", ".join(f"{split} {count}" for split, count in self.counts.items())
            raise DataError(
                f"{self.name}: no {name} images (images held: {held}); give a source that has some: "
                f"rows of Usage {USAGES[_code(name)]} in a CSV file, or a folder named {name}/"
            )
        return Split(self.images[rows], self.labels[rows])

    @cached_property
    def image_ids(self) -> npt.NDArray[np.intp]:
        """See the function ``image_ids``."""
        return image_ids(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of images, labels and usage, in hexadecimal."""
        digest = hashlib.sha256()
        for array in (self.images, self.labels, self.usage):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def _code(name: str) -> int:
    if name not in SPLITS:
        raise ConfigError(f"no split is called {name!r}; choose one of {', '.join(SPLITS)}")
    return SPLITS.index(name)


def image_ids(images: Bytes) -> npt.NDArray[np.intp]:
    """Return equal numbers for byte-identical images, counted from 0 by first appearance: intp (n,)."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(image.tobytes(), len(seen)) for image in images], dtype=np.intp)
