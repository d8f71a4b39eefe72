"""The views of a face that a network is shown, and the mean of its answers to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from fertools.runtime.arguments import choice

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


def _itself(images: Images) -> Images:
    return images


def _mirrored(images: Images) -> Images:
    return images[:, :, ::-1]


#: Name -> what is shown of each image, the image itself first.
VIEWS: Final[Mapping[str, tuple[Callable[[Images], Images], ...]]] = {
    "single": (_itself,),
    "flip": (_itself, _mirrored),
}


def check_views(views: str) -> str:
    """Give `views` back.

    Raises:
        ConfigError: there are no views of that name.
    """
    return choice("views", views, tuple(VIEWS))


def stacked(images: Images, views: str) -> Images:
    """All views of n images as one batch, the images themselves first.

    Arguments:
        images: uint8 (n, 48, 48) or (n, 48, 48, 1).
        views: a name in `VIEWS`.

    Returns:
        uint8 (v * n, 48, 48[, 1]), v being the number of views.

    Raises:
        ConfigError: there are no views of that name.
    """
    shown = [view(images) for view in VIEWS[check_views(views)]]
    return shown[0] if len(shown) == 1 else np.concatenate(shown)


def averaged(rows: Probabilities, views: str) -> Probabilities:
    """The mean over the views: float32 (n, 7) of the answers (v * n, 7) to a batch of `stacked`."""
    if len(VIEWS[views]) == 1:
        return rows
    means: Probabilities = rows.reshape(len(VIEWS[views]), -1, rows.shape[1]).mean(axis=0)
    return means
