"""A sweep over a grid of options: a folder with one run per combination of their values.

::

    DIR/
      sweep.json              the configuration of every run, the data's fingerprint, what failed
      learning_rate=0.1/      a run folder, or a folder of seeds
      learning_rate=0.01/
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from fertools.data import Dataset
from fertools.errors import ConfigError, RunError
from fertools.files import write_json
from fertools.reading import read_text
from fertools.training.config import TrainConfig
from fertools.training.run import Run

SCHEMA_VERSION = 1
FILE = "sweep.json"


def grid(settings: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return all combinations of the values of ``settings``, each a "name=value,value".

    Values that contain commas are separated by semicolons.

    Returns:
        Name of the combination's run -> fields of TrainConfig, the last setting varying fastest.

    Raises:
        ConfigError: a name is unknown or repeated, or a value has the wrong type. TrainConfig checks the
            values themselves.
    """
    axes: dict[str, list[Any]] = {}
    for setting in settings:
        name, values = _parse(setting)
        if name in axes:
            raise ConfigError(f"{setting}: {name} is set twice; give all its values at once")
        axes[name] = values
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    return {",".join(f"{name}={value}" for name, value in point.items()): point for point in points}


def _parse(setting: str) -> tuple[str, list[Any]]:
    """Return name and typed values of "name=value,value"; the name may be written like the option."""
    name, equals, texts = setting.partition("=")
    name = name.strip().removeprefix("--").replace("-", "_")
    kinds = get_type_hints(TrainConfig)
    if name not in kinds:
        raise ConfigError(f"{setting}: unknown training option; choose one of {', '.join(kinds)}")
    values = texts.split(";" if ";" in texts else ",")
    if not equals or not all(value.strip() for value in values):
        raise ConfigError(f"{setting}: a value is missing; write {name}=value,value")
    try:
        return name, [*dict.fromkeys(kinds[name](value.strip()) for value in values)]
    except ValueError as error:
        kind = {int: "whole numbers", float: "numbers"}[kinds[name]]
        raise ConfigError(f"{setting}: the values of {name} are {kind}") from error


@dataclass(frozen=True)
class Sweep:
    """A sweep folder on disk."""

    path: Path

    @classmethod
    def create(
        cls, path: Path, configs: Mapping[str, TrainConfig], dataset: Dataset, weights: str | None = None
    ) -> Sweep:
        """Create a sweep folder, or add runs to an existing one.

        Arguments:
            path: the folder.
            configs: a run's folder below ``path`` -> its configuration.
            dataset: what to train on.
            weights: the first weights of every run, as given.

        Raises:
            RunError: ``path`` holds something else, or a sweep with other data, other weights, or a run that
                is not among ``configs``.
        """
        sweep = cls(path)
        if is_sweep(path):
            sweep._check_same(configs, dataset, weights)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: exists already and is no sweep; choose another folder")
        document = {
            "schema_version": SCHEMA_VERSION,
            "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
            "weights": weights,
            "configs": {name: config.to_dict() for name, config in configs.items()},
            "failures": sweep.failures if is_sweep(path) else {},
        }
        write_json(path / FILE, document)
        return sweep

    def _check_same(self, configs: Mapping[str, TrainConfig], dataset: Dataset, weights: str | None) -> None:
        document, path = self._document, self.path
        if document["data"]["fingerprint"] != dataset.fingerprint:
            raise RunError(f"{path}: made with other data than {dataset.name}; give --data the same source")
        if document["weights"] != weights:
            before = document["weights"] or "random weights"
            raise RunError(f"{path}: its runs start from {before}; give the same, or choose another folder")
        for name, config in self.configs.items():
            if name not in configs:
                raise RunError(
                    f"{path}: holds another grid, with {name}; values can be added to it, and none left out:"
                    " choose another folder"
                )
            now, before = configs[name].to_dict(), config.to_dict()
            other = [option for option in before if before[option] != now[option]]
            if other:
                changes = ", ".join(f"{option}={before[option]}, not {now[option]}" for option in other)
                raise RunError(f"{path}: was made with {changes}; give the same, or choose another folder")

    @property
    def configs(self) -> dict[str, TrainConfig]:
        """A run's folder below this one -> its configuration. Raises RunError if sweep.json is damaged."""
        try:
            return {name: TrainConfig.from_dict(c) for name, c in self._document["configs"].items()}
        except (AttributeError, TypeError, ConfigError) as error:
            raise RunError(f"{self.path / FILE}: {error}; restore it or choose another folder") from error

    @property
    def points(self) -> dict[str, list[str]]:
        """Each point of the grid -> its runs: itself, or one per seed."""
        points: dict[str, list[str]] = {}
        for name in self.configs:
            points.setdefault(name.partition("/")[0], []).append(name)
        return points

    @property
    def failures(self) -> dict[str, str]:
        """Runs that failed in their last attempt -> the reason."""
        return dict(self._document["failures"])

    def note(self, name: str, failure: str | None) -> None:
        """Store why the run ``name`` failed, or None if it did not."""
        failures = {other: why for other, why in self.failures.items() if other != name}
        if failure is not None:
            failures[name] = failure
        write_json(self.path / FILE, self._document | {"failures": failures})

    def run(self, name: str) -> Run:
        """Return the run ``name``, which may not exist yet."""
        return Run(self.path / name)

    @property
    def _document(self) -> dict[str, Any]:
        path = self.path / FILE
        try:
            document = json.loads(read_text(path))
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error
        if not isinstance(document, dict) or {"data", "weights", "configs", "failures"} - document.keys():
            raise RunError(f"{path}: incomplete; restore it or choose another folder")
        return document


def is_sweep(path: Path) -> bool:
    """Whether ``path`` is a sweep folder."""
    return (path / FILE).is_file()
