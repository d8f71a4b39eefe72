"""The settings of a service, which travel to worker processes by the environment, and what they open."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Final

from fertools.errors import ConfigError, MissingExtraError
from fertools.reading import MOST_PIXELS
from fertools.runtime import Predictor

if TYPE_CHECKING:
    from fertools.faces import FaceFinder

_VARIABLE: Final = "FERTOOLS_SERVE"


@dataclass(frozen=True)
class Settings:
    """How to serve a model.

    Attributes:
        model, precision, provider, threads, views: as ``fertools.runtime.Predictor`` takes them.
        detector, min_confidence: as ``fertools.faces.FaceFinder`` takes them, for /predict?find_faces=1.
        batch_size: most images per run of the network.
        max_delay: seconds that an image waits for others to share a run.
        queue_size: most images in the service at the same time; more are refused by 503.
        max_body: most bytes of a request.
        max_pixels: most pixels of a picture; at most ``MOST_PIXELS`` of ``fertools.reading``.
        drain: seconds between SIGTERM and the closing of idle connections, in which clients are asked to
            close theirs.

    Raises:
        ConfigError: a number makes no sense.
    """

    model: str | None = None
    precision: str = "auto"
    provider: str = "auto"
    threads: int | None = None
    views: str = "single"
    detector: str | None = None
    min_confidence: float | None = None
    batch_size: int = 64
    max_delay: float = 0.0
    queue_size: int = 256
    max_body: int = 10 * 2**20
    max_pixels: int = 25_000_000
    drain: float = 0.5

    def __post_init__(self) -> None:
        for name in ("batch_size", "queue_size", "max_body", "max_pixels"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_pixels > MOST_PIXELS:
            raise ConfigError(f"max_pixels must be at most {MOST_PIXELS}, as Pillow's, not {self.max_pixels}")
        for name in ("max_delay", "drain"):
            if not 0 <= getattr(self, name) <= 60:
                raise ConfigError(f"{name} must be 0 to 60 seconds, not {getattr(self, name)}")

    def predictor(self) -> Predictor:
        """Open the model."""
        return Predictor(
            self.model,
            precision=self.precision,
            providers=self.provider,
            threads=self.threads,
            views=self.views,
        )

    def finder(self) -> FaceFinder | None:
        """Open the face detector. Return None without OpenCV, unless a detector was asked for."""
        from fertools.faces import FaceFinder

        try:
            return FaceFinder(self.detector, min_confidence=self.min_confidence)
        except MissingExtraError:
            if self.detector is not None:
                raise
            return None

    def to_environment(self) -> None:
        """Store the settings in the environment of processes that are started from this one."""
        os.environ[_VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the settings from the environment."""
        told = json.loads(os.environ.get(_VARIABLE, "{}"))
        return cls(**{each.name: told[each.name] for each in fields(cls) if each.name in told})
