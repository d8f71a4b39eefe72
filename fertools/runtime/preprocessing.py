"""From any picture of a face to the network's input: the only preprocessing of the whole project.

Data sets and predictions both use ``to_face``, so a network sees at run time what it saw in training. Arrays
need only numpy; Pillow is imported for files, encoded bytes and Pillow images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE
from fertools.errors import ImageError

Face = npt.NDArray[np.uint8]

#: Resampling weights are multiples of 2**-22, as in Pillow. Two products of them with 8-bit pixels stay below
#: 2**53 and are exact in float64, so the grey levels are the same on every machine and BLAS.
_WEIGHT_ONE = 2.0**22

#: Rows converted at a time, which bounds the memory for a photo of 50 megapixels.
_BAND = 256

#: Longest side in pixels, that of a JPEG. The weights take 48 float64 for each of its pixels, however few
#: bytes a file of one row has.
_LONGEST_SIDE = 65_535
#: By how much a resampling with negative lobes, such as bicubic, may leave 0..1.
_OVERSHOOT = 0.5

#: Longest side whose weights are kept, which bounds the cache to 60 MB.
_LONGEST_KEPT = 10_000

_ACCEPTED = (
    "pass uint8 (0..255) or float (0..1) of shape (height, width), (height, width, 1) or (height, width, 3)"
)


def to_face(image: Any) -> Face:
    """Turn a picture of one face into the network's input.

    The whole picture is scaled to 48x48; the caller crops the face. Colours become grey by ITU-R 601 luma,
    bit for bit as Pillow's ``convert("L")``. Scaling uses an antialiased triangle filter, within one grey
    level of Pillow's ``BILINEAR``. A grey uint8 48x48 picture is unchanged.

    Arguments:
        image: a path (``str`` or ``os.PathLike``), the bytes of an encoded image, a Pillow image, or an array
            of shape (height, width), (height, width, 1) or (height, width, 3), RGB, either uint8 in 0..255 or
            floating in 0..1. A side has at most 65,535 pixels. Of files and Pillow images, the EXIF
            orientation is applied, transparency is laid over black and 16-bit grey is scaled to 8 bits.

    Returns:
        uint8 (48, 48), 0..255; a view of ``image`` if that is such an array already.

    Raises:
        ImageError: the file or array cannot be used; the message says why and what to do.
    """
    if isinstance(image, np.ndarray):
        return _from_array(np.asarray(image))  # subclasses (np.matrix, np.ma) become plain pixels
    pillow = sys.modules.get("PIL.Image")  # not imported here: without it there is no Pillow image
    if isinstance(image, str | os.PathLike | bytes | bytearray | memoryview) or (
        pillow is not None and isinstance(image, pillow.Image)
    ):
        from fertools.runtime.decoding import decode

        pixels, name = decode(image)
        return _from_array(pixels, name)
    raise ImageError(
        f"cannot use {type(image).__name__} as an image: pass a path, the bytes of an image file, "
        "a Pillow image or a numpy array"
    )


def to_faces(images: Iterable[Any]) -> Face:
    """Turn several pictures into one batch.

    Arguments:
        images: any iterable of what ``to_face`` takes, e.g. a list of paths or an array (n, height, width).

    Returns:
        uint8 (n, 48, 48), 0..255; n is 0 for no images.

    Raises:
        ImageError: one of the images cannot be used, or ``images`` is a single image.
    """
    batches = list(to_batches(images, 1024))
    return np.concatenate(batches) if batches else np.empty((0, IMAGE_SIZE, IMAGE_SIZE), np.uint8)


def to_batches(images: Iterable[Any], size: int) -> Iterator[Face]:
    """Yield ``to_faces`` of pieces of at most ``size`` images, none of them empty."""
    check_several(images)
    square = (IMAGE_SIZE, IMAGE_SIZE)
    prepared = (square, (*square, 1))
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.shape[1:] in prepared:
        for start in range(0, len(images), size):
            yield images[start : start + size].reshape(-1, *square)
        return
    faces: list[Face] = []
    for index, image in enumerate(images):
        try:
            faces.append(to_face(image))
        except ImageError as error:
            where = place(image, index)
            if not where:
                raise
            raise ImageError(f"{where}{error}") from error
        if len(faces) == size:
            yield np.stack(faces)
            faces = []
    if faces:
        yield np.stack(faces)


def check_several(images: Iterable[Any]) -> None:
    """Raise ImageError if ``images`` is a single image, or not iterable."""
    if isinstance(images, np.ndarray):
        # A single RGB picture would pass for a batch of grey ones three pixels wide.
        single = images.ndim < 3 or (images.ndim == 3 and images.shape[-1] in (1, 3))
    else:
        encoded = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview)
        single = encoded or not hasattr(images, "__iter__")
    if single:
        raise ImageError("this is one image where several are expected: put it in a list")


def place(image: Any, index: int) -> str:
    """Return the prefix of a message about one of several images: empty for a path, named anyway."""
    return "" if isinstance(image, str | os.PathLike) else f"image {index}: "


def _from_array(pixels: npt.NDArray[Any], name: str = "") -> Face:
    """``to_face`` for arrays; ``name`` leads the error messages."""
    check_pixels(pixels, name)
    height, width = pixels.shape[:2]
    if (height, width) == (IMAGE_SIZE, IMAGE_SIZE):
        return grey(pixels)
    if max(height, width) > _LONGEST_SIDE:
        where = f"{name}: " if name else ""
        raise ImageError(
            f"{where}{width}x{height} pixels: a side may have at most {_LONGEST_SIDE:,}: crop the face first"
        )
    rows, columns = _weights(height), _weights(width)
    tall = np.zeros((IMAGE_SIZE, width))
    for top in range(0, height, _BAND):
        tall += rows[:, top : top + _BAND] @ grey(pixels[top : top + _BAND]).astype(np.float64)
    one = _WEIGHT_ONE**2
    exact = tall @ columns.T
    return np.minimum((exact + one / 2) // one, 255).astype(np.uint8)


def check_pixels(pixels: npt.NDArray[Any], name: str = "") -> None:
    """Raise ImageError if ``to_face`` does not take an array; ``name`` leads the message."""
    where = f"{name}: " if name else ""
    grey_or_rgb = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3))
    if not grey_or_rgb or pixels.size == 0:
        raise ImageError(f"{where}an array of shape {pixels.shape} is not an image: {_ACCEPTED}")
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ImageError(f"{where}the pixels contain NaN or infinity: {_ACCEPTED}")
        if low < 0 or high > 1:
            hint = "scale them first"
            if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
                hint = "clip them, as with numpy.clip(image, 0, 1)"
            elif low >= 0 and high <= 255:
                hint = "divide them by 255"
            raise ImageError(f"{where}float pixels must lie in 0..1, not {low}..{high}: {hint}")
    elif pixels.dtype != np.uint8:
        raise ImageError(f"{where}pixels of dtype {pixels.dtype} are not accepted: {_ACCEPTED}")


def grey(pixels: npt.NDArray[Any]) -> Face:
    """Return checked pixels (h, w), (h, w, 1) or (h, w, 3) as grey uint8 (h, w)."""
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.multiply(pixels, 255.0, dtype=np.float64)).astype(np.uint8)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    red, green, blue = (pixels[:, :, channel].astype(np.uint32) for channel in range(3))
    # ITU-R 601 in 16-bit fixed point: the same sum as in Pillow's ImagingConvert, so both agree exactly.
    luma: Face = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
    return luma


def _weights(size: int) -> npt.NDArray[np.float64]:
    return _kept_weights(size) if size <= _LONGEST_KEPT else _new_weights(size)


def _new_weights(size: int) -> npt.NDArray[np.float64]:
    """Return the triangle filter from ``size`` pixels to 48: float64 (48, size) of integers.

    Rows sum to about 2**22.

    The filter widens with the reduction, which prevents aliasing (as in Pillow's ImagingResample; OpenCV and
    TensorFlow do not do it by default).
    """
    scale = size / IMAGE_SIZE
    reach = max(scale, 1.0)
    centers = (np.arange(IMAGE_SIZE) + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centers[:, None]) / reach
    triangle = np.maximum(1.0 - distance, 0.0)
    weights: npt.NDArray[np.float64] = np.rint(triangle / triangle.sum(axis=1, keepdims=True) * _WEIGHT_ONE)
    weights.flags.writeable = False  # read-only, because all threads share it through the cache
    return weights


_kept_weights = lru_cache(maxsize=16)(_new_weights)
