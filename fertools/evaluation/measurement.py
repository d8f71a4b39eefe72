"""Measure a trained network, in whatever form it is, on one split of a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools import contract
from fertools.data import Dataset
from fertools.errors import ConfigError, ModelError, RunError
from fertools.evaluation.metrics import Evaluation, evaluate
from fertools.runtime import Predictor
from fertools.runtime.prediction import averaged, stacked

#: uint8 (n, 48, 48) -> float32 (n, 7).
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

#: Batch size for exported networks.
BATCH = 64


@dataclass(frozen=True)
class Measurement:
    """The figures of a split, measured twice.

    ``deduplicated`` leaves out the images that are also in another split, which a network may have memorized;
    None if no image is left.
    """

    data: str
    fingerprint: str
    split: str
    views: str
    official: Evaluation
    deduplicated: Evaluation | None

    @property
    def title(self) -> str:
        """Data, split and views, in words."""
        return f"{self.data}, {self.split} split, views: {self.views}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "data": self.data,
            "fingerprint": self.fingerprint,
            "split": self.split,
            "views": self.views,
            "official": self.official.to_dict(),
            "deduplicated": self.deduplicated and self.deduplicated.to_dict(),
        }

    def to_text(self) -> str:
        """Tables for a terminal."""
        lines = [self.title, "", self.official.to_text(), ""]
        if self.deduplicated is None:
            lines.append("Every image is also in another split.")
        else:
            lines += ["Without the images that are also in another split:", self.deduplicated.headline()]
        return "\n".join(lines)


def measure(network: Network, dataset: Dataset, split: str, views: str = "single") -> Measurement:
    """Measure ``network`` on a split.

    Arguments:
        network: answers for single images.
        dataset: holds the split.
        split: "train", "validation" or "test".
        views: "single", or "flip" for the mean over each image and its mirror.

    Raises:
        DataError: the split is empty.
        ConfigError: there is no such split, or no such views.
        ModelError: the network answers with anything but probabilities.
    """
    images = dataset.split(split)
    probabilities = averaged(network(stacked(images.images, views)), views)
    _check_answers(probabilities)
    once = dataset.only_in(split)
    return Measurement(
        data=dataset.name,
        fingerprint=dataset.fingerprint,
        split=split,
        views=views,
        official=evaluate(probabilities, images.labels),
        deduplicated=evaluate(probabilities[once], images.labels[once]) if once.any() else None,
    )


def _check_answers(rows: NDArray[np.float32]) -> None:
    # Written so that NaN fails.
    good = (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-2)
    if not good.all():
        kind = "no probabilities" if np.isfinite(rows).all() else "NaN or infinity"
        count = len(rows) - int(good.sum())
        raise ModelError(f"the network answers {kind} for {count} of {len(rows)} images; choose another")


def open_network(path: Path, precision: str = "auto") -> Network:
    """Open a trained or exported network.

    Arguments:
        path: a run folder (its best network) or a .keras file (both through Keras), or an export folder or
            .onnx or .ort file (both through ``fertools.runtime.Predictor``).
        precision: "auto", "float32" or "int8"; a run and a .keras file have float32 alone.

    Raises:
        ModelError: a file is missing or damaged.
        ProviderError: as ``Predictor``.
        MissingExtraError: as ``Predictor``.
        RunError: the run has no finished epoch yet.
        ConfigError: int8 was asked for and this is a run or a .keras file.
    """
    run = is_run(path)
    if run or path.suffix == ".keras":
        if precision == "int8":
            kind = "a run" if run else "a Keras file"
            raise ConfigError(f"{path}: {kind} has no int8 network; make one with fertools export --quantize")
        return _keras_network(_best(path) if run else path)
    predictor = Predictor(path, precision=precision)
    return lambda images: in_batches(predictor, images)


def in_batches(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities float32 (n, 7) of many images, computed in batches that fit a small memory."""
    starts = range(0, max(len(images), 1), BATCH)
    return np.concatenate([predictor.probabilities(images[start : start + BATCH]) for start in starts])


def is_run(path: Path) -> bool:
    """Whether ``path`` is a run folder (and not an export folder or a file)."""
    return (path / contract.CONFIG_FILE).is_file()


def _best(run: Path) -> Path:
    file = run / contract.BEST_FILE
    if not file.is_file():
        raise RunError(f"{file}: missing; the run has no finished epoch yet: resume it")
    return file


def _keras_network(path: Path) -> Network:
    from fertools.models.inference import load, probabilities

    network = load(path)
    return lambda images: probabilities(network, images)
