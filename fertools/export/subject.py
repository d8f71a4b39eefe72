"""What is exported: the best network of a run, several networks as one ensemble, or an earlier export's."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fertools import contract
from fertools.data import Dataset
from fertools.errors import ModelError, RunError
from fertools.evaluation import accuracy
from fertools.export.card import model_card, report_errors
from fertools.export.temperature_scaling import TemperatureScaling, scale_temperature
from fertools.models.ensemble import NAME, shares
from fertools.provenance import earlier_commands, label, origins, unknown_note, unknown_origins
from fertools.reading import read_text
from fertools.runtime.location import keras_file, model_files
from fertools.training import Run
from fertools.training.run import best_seed, open_runs, siblings

if TYPE_CHECKING:
    import keras


class Subject(Protocol):
    """What an export needs to know about a network."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def folders(self) -> Sequence[Path]:
        """The folders that it is read from; messages name the first."""

    @property
    def data(self) -> Mapping[str, str]:
        """Name and fingerprint of the data that it was trained on."""

    @property
    def scaling(self) -> TemperatureScaling | None:
        """The temperature that the network has already; None if it is yet to be scaled."""

    def network(self, dataset: Dataset) -> keras.Model:
        """Load it in float32; anything that must be fitted for that is fitted on the validation split."""

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """The report's account of its training, as JSON values, without any folders of this machine."""


@dataclass(frozen=True)
class Origin:
    """What an export was made from."""

    #: The network's name.
    model: str
    #: Name and fingerprint of the data that it was trained on.
    data: Mapping[str, str]


def read_origin(folder: Path) -> Origin:
    """Read the origin of an export from its report.

    Raises:
        ModelError: ``folder`` is not an export.
    """
    file = folder / contract.REPORT_FILE
    try:
        model = json.loads(read_text(file))["model"]
        return Origin(str(model["name"]), {key: str(model["data"][key]) for key in ("name", "fingerprint")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file}: not the report of an export; export again with fertools export") from error


@dataclass(frozen=True)
class FinishedRun:
    """The best network of a run.

    Raises:
        RunError: the run is not finished.
    """

    run: Run

    def __post_init__(self) -> None:
        if not self.run.finished:
            path = self.run.path
            raise RunError(f"{path}: not finished; continue with 'fertools train --resume {path}'")

    @property
    def name(self) -> str:
        """The network's name."""
        return self.run.config.model

    @property
    def folders(self) -> tuple[Path]:
        """The run's."""
        return (self.run.path,)

    @property
    def data(self) -> dict[str, Any]:
        """From run.json."""
        data: dict[str, Any] = self.run.facts["data"]
        return data

    @property
    def scaling(self) -> None:
        """None: training scales no temperature."""

    def network(self, dataset: Dataset) -> keras.Model:
        """Load the network of the best epoch."""
        from fertools.models.inference import load

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
            "unknown_data": facts.get("unknown_data", []),
            "epochs": metrics["epochs"],
            "best_epoch": metrics["best_epoch"],
            "validation_accuracy": metrics["validation"]["accuracy"],
            "seeds": _seeds(self.run, dataset),
        }


def _seeds(run: Run, dataset: Dataset) -> dict[str, Any] | None:
    """Return the accuracies of the best networks of all seeds of ``run``, and the best seed.

    None if there is only one seed.
    """
    from fertools.models.inference import load, probabilities

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


@dataclass(frozen=True)
class Member:
    """One network of an ensemble."""

    #: A run or an export folder.
    path: Path
    #: Its ``.keras`` file.
    file: Path
    #: The network's name.
    model: str
    #: Name and fingerprint of the data that it was trained on.
    data: Mapping[str, str]


def open_members(paths: Sequence[Path]) -> list[Member]:
    """The networks at ``paths``: runs, folders of seeds (a member each), export folders.

    Raises:
        RunError: a path is none of these, a run is not finished, or they were not trained on the same data.
    """
    members = [member for path in paths for member in _members(path)]
    first = members[0]
    for member in members:
        if member.data["fingerprint"] != first.data["fingerprint"]:
            raise RunError(
                f"{member.path}: it was trained on {member.data['name']}, {first.path} on other data"
                f" ({first.data['name']}); an ensemble's members share it"
            )
    return members


def is_export(path: Path) -> bool:
    """Whether ``path`` is an export folder, perhaps without all of its files, as in a wheel."""
    return (path / contract.REPORT_FILE).is_file() or bool(model_files(path))


def _members(path: Path) -> list[Member]:
    if is_export(path):
        origin = read_origin(path)
        return [Member(path, path / contract.KERAS_FILE, origin.model, origin.data)]
    runs = [FinishedRun(run) for run in open_runs(path)]
    return [Member(each.run.path, each.run.best, each.name, each.data) for each in runs]


@dataclass(frozen=True)
class Ensemble:
    """The weighted mean of several networks, a ``Subject`` of an export.

    Arguments:
        members: two or more, see ``open_members``.
        weights: weight of each member, positive; None for equal weights.

    Raises:
        ConfigError: the weights do not fit the members.
    """

    members: Sequence[Member]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        shares(self.weights, len(self.members))

    @property
    def name(self) -> str:
        """The name of all ensembles."""
        return NAME

    @property
    def folders(self) -> list[Path]:
        """The members'."""
        return [member.path for member in self.members]

    @property
    def data(self) -> Mapping[str, str]:
        """The data that all members were trained on."""
        return self.members[0].data

    @property
    def scaling(self) -> None:
        """None: the members have temperatures, their mean has not."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, summing to 1."""
        return shares(self.weights, len(self.members))

    def network(self, dataset: Dataset) -> keras.Model:
        """Join the members after temperature scaling of each on the validation split.

        An export's network is already scaled by its own temperature, a run's is not. Without scaling, a more
        confident member would count for more than its weight.

        Raises:
            ModelError: the file of a member is missing or damaged.
        """
        from fertools.models.ensemble import weighted_mean
        from fertools.models.inference import load

        networks = [load(member.file) for member in self.members]
        for network in networks:
            scale_temperature(network, dataset.split("validation"))
        return weighted_mean(networks, self.shares)

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """The members and their mean, measured on the validation split, and the commands that made them.

        Not on the test split: the weights may still be chosen.
        """
        from fertools.models.inference import load, probabilities, weights_sha256

        weights = self.weights or (1.0,) * len(self.members)
        validation = dataset.split("validation")
        mean: Any = 0.0
        members = []
        others: dict[str, tuple[str, dict[str, str]]] = {}
        for member, weight, share in zip(self.members, weights, self.shares, strict=True):
            network = load(member.file)
            sha256 = weights_sha256(network)
            scaling = scale_temperature(network, validation)
            rows = probabilities(network, validation.images)
            mean += share * rows
            members.append(
                {
                    "name": label(member.path),
                    "model": member.model,
                    "sha256": sha256,
                    "temperature": scaling.temperature,
                    "weight": weight,
                    "share": share,
                    "validation_accuracy": accuracy(rows, validation.labels),
                }
            )
            others |= {data["fingerprint"]: (label(member.path), data) for data in origins(member.path)[1:]}
        unknown = unknown_origins(member.path for member in self.members)
        return {
            "members": members,
            "commands": earlier_commands(member.path for member in self.members),
            "images": dataset.counts,
            "notes": [
                *dataset.notes,
                *(
                    f"{name} learned from a network that was trained on other data, {data['name']}"
                    for name, data in others.values()
                ),
                *map(unknown_note, unknown),
            ],
            "other_data": [data for _, data in others.values()],
            "unknown_data": unknown,
            "validation_accuracy": accuracy(mean, validation.labels),
        }


@dataclass(frozen=True)
class EarlierExport:
    """The network of an export, for files in another format or with another quantization."""

    path: Path
    name: str
    data: Mapping[str, str]
    #: As it was measured when the temperature was fitted.
    scaling: TemperatureScaling
    #: What the report says of the training.
    record: Mapping[str, Any]
    #: Of the weights that the report is about.
    weights_sha256: str

    @property
    def folders(self) -> tuple[Path]:
        """The export's."""
        return (self.path,)

    def network(self, dataset: Dataset) -> keras.Model:
        """Load it.

        Raises:
            ModelError: the file is missing or damaged, or is not the network of the report.
        """
        from fertools.models.inference import load, weights_sha256

        file = keras_file(self.path)
        network = load(file)
        if weights_sha256(network) != self.weights_sha256:
            raise ModelError(
                f"{file}: not the network that {contract.REPORT_FILE} is about; export its run again"
            )
        return network

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """The record, and the command that made the export."""
        return {**self.record, "commands": earlier_commands([self.path]), "export": label(self.path)}


def open_export(folder: Path) -> EarlierExport:
    """Open an export to export it again.

    Raises:
        ModelError: it has no ``.keras`` file, or no report, or this is damaged or of another version.
    """
    keras_file(folder)
    origin, file = read_origin(folder), folder / contract.REPORT_FILE
    with report_errors(file):
        document = json.loads(read_text(file))
        model_card(document)  # nothing is missing that the new card needs
        scaling = {
            each.name: document["temperature_scaling"][each.name] for each in fields(TemperatureScaling)
        }
        record, weights_sha256 = document["training"], document["model"]["weights_sha256"]
    return EarlierExport(
        folder, origin.model, origin.data, TemperatureScaling(**scaling), record, weights_sha256
    )
