"""Fit a trained model to new faces without forgetting the old ones.

Training on new images alone forgets the old ones within a few epochs. Two remedies: where the old data is at
hand, some of its training images are mixed in (rehearsal, Robins 1995); where it is not, the old model is a
teacher beside the new labels (learning without forgetting, Li and Hoiem 2016, arXiv:1606.09282).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fertools import contract
from fertools.data import Dataset
from fertools.errors import DataError, ModelError
from fertools.reading import read_text
from fertools.runtime.location import keras_file
from fertools.tables import text_table
from fertools.training.config import TrainConfig
from fertools.training.distillation import DistillConfig

#: Differences from the default recipe: fewer steps at a fifth of its rate, in small batches, because there
#: are few new images; less augmentation, because these look like what the device will see.
RECIPE: dict[str, Any] = {
    "epochs": 20,
    "batch_size": 32,
    "learning_rate": 0.01,
    "warmup_epochs": 1,
    "augmentation": "light",
}
#: Old training images that are mixed in per new one, as far as there are enough.
REHEARSED = 2
#: How the old model teaches where the old data is not at hand.
TEACHING = DistillConfig(label_share=0.7)


@dataclass(frozen=True)
class Base:
    """The model that is adapted."""

    #: An export folder.
    path: Path
    #: The network's name.
    model: str
    #: Fingerprint of the data that it was trained on.
    fingerprint: str

    @property
    def weights(self) -> Path:
        """Its ``.keras`` file."""
        return self.path / contract.KERAS_FILE


def open_base(folder: Path) -> Base:
    """Open the model in an export folder.

    Raises:
        ModelError: it has no ``.keras`` file or no report.
    """
    keras_file(folder)
    report = folder / contract.REPORT_FILE
    try:
        document = json.loads(read_text(report))
        model = document["training"]["config"]["model"]
        return Base(folder, str(model), str(document["model"]["data"]["fingerprint"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{report}: not the report of a single network's export") from error


def adapt_config(base: Base, **changes: Any) -> TrainConfig:
    """Return the configuration: ``RECIPE`` for the base's network, with ``changes``. Raises ConfigError."""
    return TrainConfig(**{"model": base.model, **RECIPE, **changes})


def rehearsed(new: Dataset, old: Dataset, seed: int = 0) -> Dataset:
    """Return the new data with training images of the old data mixed into its train split.

    Arguments:
        new: its validation and test splits are those of the result, so choices are made on new faces.
        old: gives ``REHEARSED`` train images for each new one, drawn at random, or all it has.
        seed: of that drawing.

    Raises:
        DataError: either has no train split.
    """
    faces, count = old.split("train"), REHEARSED * len(new.split("train"))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(faces))[:count])
    note = f"train: {len(chosen):,} images of {old.name} mixed in, drawn with seed {seed}"
    return Dataset(
        f"{new.name} with {old.name}",
        np.concatenate([new.images, faces.images[chosen]]),
        np.concatenate([new.labels, faces.labels[chosen]]),
        np.concatenate([new.usage, np.zeros(len(chosen), np.uint8)]),
        (*new.notes, note),
    )


@dataclass(frozen=True)
class Change:
    """Validation accuracies, shares, of the model before and after; ``old`` is None without the old data."""

    new: tuple[float, float]
    old: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        names = ("before", "after")
        return {
            "new": dict(zip(names, self.new, strict=True)),
            "old": self.old and dict(zip(names, self.old, strict=True)),
        }

    def to_text(self) -> str:
        """A table for a terminal."""
        rows = [
            (name, f"{pair[0]:.2%}", f"{pair[1]:.2%}", f"{100 * (pair[1] - pair[0]):+.2f}")
            for name, pair in (("new faces", self.new), ("old faces", self.old))
            if pair is not None
        ]
        return text_table(("validation accuracy", "before", "after", "points"), rows)


def measure_change(base: Base, adapted: Path, new: Dataset, old: Dataset | None) -> Change:
    """Measure the base and an adapted ``.keras`` file on the validation splits, with a single view.

    Raises:
        ModelError: a file is damaged.
        DataError: the new data has no validation split.
    """
    from fertools.evaluation import accuracy
    from fertools.models.inference import load, probabilities

    networks = [load(base.weights), load(adapted)]

    def both(dataset: Dataset) -> tuple[float, float]:
        split = dataset.split("validation")
        before, after = (accuracy(probabilities(each, split.images), split.labels) for each in networks)
        return before, after

    return Change(both(new), None if old is None else both(old))


def check_enough(new: Dataset) -> None:
    """Raise DataError unless the new data has images to learn from, and to judge by."""
    few, counts = len(contract.LABELS), new.counts
    missing = [
        f"{least - counts[name]} more {name} images"
        for name, least in {"train": few, "validation": few, "test": 1}.items()
        if counts[name] < least
    ]
    if missing:
        raise DataError(f"{new.name}: too few images to adapt to; it takes {' and '.join(missing)}")
