"""The prediction for one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fertools.runtime.arguments import choice, whole_number


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """The prediction of a model for one face. Immutable, hashable and picklable."""

    #: (label, probability) in the order of the model's outputs; probabilities in 0..1 that sum to 1.
    scores: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, labels: Sequence[str], probabilities: Sequence[float]) -> Self:
        """Pair the labels with their probabilities, in the same order."""
        return cls(tuple(zip(labels, probabilities, strict=True)))

    @property
    def label(self) -> str:
        """The most probable label; of equally probable ones the first in the model's order."""
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        """The probability of ``label``, 0..1."""
        return self.top(1)[0][1]

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Label -> probability in the model's order; read-only."""
        return MappingProxyType(dict(self.scores))

    def top(self, k: int) -> tuple[tuple[str, float], ...]:
        """The ``k`` most probable (label, probability), best first; all of them if there are fewer.

        Raises:
            ConfigError: ``k`` is not a positive integer.
        """
        return tuple(sorted(self.scores, key=lambda score: -score[1])[: whole_number("k", k)])

    def to_dict(self) -> dict[str, Any]:
        """``label``, ``confidence`` and ``probabilities`` as JSON types."""
        return {"label": self.label, "confidence": self.confidence, "probabilities": dict(self.scores)}

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, confidence={self.confidence:.4f})"


Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]


def _itself(images: Images) -> Images:
    return images


def _mirrored(images: Images) -> Images:
    return images[:, :, ::-1]


#: Name -> the views of each image that the network sees, the image itself first.
VIEWS: Final[Mapping[str, tuple[Callable[[Images], Images], ...]]] = {
    "single": (_itself,),
    "flip": (_itself, _mirrored),
}


def check_views(views: str) -> str:
    """Return ``views``.

    Raises:
        ConfigError: there are no views of that name.
    """
    return choice("views", views, tuple(VIEWS))


def stacked(images: Images, views: str) -> Images:
    """All views of n images as one batch, the images themselves first.

    Arguments:
        images: uint8 (n, 48, 48) or (n, 48, 48, 1).
        views: a name in ``VIEWS``.

    Returns:
        uint8 (v * n, 48, 48[, 1]), v being the number of views.

    Raises:
        ConfigError: there are no views of that name.
    """
    shown = [view(images) for view in VIEWS[check_views(views)]]
    return shown[0] if len(shown) == 1 else np.concatenate(shown)


def averaged(rows: Probabilities, views: str) -> Probabilities:
    """Return the mean over the views, float32 (n, 7), of the answers (v * n, 7) to a ``stacked`` batch."""
    if len(VIEWS[views]) == 1:
        return rows
    means: Probabilities = rows.reshape(len(VIEWS[views]), -1, rows.shape[1]).mean(axis=0)
    return means
