"""A trained network, wherever it is, measured on one split of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fertools.data import Dataset
from fertools.errors import ConfigError, RunError
from fertools.evaluation.metrics import Evaluation, evaluate

if TYPE_CHECKING:
    from fertools.runtime import Predictor

#: uint8 (n, 48, 48) -> float32 (n, 7).
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

#: Images an exported network gets at a time.
BATCH = 64


@dataclass(frozen=True)
class Measurement:
    """A split, measured twice.

    ``deduplicated`` leaves out the images that also stand in another split, which a network may have
    learnt by heart; None if that leaves none.
    """

    data: str
    fingerprint: str
    split: str
    official: Evaluation
    deduplicated: Evaluation | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "official": self.official.to_dict(),
            "deduplicated": self.deduplicated and self.deduplicated.to_dict(),
        }

    def to_text(self) -> str:
        """Tables for a terminal."""
        lines = [f"{self.data}, {self.split} split", "", self.official.to_text(), ""]
        if self.deduplicated is None:
            lines.append("Every image also stands in another split.")
        else:
            lines += ["Without the images that also stand in another split:", self.deduplicated.headline()]
        return "\n".join(lines)


def measure(network: Network, dataset: Dataset, split: str) -> Measurement:
    """Measure ``network`` on a split. Raises DataError if the split is empty, ConfigError for no split."""
    images = dataset.split(split)
    probabilities = network(images.images)
    unseen = dataset.is_unseen(split)
    return Measurement(
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        split=split,
        official=evaluate(probabilities, images.labels),
        deduplicated=evaluate(probabilities[unseen], images.labels[unseen]) if unseen.any() else None,
    )


def open_network(path: Path, precision: str = "auto") -> Network:
    """Open what was trained or exported.

    Arguments:
        path: a run folder (its best network, through Keras), or an export folder or .onnx file
            (through ``fertools.runtime.Predictor``).
        precision: "auto", "float32" or "int8"; a run has float32 alone.

    Raises ModelError, ProviderError or MissingExtraError as ``Predictor`` does, ModelError too if the run's
    network is damaged, RunError if the run has none yet, ConfigError if it is asked for int8.
    """
    if is_run(path):
        if precision == "int8":
            raise ConfigError(f"{path}: a run has no int8 network; make one with fertools export --quantize")
        return _keras_network(path / "best.keras")
    from fertools.runtime import Predictor

    predictor = Predictor(path, precision=precision)
    return lambda images: in_batches(predictor, images)


def in_batches(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities float32 (n, 7) of many images, in batches that fit small memories."""
    starts = range(0, len(images), BATCH)
    return np.concatenate([predictor.probabilities(images[start : start + BATCH]) for start in starts])


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder (and not an export folder or a file)."""
    return (path / "config.json").is_file()


def _keras_network(path: Path) -> Network:
    from fertools.models.prediction import load, probabilities

    if not path.is_file():
        raise RunError(f"{path}: missing; the run has no finished epoch yet, resume it")
    network = load(path)
    return lambda images: probabilities(network, images)
