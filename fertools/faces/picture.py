"""A picture of any size; only the requested parts are turned into arrays."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fertools.errors import ImageError
from fertools.runtime.decoding import explaining, flatten, load
from fertools.runtime.preprocessing import check_pixels

#: Rows of the result that are processed at a time, which bounds the memory besides the decoded picture.
_BAND = 64

_ORIENTATION = 0x0112

#: EXIF orientation -> the operation that turns the stored picture upright, as
#: ``PIL.ImageOps.exif_transpose``.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture:
    """An upright picture. A file is decoded once, and stays as Pillow decoded it: 1 to 4 bytes a pixel.

    Arguments:
        image: what ``fertools.runtime.to_face`` takes: a path, the bytes of an image file, a Pillow image or
            an array; EXIF orientation, transparency and 16-bit grey are treated as there.

    Raises:
        ImageError: the image cannot be used.
    """

    #: Pixels of the upright picture.
    width: int
    height: int
    #: Name of the file, for messages; "" if there is none.
    name: str

    def __init__(self, image: Any) -> None:
        self.name = ""
        self._turn = 1
        if isinstance(image, np.ndarray):
            self._pixels: Any = np.asarray(image)
            check_pixels(self._pixels)
            self.height, self.width = self._pixels.shape[:2]
            return
        if not isinstance(image, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
            raise ImageError(
                f"cannot use {type(image).__name__} as a picture: pass a path, the bytes of an image file, "
                "a Pillow image or a numpy array"
            )
        self._pixels, self.name = load(image)
        with explaining(self.name):
            turn = self._pixels.getexif().get(_ORIENTATION)
        # Anything may be written there; what is no turn is ignored, as Pillow's exif_transpose does.
        self._turn = turn if isinstance(turn, int) and turn in _TURNS else 1
        self.width, self.height = self._pixels.size
        if self._turn >= 5:
            self.width, self.height = self.height, self.width

    def part(self, left: int, top: int, right: int, bottom: int, factor: int = 1) -> npt.NDArray[np.uint8]:
        """Return a rectangle of the upright picture, which it must overlap; what lies outside is left out.

        Arguments:
            left: first column, in pixels.
            top: first row.
            right: column after the last.
            bottom: row after the last.
            factor: blocks of this many pixels each way become one pixel, their mean.

        Returns:
            uint8 (rows, columns, 3), RGB; sizes that ``factor`` does not divide are rounded up.

        Raises:
            ImageError: the pixels cannot be used; a file is decoded only now.
        """
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, self.width), min(bottom, self.height)
        bands = []
        for start in range(top, bottom, _BAND * factor):
            band = self._rectangle(left, start, right, min(start + _BAND * factor, bottom))
            if factor > 1:
                band = np.asarray(Image.fromarray(band).reduce(factor))
            bands.append(band)
        return np.concatenate(bands)

    def within(self, longest: int) -> npt.NDArray[np.uint8]:
        """The whole picture, antialiased, with its longer side at most ``longest`` pixels: uint8 RGB."""
        longer = max(self.width, self.height)
        pixels = self.part(0, 0, self.width, self.height, max(1, longer // longest))
        if longer <= longest:
            return pixels
        scale = longest / longer
        size = max(1, round(self.width * scale)), max(1, round(self.height * scale))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

    def clip(self, box: tuple[float, float, float, float]) -> tuple[int, int, int, int] | None:
        """Return a box (x, y, width, height) in whole pixels, clipped to the picture; None if outside."""
        x, y, width, height = box
        left, top = max(round(x), 0), max(round(y), 0)
        right, bottom = min(round(x + width), self.width), min(round(y + height), self.height)
        return (left, top, right - left, bottom - top) if right > left and bottom > top else None

    def _rectangle(self, left: int, top: int, right: int, bottom: int) -> npt.NDArray[np.uint8]:
        """A rectangle within the upright picture: uint8 (rows, columns, 3)."""
        if isinstance(self._pixels, np.ndarray):
            pixels = self._pixels[top:bottom, left:right]
        else:
            box = self._stored(left, top, right, bottom)
            with explaining(self.name):
                part = self._pixels.crop(box)
                pixels = flatten(part.transpose(_TURNS[self._turn]) if self._turn in _TURNS else part)
            check_pixels(pixels, self.name)
        if pixels.dtype != np.uint8:
            pixels = np.rint(np.multiply(pixels, 255.0, dtype=np.float64)).astype(np.uint8)
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))

    def _stored(self, left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
        """Map a rectangle of the upright picture to the stored one."""
        width, height = self._pixels.size
        if self._turn >= 5:
            left, top, right, bottom = top, left, bottom, right
        if self._turn in (2, 3, 7, 8):
            left, right = width - right, width - left
        if self._turn in (3, 4, 6, 7):
            top, bottom = height - bottom, height - top
        return left, top, right, bottom
