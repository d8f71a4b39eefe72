"""The crop rule: from a detector's box or landmarks to the frame that FER2013 would show.

FER2013's pictures were cut out by a detector of their time (Goodfellow et al. 2013, arXiv:1307.0414), so each
detector of today needs a rule that leads from its answer to that frame. ``benchmarks/framing.py`` runs the
detectors on the Training images and prints the constants below; a test checks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE
from fertools.faces.picture import Picture
from fertools.runtime.preprocessing import grey, to_face

#: Landmarks of FER2013 faces by YuNet, in pixels of the 48x48 frame: medians of x and y of the eye at the
#: picture's left, the eye at its right, the tip of the nose, the left and the right corner of the mouth.
TEMPLATE: Final = ((15.1, 19.1), (32.6, 18.8), (23.8, 28.7), (16.4, 35.9), (31.4, 35.6))

#: A frame from landmarks is made smaller by this factor. FER2013 frames faces with the same landmarks wider
#: or closer (docs/faces.md), and the networks lose more accuracy by a wide frame than by a close one: from
#: 0.88 to 1 this was the best for both shipped models together, on 700 scenes of validation faces.
CLOSER: Final = 0.91

#: The landmarks in that smaller frame, in pixels of its 48x48: ``TEMPLATE``, scaled about the centre.
CLOSE_TEMPLATE: Final = tuple(
    ((x - IMAGE_SIZE / 2) / CLOSER + IMAGE_SIZE / 2, (y - IMAGE_SIZE / 2) / CLOSER + IMAGE_SIZE / 2)
    for x, y in TEMPLATE
)

#: A box of OpenCV's frontal-face cascade is the frame, unchanged: its median on FER2013 is 47.25 pixels wide
#: and starts at (0.25, 0.25).

#: A larger frame is first reduced by a whole factor, which bounds the memory per face.
_LARGEST_SIDE: Final = 960


@dataclass(frozen=True, slots=True)
class Frame:
    """A square in a picture, perhaps turned, that becomes the 48x48 face."""

    #: The top left corner, as x + y·1j in pixels of the picture.
    corner: complex
    #: From a corner to the next one at its right, as dx + dy·1j: as long as a side.
    side: complex

    @classmethod
    def of_box(cls, box: tuple[float, float, float, float]) -> Frame:
        """Return the square with the centre of the box and the mean of its sides."""
        x, y, width, height = box
        side = (width + height) / 2
        return cls(complex(x + (width - side) / 2, y + (height - side) / 2), complex(side))

    @classmethod
    def of_landmarks(cls, landmarks: npt.NDArray[np.float64]) -> Frame:
        """Return the square that fits the landmarks (5, 2) best, by least squares to ``CLOSE_TEMPLATE``.

        With points as complex numbers the similarity is z = a·t + b, fitted like a line (Umeyama 1991,
        doi:10.1109/34.88573, for the plane).
        """
        found = landmarks @ np.array([1, 1j])
        wanted = np.asarray(CLOSE_TEMPLATE) @ np.array([1, 1j])
        spread = wanted - wanted.mean()
        scale = complex(np.vdot(spread, found - found.mean()) / np.vdot(spread, spread).real)
        return cls(complex(found.mean() - scale * wanted.mean()), scale * IMAGE_SIZE)

    @property
    def pixels(self) -> float:
        """Length of a side in pixels of the picture."""
        return abs(self.side)

    @property
    def centre(self) -> complex:
        """The centre, as x + y·1j in pixels of the picture."""
        return self.corner + self.side * (1 + 1j) / 2

    @property
    def small(self) -> bool:
        """Whether it has fewer pixels in the picture than in the crop, which is then an enlargement."""
        return self.pixels < IMAGE_SIZE

    def crop(self, picture: Picture) -> npt.NDArray[np.uint8] | None:
        """Cut the frame out: uint8 (48, 48), grey; None if it lies outside the picture.

        It is cut out upright at the picture's own resolution, with the edge pixels repeated outside the
        picture, and then goes through ``to_face`` like any other picture of a face. For a frame that is not
        turned and lies on whole pixels the result is exactly ``to_face`` of that part of the picture.
        """
        import cv2

        factor = max(1, int(self.pixels // _LARGEST_SIDE))
        size = max(1, round(self.pixels / factor))
        corners = self.corner + self.side * np.array([0, 1, 1j, 1 + 1j])
        # Two more pixels at each side, for the interpolation.
        left, top = (
            int(np.floor(low / factor - 2)) * factor for low in (corners.real.min(), corners.imag.min())
        )
        right, bottom = (int(np.ceil(high)) + 2 * factor for high in (corners.real.max(), corners.imag.max()))
        left, top = max(left, 0), max(top, 0)
        if left >= min(right, picture.width) or top >= min(bottom, picture.height):
            return None
        part = grey(picture.part(left, top, right, bottom, factor))
        step = self.side / size / factor
        # From the centre of a pixel of the result to the place in ``part``, whose pixels have theirs at 0.5.
        start = (self.corner - complex(left, top)) / factor + step * (0.5 + 0.5j) - (0.5 + 0.5j)
        matrix = np.array([[step.real, -step.imag, start.real], [step.imag, step.real, start.imag]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        upright = cv2.warpAffine(part, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return to_face(upright)
