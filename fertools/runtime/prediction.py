"""The answer for one image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fertools.runtime.arguments import whole_number


@dataclass(frozen=True, slots=True, repr=False)
class Prediction:
    """What a model says about one face. Immutable, hashable and picklable."""

    #: (label, probability) in the order of the model's outputs; probabilities in 0..1 that sum to 1.
    scores: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable label; of equal ones the first in the model's order."""
        return self.top(1)[0][0]

    @property
    def confidence(self) -> float:
        """The probability of `label`, 0..1."""
        return self.top(1)[0][1]

    @property
    def probabilities(self) -> Mapping[str, float]:
        """Label -> probability in the model's order; read-only."""
        return MappingProxyType(dict(self.scores))

    def top(self, k: int) -> tuple[tuple[str, float], ...]:
        """The `k` most probable (label, probability), best first; all of them if there are fewer.

        Raises:
            ConfigError: `k` is not a positive integer.
        """
        return tuple(sorted(self.scores, key=lambda score: -score[1])[: whole_number("k", k)])

    def to_dict(self) -> dict[str, Any]:
        """`label`, `confidence` and `probabilities` as JSON types."""
        return {"label": self.label, "confidence": self.confidence, "probabilities": dict(self.scores)}

    def __repr__(self) -> str:
        return f"Prediction(label={self.label!r}, confidence={self.confidence:.4f})"
