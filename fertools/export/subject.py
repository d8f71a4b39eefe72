"""What can be exported: a trained network, and what its report tells of where it comes from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fertools import contract
from fertools.data import Dataset
from fertools.errors import ModelError, RunError
from fertools.evaluation import accuracy
from fertools.reading import read_text
from fertools.training import Run
from fertools.training.provenance import label
from fertools.training.seeds import best_seed, siblings

if TYPE_CHECKING:
    import keras


class Subject(Protocol):
    """What an export asks of what it exports."""

    @property
    def name(self) -> str:
        """What the model is called."""

    @property
    def path(self) -> Path:
        """Where it lies, for people."""

    @property
    def data(self) -> Mapping[str, str]:
        """Name and fingerprint of the data that it was trained on."""

    def network(self, dataset: Dataset) -> keras.Model:
        """Load it, in float32; what has to be fitted for that is fitted on the validation split."""

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """What the report tells of its training, as JSON values: nothing about the machine's folders."""


@dataclass(frozen=True)
class Origin:
    """What an export was made from."""

    #: The network's name.
    model: str
    #: Name and fingerprint of the data that it was trained on.
    data: Mapping[str, str]


def read_origin(folder: Path) -> Origin:
    """What the report of an export tells of it. Raises ModelError if ``folder`` is no export."""
    file = folder / contract.REPORT_FILE
    try:
        model = json.loads(read_text(file))["model"]
        return Origin(str(model["name"]), {key: str(model["data"][key]) for key in ("name", "fingerprint")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: not the report of an export; make it anew with fertools export") from error


@dataclass(frozen=True)
class FinishedRun:
    """The best network of a run. Raises RunError if the run is not finished."""

    run: Run

    def __post_init__(self) -> None:
        if not self.run.finished:
            path = self.run.path
            raise RunError(f"{path}: not finished; go on with 'fertools train --resume {path}'")

    @property
    def name(self) -> str:
        """The network's name."""
        return self.run.config.model

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def data(self) -> dict[str, Any]:
        """Of run.json."""
        data: dict[str, Any] = self.run.facts["data"]
        return data

    def network(self, dataset: Dataset) -> keras.Model:
        """Load the best epoch's."""
        from fertools.models.prediction import load

        return load(self.run.best)

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """How the run was trained, and its seeds, measured on ``dataset``."""
        facts, metrics = self.run.facts, self.run.metrics
        return {
            "run": label(self.run.path),
            "commands": facts["commands"],
            "config": self.run.config.to_dict(),
            "weights": facts.get("weights"),
            "distillation": facts.get("distillation"),
            "precision": facts["precision"],
            "device": facts["device"],
            "versions": facts["versions"],
            "images": facts["data"]["images"],
            "notes": facts["data"]["notes"],
            "other_data": facts.get("other_data", []),
            "epochs": metrics["epochs"],
            "best_epoch": metrics["best_epoch"],
            "validation_accuracy": metrics["validation"]["accuracy"],
            "seeds": _seeds(self.run, dataset),
        }


def _seeds(run: Run, dataset: Dataset) -> dict[str, Any] | None:
    """Accuracies of the best networks of all seeds that ``run`` was trained with, and the best of them.

    None if there is but one.
    """
    from fertools.models.prediction import load, probabilities

    runs = siblings(run)
    if len(runs) < 2:
        return None
    found: dict[str, list[float]] = {"validation": [], "test": []}
    for network in (load(other.best) for other in runs):
        for name, accuracies in found.items():
            split = dataset.split(name)
            accuracies.append(accuracy(probabilities(network, split.images), split.labels))
    return {
        "seeds": [other.config.seed for other in runs],
        **{
            name: {
                "values": accuracies,
                "mean": statistics.mean(accuracies),
                "deviation": statistics.stdev(accuracies),
            }
            for name, accuracies in found.items()
        },
        "best": best_seed(run).config.seed,
    }
