"""Stored numpy arrays, of whatever dtype their writer chose, as the uint8 arrays of a data set."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data.dataset import Bytes
from fertools.errors import DataError
from fertools.reading import open_regular

Array = npt.NDArray[Any]

#: Images converted at a time, so that a large float array needs no second one beside it.
_BATCH = 2048


def load(path: Path) -> dict[str, Array]:
    """Read the arrays of an .npz file by name, or the array of an .npy file under the name ``""``.

    Raises:
        DataError: the file cannot be read as that, or needs pickle.
    """
    try:
        # Opened here, because numpy leaves a damaged file open.
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns about headers that Python 2 wrote
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"": content}
            with content:
                return {name: _array(content[name], name) for name in content.files}
    # A damaged file makes numpy, zipfile and zlib raise nearly anything.
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise DataError(
            f"{path}: not a readable {path.suffix} file ({reason}); "
            "fetch or write it again, without object arrays (they need pickle, which can run code)"
        ) from error


def load_one(path: Path) -> Array:
    """Read the array of an .npy file.

    Raises:
        DataError: as ``load``, or the file is an .npz file by another name.
    """
    loaded = load(path)
    if "" not in loaded:
        raise DataError(f"{path}: an .npz file with the arrays {', '.join(loaded)}; rename it to .npz")
    return loaded[""]


def _array(entry: object, name: str) -> Array:
    """Return an entry of an archive; numpy returns bytes for one that is not an array."""
    if not isinstance(entry, np.ndarray):
        raise ValueError(f"its entry {name!r} is not an array")
    return entry


def as_images(array: Array, where: str) -> Bytes:
    """Images as uint8 (n, 48, 48).

    Arguments:
        array: (n, 48, 48) or (n, 48, 48, 1): integers 0..255, or floats that are either all in
            0..1 (scaled by 255 and rounded) or all integers in 0..255.
        where: names the array in messages.

    Raises:
        DataError: another dtype, shape or range, or NaN.
    """
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
        raise DataError(
            f"{where}: images must be (n, {IMAGE_SIZE}, {IMAGE_SIZE}), got {array.shape}; resize them"
        )
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise DataError(
            f"{where}: images must be integers or floats, got {array.dtype}; convert them to uint8"
        )
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (low >= 0 and high <= 255):  # written so that NaN fails
        raise DataError(f"{where}: pixels must be in 0..255 (or 0..1), got {low}..{high}; rescale them")
    scale = 255 if array.dtype.kind == "f" and high <= 1 else 1
    images = np.empty(array.shape, dtype=np.uint8)
    for start in range(0, len(array), _BATCH):
        batch = array[start : start + _BATCH] * scale
        rounded = np.rint(batch)
        if scale == 1 and not np.array_equal(rounded, batch):
            raise DataError(f"{where}: float pixels up to {high} must be whole numbers; store 0..1 or uint8")
        images[start : start + _BATCH] = rounded
    return images


def as_labels(array: Array, where: str) -> Bytes:
    """Labels as uint8 (n,).

    Arguments:
        array: (n,) or (n, 1) whole numbers 0..6, or one-hot rows (n, 7).
        where: names the array in messages.

    Raises:
        DataError: another dtype, shape or range.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.ndim == 2 and array.shape[1] == len(LABELS) and array.dtype.kind in "iuf":
        if not (np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()):
            raise DataError(
                f"{where}: rows of {len(LABELS)} must be one-hot (a single 1, else 0); store class numbers"
            )
        array = array.argmax(axis=1)
    return as_codes(array, len(LABELS), where)


def as_codes(array: Array, count: int, where: str) -> Bytes:
    """Whole numbers 0..count-1, of any integer or float dtype, (n,) or (n, 1), as uint8 (n,).

    Raises:
        DataError: another dtype, shape or range.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise DataError(f"{where}: must be whole numbers (n,), got {array.dtype} {array.shape}; convert them")
    wrong = np.flatnonzero(~np.isin(array, np.arange(count)))
    if wrong.size:
        raise DataError(
            f"{where}: [{wrong[0]}] is {array[wrong[0]]}, not in 0..{count - 1}; correct or remove the row"
        )
    return array.astype(np.uint8)


def check_rows(images: Bytes, codes: Bytes, path: Path) -> None:
    """Check that there are as many labels, or usage codes, as images.

    Raises:
        DataError: they differ, or there are no images.
    """
    if not len(images):
        raise DataError(f"{path}: holds no images; fetch or write it again")
    if len(images) != len(codes):
        raise DataError(
            f"{path}: {len(images)} images but {len(codes)} labels or usage codes; they must match"
        )
