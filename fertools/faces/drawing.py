"""Draw boxes and labels on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from PIL.Image import Image

#: Lines and letters scale with the picture: its longer side divided by the first number, in pixels, and at
#: least the second.
_LINE: Final = (400, 2)
_LETTER: Final = (40, 12)

#: Label -> colour: those of Okabe and Ito (2008), which colour-blind people can distinguish.
COLORS: Final = {
    "Angry": (213, 94, 0),
    "Disgust": (0, 158, 115),
    "Fear": (204, 121, 167),
    "Happy": (240, 228, 66),
    "Sad": (0, 114, 178),
    "Surprise": (86, 180, 233),
    "Neutral": (200, 200, 200),
}
_OTHER: Final = (230, 159, 0)


def draw(image: Any, marks: Sequence[tuple[Sequence[float], str, str]]) -> Image:
    """Draw boxes with their texts, which stay within the picture.

    Arguments:
        image: what ``FaceFinder.find`` takes.
        marks: for each face its box (x, y, width, height) in pixels of the upright picture, its label, which
            gives the colour, and the text to write at it.

    Returns:
        A new Pillow image, upright, RGB.
    """
    from PIL import Image, ImageDraw

    from fertools.faces.picture import Picture

    picture = Picture(image)
    drawn = Image.fromarray(picture.part(0, 0, picture.width, picture.height))
    pen = ImageDraw.Draw(drawn)
    longer = max(drawn.size)
    line, letter = (max(least, round(longer / share)) for share, least in (_LINE, _LETTER))
    font = _font(letter)
    gap = max(2, letter // 5)
    # The largest first, so that the box of a larger face does not cover a text.
    for (x, y, width, height), label, text in sorted(marks, key=lambda mark: -mark[0][2] * mark[0][3]):
        color = COLORS.get(label, _OTHER)
        pen.rectangle((x, y, x + width - 1, y + height - 1), outline=color, width=line)
        # The same height for all texts, with or without descenders.
        wide, high = pen.textlength(text, font=font) + 2 * gap, sum(font.getmetrics()) + gap
        left = min(max(x, 0), max(drawn.width - wide, 0))
        # Above the box, else below it, else inside.
        above, below = y - high, y + height
        top = above if above >= 0 else below if below + high <= drawn.height else max(y, 0)
        pen.rectangle((left, top, left + wide, top + high), fill=color)
        dark = sum(part * share for part, share in zip(color, (0.299, 0.587, 0.114), strict=True)) > 110
        pen.text((left + gap, top + gap // 2), text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)
    return drawn


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    """Pillow's own font, loaded once per size: a video has many frames."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
