"""A picture with some images of each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fertools.contract import IMAGE_SIZE, LABELS
from fertools.data.dataset import Dataset
from fertools.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pixels between images, and for the class names at the left.
_GAP: Final = 4
_MARGIN: Final = 72

#: Faces are shown at twice their size.
_ZOOM: Final = 2


def preview(dataset: Dataset, split: str = "train", per_class: int = 10, seed: int = 0) -> Image:
    """Draw a grid with one row per class: its name, then up to ``per_class`` images, chosen with the seed.

    Raises:
        ConfigError: there is no such split, or ``per_class`` is not 1..100.
        DataError: the split is empty.
    """
    from PIL import Image, ImageDraw

    if not 1 <= per_class <= 100:
        raise ConfigError(f"images per class must be 1..100, got {per_class}")
    faces = dataset.split(split)
    random = np.random.default_rng(seed)
    step = IMAGE_SIZE * _ZOOM + _GAP
    grid = Image.new("L", (_MARGIN + per_class * step, len(LABELS) * step + _GAP), 255)
    pen = ImageDraw.Draw(grid)
    for label, name in enumerate(LABELS):
        top = _GAP + label * step
        pen.text((_GAP, top + step // 2 - 8), name, fill=0)
        rows = np.flatnonzero(faces.labels == label)
        for column, row in enumerate(random.permutation(rows)[:per_class]):
            large = faces.images[row].repeat(_ZOOM, axis=0).repeat(_ZOOM, axis=1)
            grid.paste(Image.fromarray(large), (_MARGIN + column * step, top))
    return grid
