"""Decode image files, encoded bytes and Pillow images. The only module of the runtime that uses Pillow."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fertools.errors import ImageError
from fertools.reading import LARGEST_IMAGE, read_bytes

#: TIFF's tags of a tile's width and length, which need not be within the picture.
_TILE = (322, 323)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image

#: ``warnings.catch_warnings`` swaps a process-wide list; two threads at once could leave it swapped. And
#: Pillow cannot load one image in two threads.
_one_at_a_time = threading.Lock()


def _renew() -> None:
    global _one_at_a_time
    _one_at_a_time = threading.Lock()


if hasattr(os, "register_at_fork"):
    # A thread that held the lock during a fork does not exist in the forked process to release it.
    os.register_at_fork(after_in_child=_renew)


def decode(source: Source) -> tuple[npt.NDArray[Any], str]:
    """Decode the first frame of an image, upright and without transparency.

    Returns:
        uint8 (h, w) or (h, w, 3), RGB, or float32 (h, w) of a floating-point image, unchecked; and the name
        of the source for error messages ("" where it has none).

    Raises:
        ImageError: there is no such file, or it is empty, truncated, too large, not an image or not even a
            regular file.
    """
    image, name = load(source)
    with explaining(name):
        return flatten(ImageOps.exif_transpose(image)), name


def load(source: Source) -> tuple[Image.Image, str]:
    """Decode the first frame of an image as it is stored; the name is that of ``decode``.

    Raises:
        ImageError: as ``decode``.
    """
    if isinstance(source, Image.Image):
        name, data = str(getattr(source, "filename", "")), b""
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        data = _read(name)
        if not data:
            raise ImageError(f"{name}: the file is empty")
    else:
        name, data = "", bytes(source)
        if not data:
            raise ImageError("the bytes of the image are empty")
    with explaining(name):
        if isinstance(source, Image.Image):
            source.load()
            return source, name
        image = Image.open(BytesIO(data))
        if image.format == "EPS":  # a program, which Pillow would run by Ghostscript
            raise ImageError("an EPS file is not decoded: convert it to PNG or JPEG")
        _check_size(image)
        image.load()
        _check_size(image)  # of a picture inside an icon it is known only now
        return image, name


def _check_size(image: Image.Image) -> None:
    """Raise DecompressionBombError for too many pixels; Pillow warns of these and refuses twice as many."""
    pixels, most = decoded_pixels(image), Image.MAX_IMAGE_PIXELS
    if most is not None and pixels > most:
        raise Image.DecompressionBombError(f"{pixels:,} of at most {most:,}")


def decoded_pixels(image: Image.Image) -> int:
    """Return the pixels that decoding an opened image needs memory for: its own, or those of a tile."""
    tags = getattr(image, "tag_v2", {})
    across, down = (tags.get(tag, 0) for tag in _TILE)
    return max(image.width * image.height, int(across) * int(down))


def _read(name: str) -> bytes:
    try:
        return read_bytes(name, LARGEST_IMAGE)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: is a folder, not an image file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ImageError(f"{name!r}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress Pillow's warnings, in one thread at a time.

    Those of other threads are not shown either meanwhile. None is turned into an error, which they would see.
    """
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def explaining(name: str) -> Iterator[None]:
    """Turn all errors of Pillow into an ImageError that names the image; its warnings are not shown."""
    where = name or "the image"
    with quietly():
        try:
            yield
        except ImageError as error:
            raise ImageError(f"{where}: {error}") from error
        except UnidentifiedImageError as error:
            raise ImageError(f"{where}: not an image file that Pillow can read") from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{where}: too many pixels: crop the face first ({error})") from error
        # Decoders raise all kinds of errors on broken files: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            raise ImageError(f"{where}: the image is truncated or damaged: {error}") from error


def flatten(image: Image.Image) -> npt.NDArray[Any]:
    """Return the pixels of a loaded image of any mode, as ``decode`` does but not turned upright."""
    transparent = image.info.get("transparency")  # in PNG, a grey level instead of an alpha channel
    if image.mode.startswith("I"):  # 16-bit grey is "I;16" or, in older Pillows, "I" (int32)
        deep = np.asarray(image).astype(np.int64)
        if deep.size and (deep.min() < 0 or deep.max() > 65535):
            raise ImageError("32-bit integer pixels beyond 0..65535: scale the image to 8 or 16 bits first")
        if isinstance(transparent, int):
            deep[deep == transparent] = 0
        return ((deep + 128) // 257).astype(np.uint8)  # 65535 / 255 = 257: round(v / 257)
    if image.mode in ("L", "F") and transparent is None:
        return np.asarray(image)
    if image.mode == "1":
        levels = np.asarray(image.convert("L"))
        return np.zeros_like(levels) if transparent else levels  # white, if either, is what is not black
    if image.has_transparency_data:
        # Transparent pixels hold arbitrary colours, so dropping alpha would show pixels that nobody has seen.
        layer = image.convert("LA") if image.mode == "La" else image
        layer = layer.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), layer)
    return np.asarray(image.convert("RGB"))
