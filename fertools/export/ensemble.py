"""Several trained networks as one export, whose file takes their weighted mean inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertools import contract
from fertools.data import Dataset
from fertools.errors import RunError
from fertools.evaluation import accuracy
from fertools.export.calibration import calibrate
from fertools.export.subject import FinishedRun, read_origin
from fertools.models.ensemble import NAME, shares
from fertools.training.provenance import earlier_commands, label, origins
from fertools.training.seeds import open_runs

if TYPE_CHECKING:
    import keras


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

    Raises RunError if one is none of these or not finished, or they were not trained on the same data.
    """
    members = [member for path in paths for member in _members(path)]
    first = members[0]
    for member in members:
        if member.data["fingerprint"] != first.data["fingerprint"]:
            raise RunError(
                f"{member.path}: was trained on {member.data['name']}, {first.path} on other data"
                f" ({first.data['name']}); an ensemble's members share it"
            )
    return members


def _members(path: Path) -> list[Member]:
    if (path / contract.REPORT_FILE).is_file():
        origin = read_origin(path)
        return [Member(path, path / contract.KERAS_FILE, origin.model, origin.data)]
    runs = [FinishedRun(run) for run in open_runs(path)]
    return [Member(each.path, each.run.best, each.name, each.data) for each in runs]


@dataclass(frozen=True)
class Ensemble:
    """The weighted mean of several networks, a ``Subject`` of an export.

    Arguments:
        members: two or more, see ``open_members``.
        weights: how much each counts, positive; None for alike.

    Raises ConfigError if they do not fit.
    """

    members: Sequence[Member]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        shares(self.weights, len(self.members))

    @property
    def name(self) -> str:
        """What all ensembles are called."""
        return NAME

    @property
    def path(self) -> Path:
        """The first member's."""
        return self.members[0].path

    @property
    def data(self) -> Mapping[str, str]:
        """What all members were trained on."""
        return self.members[0].data

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, summing to 1."""
        return shares(self.weights, len(self.members))

    def network(self, dataset: Dataset) -> keras.Model:
        """Join the members, each as confident as it is right on the validation split.

        A run's network has not been scaled yet and an export's has, by its own temperature: without that, the
        more confident would count for more than its weight says.

        Raises ModelError if the file of one is missing or damaged.
        """
        from fertools.models.ensemble import weighted_mean
        from fertools.models.prediction import load

        networks = [load(member.file) for member in self.members]
        for network in networks:
            calibrate(network, dataset.split("validation"))
        return weighted_mean(networks, self.shares)

    def training(self, dataset: Dataset) -> dict[str, Any]:
        """The members and their mean, measured on the validation split, and the commands that made them.

        Not on the test split: the weights may still be chosen.
        """
        from fertools.models.prediction import load, probabilities, weights_sha256

        weights = self.weights or (1.0,) * len(self.members)
        validation = dataset.split("validation")
        mean: Any = 0.0
        members = []
        others: dict[str, tuple[str, dict[str, str]]] = {}
        for member, weight, share in zip(self.members, weights, self.shares, strict=True):
            network = load(member.file)
            sha256 = weights_sha256(network)
            calibration = calibrate(network, validation)
            rows = probabilities(network, validation.images)
            mean += share * rows
            members.append(
                {
                    "name": label(member.path),
                    "model": member.model,
                    "sha256": sha256,
                    "temperature": calibration.temperature,
                    "weight": weight,
                    "share": share,
                    "validation_accuracy": accuracy(rows, validation.labels),
                }
            )
            others |= {data["fingerprint"]: (label(member.path), data) for data in origins(member.path)[1:]}
        return {
            "members": members,
            "commands": earlier_commands(member.path for member in self.members),
            "images": dataset.counts,
            "notes": [
                *dataset.notes,
                *(
                    f"{name} learned from a network of other data, {data['name']}"
                    for name, data in others.values()
                ),
            ],
            "other_data": [data for _, data in others.values()],
            "validation_accuracy": accuracy(mean, validation.labels),
        }
