"""Draw faces from numbers, many at a time, by signed distances.

Only ``+ - * /``, square root, comparison and selection are used, which IEEE 754 rounds the same way
everywhere. Sums over an axis, exponentials and sines are avoided: their last bits, and so pixels, differ
between processors.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fertools.contract import IMAGE_SIZE
from fertools.data.dataset import Bytes

Floats = npt.NDArray[Any]  # float32 throughout

#: The numbers of n faces by name, each float32 (n, 1, 1). ``synthetic`` has the names and units.
Numbers = dict[str, Floats]

#: Grey of the dark parts: pupils, nostrils, an open mouth.
_DARK: Final = 25
_WHITE: Final = 235


class _Canvas:
    """Grey images and the coordinates of their pixels on the face.

    Attributes:
        x: float32 (n, 48, 48), to the right, 0 in the middle of the face.
        y: float32 (n, 48, 48), downwards, 0 at the height of the middle of the head.
        grey: float32 (n, 48, 48), 0..255.
    """

    def __init__(self, face: Numbers) -> None:
        middle = np.float32((IMAGE_SIZE - 1) / 2)
        axis = np.arange(IMAGE_SIZE, dtype=np.float32) - middle
        across = axis[np.newaxis, np.newaxis, :] - face["left"]
        down = axis[np.newaxis, :, np.newaxis] - face["down"]
        # Cosine and sine from the tangent of half the angle, by arithmetic alone.
        tilt, zoom = face["tilt"], face["zoom"]
        cosine = (1 - tilt * tilt) / (1 + tilt * tilt) / zoom
        sine = 2 * tilt / (1 + tilt * tilt) / zoom
        self.x = cosine * across + sine * down
        self.y = cosine * down - sine * across
        self.zoom = zoom
        self.grey = np.broadcast_to(face["background"], self.x.shape).copy()

    def paint(self, distance: Floats, grey: Floats | float, strength: Floats | float = 1.0) -> None:
        """Mix in a grey where the distance (negative inside) is below 0, with an edge one pixel wide."""
        cover = distance * -self.zoom
        cover += 0.5
        np.clip(cover, 0, 1, out=cover)
        cover *= np.clip(np.asarray(strength, dtype=np.float32), 0, 1)
        cover *= grey - self.grey
        self.grey += cover


def draw(face: Numbers, noise: Floats) -> Bytes:
    """Draw faces.

    Arguments:
        face: the numbers of n faces.
        noise: float32 (n, 48, 48) in -1..1.

    Returns:
        uint8 (n, 48, 48).
    """
    canvas = _Canvas(face)
    _head(canvas, face)
    # From here on coordinates are those of the features, which a turn of the head shifts sideways.
    canvas.x -= face["turn"]
    _wrinkles(canvas, face)
    _nose(canvas, face)
    _mouth(canvas, face)
    _eyes(canvas, face)
    _brows(canvas, face)
    _glasses_and_cover(canvas, face)
    return _photograph(canvas, face, noise)


def _ellipse(x: Floats, y: Floats, width: Any, height: Any) -> Floats:
    """Distance to an ellipse of these half axes, about right near its edge."""
    width, height = np.asarray(width, dtype=np.float32), np.asarray(height, dtype=np.float32)
    wide, high = x / width, y / height
    distance: Floats = (np.sqrt(wide * wide + high * high) - 1) * np.minimum(width, height)
    return distance


def _stroke(
    x: Floats, y: Floats, start: Floats, end: Floats, bend: Floats | float, weight: Floats | float
) -> Floats:
    """Distance to a line of half thickness ``weight``.

    It runs from ``start`` to ``end``, arrays whose first axis is x, y; ``bend`` raises its middle.
    """
    run, rise = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * run + (y - start[1]) * rise) / (run * run + rise * rise), 0, 1)
    aside_x = x - start[0] - along * run
    aside_y = y - start[1] - along * rise + 4 * bend * along * (1 - along)
    distance: Floats = np.sqrt(aside_x * aside_x + aside_y * aside_y) - weight
    return distance


def _point(x: Floats | float, y: Floats | float) -> Floats:
    return np.stack(np.broadcast_arrays(np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)))


def _head(canvas: _Canvas, face: Numbers) -> None:
    x, y, width, skin, hair = canvas.x, canvas.y, face["head_width"], face["skin"], face["hair"]
    canvas.paint(np.maximum(_ellipse(x, y - 1.0, width * 0.62, 0.55), -y), skin * 0.8)
    canvas.paint(np.maximum(_ellipse(x, y + 0.08, width + 0.1, 1.04), y - 0.1), hair)
    canvas.paint(np.abs(y + 0.05) * 0.6 + np.abs(np.abs(x) - width) - 0.12, skin * 0.9)
    outline = _ellipse(x, y, width, 0.98)
    canvas.paint(outline, skin)
    canvas.paint(np.maximum(outline, 0.3 - y), hair, face["beard"])
    fringe = y - face["hairline"] - 0.25 * x * x
    canvas.paint(np.maximum(outline - 0.04, fringe), hair)


def _wrinkles(canvas: _Canvas, face: Numbers) -> None:
    x, y, shade = np.abs(canvas.x), canvas.y, face["skin"] * 0.55
    thin = 0.014
    level = face["eye_height"]
    for height in (-0.5, -0.42):
        line = _stroke(x, y, _point(0.0, level + height), _point(0.34, level + height + 0.01), 0.0, thin)
        canvas.paint(line, shade, face["forehead"])
    frown = _stroke(x, y, _point(0.07, level - 0.28), _point(0.05, level - 0.08), 0.0, thin)
    canvas.paint(frown, shade, face["frown"])
    for offset in (0.06, 0.14):
        line = _stroke(x, y, _point(0.02, level + offset), _point(0.14, level + offset + 0.05), 0.0, thin)
        canvas.paint(line, shade, face["nose_wrinkle"])
    mouth = face["mouth_level"]
    fold = _stroke(
        x, y, _point(0.19, mouth - 0.27), _point(face["mouth_width"] + 0.12, mouth - 0.02), 0.03, thin
    )
    canvas.paint(fold, shade, face["cheek_fold"])


def _nose(canvas: _Canvas, face: Numbers) -> None:
    x, y, skin, top = canvas.x, canvas.y, face["skin"], face["eye_height"]
    tip = top + face["nose_length"] - 0.05 * face["nose_wrinkle"]
    ridge = _stroke(x, y, _point(0.06, top + 0.02), _point(0.1, tip), 0.0, 0.02)
    canvas.paint(ridge, skin * 0.82)
    wings = _stroke(np.abs(x), y, _point(0.0, tip + 0.06), _point(0.13, tip + 0.03), -0.01, 0.018)
    canvas.paint(wings, skin * 0.6)
    canvas.paint(_ellipse(np.abs(x) - 0.065, y - tip - 0.045, 0.035, 0.022), _DARK, 0.8)


def _mouth(canvas: _Canvas, face: Numbers) -> None:
    width, opened, weight = face["mouth_width"], np.maximum(face["mouth_open"], 0), face["lip_weight"]
    across = np.clip(canvas.x / width, -1, 1)
    bow = across * across
    y = canvas.y - face["mouth_level"] + face["mouth_lift"] + face["mouth_curve"] * (bow - 0.5)
    beyond = np.maximum(np.abs(canvas.x) - width, 0)
    half = opened * np.sqrt(1 - bow)
    # Lips are a band around the opening, thinner towards the corners.
    lip = weight * (1 - 0.6 * bow)
    away = np.sqrt(beyond * beyond + np.square(np.maximum(np.abs(y) - half, 0)))
    canvas.paint(away - lip, face["skin"] * 0.58)
    inside = np.maximum(np.abs(y) - np.maximum(half, 0.012), np.abs(canvas.x) - width)
    canvas.paint(inside, _DARK)
    # Teeth show in the upper half of the opening.
    canvas.paint(np.maximum(inside, y), _WHITE, np.where(opened > 0.03, face["teeth"], 0))


def _eyes(canvas: _Canvas, face: Numbers) -> None:
    x, y = np.abs(canvas.x) - face["eye_apart"], canvas.y - face["eye_height"]
    opened = np.maximum(face["eye_open"], 0.012)
    tilted = y - face["lid_slope"] * x / -0.16
    eye = _ellipse(x, tilted, 0.16, opened)
    canvas.paint(eye - 0.03, face["skin"] * 0.7)
    canvas.paint(eye, _WHITE * 0.9)
    canvas.paint(np.maximum(_ellipse(x, y, 0.075, 0.075), eye), _DARK)
    lid = np.maximum(np.abs(eye) - 0.018, tilted)
    canvas.paint(lid, face["hair"] * 0.7)


def _brows(canvas: _Canvas, face: Numbers) -> None:
    level = face["eye_height"] + 0.12
    inner = _point(face["brow_gap"], level + face["brow_inner"])
    outer = _point(face["eye_apart"] + 0.21, level + face["brow_outer"] + 0.03)
    line = _stroke(np.abs(canvas.x), canvas.y, inner, outer, face["brow_arch"], face["brow_weight"])
    canvas.paint(line, face["hair"])


def _glasses_and_cover(canvas: _Canvas, face: Numbers) -> None:
    x, y = np.abs(canvas.x) - face["eye_apart"], canvas.y - face["eye_height"]
    rim = np.abs(_ellipse(x, y, 0.25, 0.2)) - 0.022
    bridge = np.maximum(np.abs(y + 0.03) - 0.02, np.abs(canvas.x) - face["eye_apart"] + 0.25)
    canvas.paint(np.minimum(rim, bridge), _DARK, np.where(face["glasses"] > 0, 0.9, 0))
    size = face["cover_size"]
    aside = np.maximum(
        np.abs(canvas.x - face["cover_left"]) - size, np.abs(canvas.y - face["cover_down"]) - size
    )
    canvas.paint(np.where(size > 0, aside, 1), face["cover_grey"])


def _photograph(canvas: _Canvas, face: Numbers, noise: Floats) -> Bytes:
    light = 1 + face["light_across"] * canvas.x + face["light_along"] * canvas.y
    grey = canvas.grey * light
    grey += face["blur"] * (_smooth(grey) - grey)
    grey = (grey - 128) * face["contrast"] + 128 + face["brightness"] + face["noise"] * noise
    image: Bytes = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return image


def _smooth(grey: Floats) -> Floats:
    """Each pixel mixed with its neighbours by 1-2-1 along both axes, the border repeated."""
    wide = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    smooth: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16
    return smooth
