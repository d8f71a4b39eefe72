"""The same training with several seeds: a folder whose sub-folders are runs."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fertools.errors import RunError
from fertools.evaluation import is_run
from fertools.training.config import TrainConfig
from fertools.training.run import Run

#: What the sub-folders are called, before the seed.
PREFIX = "seed-"


def seed_folder(path: Path, seed: int) -> Path:
    """The run of ``seed`` in the folder ``path``."""
    return path / f"{PREFIX}{seed}"


def seeded(config: TrainConfig, count: int) -> list[TrainConfig]:
    """``config`` with its own seed and the ``count - 1`` after it."""
    return [dataclasses.replace(config, seed=config.seed + number) for number in range(count)]


def open_runs(path: Path) -> list[Run]:
    """The run at ``path``, or the runs of all seeds in it, by seed. Raises RunError if there is none."""
    folders = [folder for folder in path.glob(f"{PREFIX}*") if is_run(folder)]
    if not folders:
        return [Run.open(path)]
    return sorted((Run(folder) for folder in folders), key=lambda run: run.config.seed)


def siblings(run: Run) -> list[Run]:
    """The finished runs of all seeds: ``run``, and those beside it that differ in nothing but the seed."""
    path = run.path.resolve()
    if not path.name.startswith(PREFIX):
        return [run]
    return [other for other in open_runs(path.parent) if other.finished and _alike(run, other)]


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs were told the same, but for the seed, and learned from the same data and networks."""
    same_config = dataclasses.replace(one.config, seed=0) == dataclasses.replace(other.config, seed=0)
    facts, others = one.facts, other.facts
    return (
        same_config
        and facts["data"]["fingerprint"] == others["data"]["fingerprint"]
        and all(facts.get(name) == others.get(name) for name in ("weights", "distillation"))
    )


def best_seed(run: Run) -> Run:
    """The best of ``run`` and its siblings on the validation split; the first of equal ones."""
    return max(siblings(run), key=validation_accuracy)


def validation_accuracy(run: Run) -> float:
    """Of a finished run's best network, a share."""
    return float(run.metrics["validation"]["accuracy"])


@dataclass(frozen=True)
class SeedSummary:
    """Validation accuracies, shares, of one run a seed; the standard deviation is the sample's."""

    accuracies: tuple[float, ...]
    mean: float
    deviation: float
    best: Run

    @classmethod
    def of(cls, runs: Sequence[Run]) -> SeedSummary:
        """Sum finished runs up. Raises RunError for fewer than two."""
        if len(runs) < 2:
            raise RunError("a deviation needs two runs or more")
        accuracies = tuple(map(validation_accuracy, runs))
        best = max(zip(accuracies, runs, strict=True), key=lambda pair: pair[0])[1]
        return cls(accuracies, statistics.mean(accuracies), statistics.stdev(accuracies), best)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self) | {"best": str(self.best.path)}
