"""What was measured of the networks here, from one file in this package."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fertools.files import write_json

#: Network -> its runs. Missing until something was measured.
FILE = Path(__file__).with_name("measured.json")


@dataclass(frozen=True)
class Measured:
    """One training run on FER2013, single view, the epoch chosen on PublicTest. Accuracies are shares."""

    recipe: str
    epochs: int
    #: On PublicTest.
    validation: float
    #: On PrivateTest.
    test: float

    def __str__(self) -> str:
        return (
            f"{self.validation:.2%} on PublicTest, {self.test:.2%} on PrivateTest,"
            f" {self.epochs} epochs, recipe {self.recipe}"
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def measured(file: Path = FILE) -> dict[str, list[Measured]]:
    """The runs of each network that has any."""
    if not file.is_file():
        return {}
    document = json.loads(file.read_text(encoding="utf-8"))
    return {name: [Measured(**run) for run in runs] for name, runs in document.items()}


def write_measured(runs: dict[str, list[Measured]], file: Path = FILE) -> None:
    """Replace the file."""
    write_json(file, {name: [run.to_dict() for run in each] for name, each in runs.items()})
