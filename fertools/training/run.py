"""A run folder: the configuration and the results of a training run.

::

    RUN/
      config.json             the TrainConfig
      run.json                data source and fingerprint, versions, device
      start.keras             the network that training started from, if one was given
      teachers/1.keras ...    the networks that it learns from, if there are any
      answers-KEY/0000.npy    their answers to a version of the images, with --versions
      history.csv             one row per finished epoch; the last row says where to resume
      last-0012.npz           weights, optimizer and averages after that row's epoch
      best.keras              float32 network of the best validation accuracy, without optimizer
      history.png             accuracy and loss, train and validation
      metrics.json            the validation split measured with best.keras; a finished run has it

The runs of several seeds are folders ``seed-0``, ``seed-1`` ... in a common one, which then has the answers.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from errno import ENOLCK, ENOTSUP
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertools.backend import import_keras
from fertools.contract import (
    BEST_FILE,
    CONFIG_FILE,
    HISTORY_FILE,
    METRICS_FILE,
    RUN_FILE,
    SEED_PREFIX,
)
from fertools.errors import ConfigError, RunError, WriteError
from fertools.evaluation import is_run
from fertools.files import TEMPORARY, check_place, replacing, replacing_folder, telling, write_json
from fertools.reading import read_text
from fertools.training.config import TrainConfig

if TYPE_CHECKING:
    import keras


SCHEMA_VERSION = 1

#: Fields of run.json that resuming needs.
FACTS = {"data", "device", "precision", "versions", "commands"}
DATA_FACTS = {"source", "name", "fingerprint"}

#: Fields of metrics.json.
METRICS = {"best_epoch", "epochs", "seconds", "validation"}


@dataclass(frozen=True)
class Epoch:
    """One finished epoch, counted from 1. Losses are means, accuracies shares, the rate its last value."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    seconds: float
    #: Of the validation images as the camera degrades them, each of them; None without a camera.
    val_degraded_accuracy: float | None = None

    @property
    def score(self) -> float:
        """What the best epoch has most of: the accuracy on validation images, clean and degraded together."""
        if self.val_degraded_accuracy is None:
            return self.val_accuracy
        return (self.val_accuracy + self.val_degraded_accuracy) / 2


@dataclass(frozen=True)
class Run:
    """A run folder on disk."""

    path: Path

    @classmethod
    def create(
        cls,
        path: Path,
        config: TrainConfig,
        facts: dict[str, Any],
        start: keras.Model | None = None,
        teachers: Sequence[keras.Model] = (),
    ) -> Run:
        """Make a new run folder.

        Arguments:
            path: the folder.
            config: the configuration.
            facts: the contents of run.json.
            start: the network to start from instead of random weights.
            teachers: the networks to learn from besides the labels.

        The folder appears whole, or not at all.

        Raises:
            RunError: ``path`` is taken.
            WriteError: it cannot be written.
        """
        cls.check_free(path)
        try:
            with replacing_folder(path, only_empty=True) as folder:
                cls(folder)._fill(config, facts, start, teachers)
        except WriteError:
            cls.check_free(path)  # another process may have made a run there meanwhile
            raise
        return cls(path)

    def _fill(
        self,
        config: TrainConfig,
        facts: dict[str, Any],
        start: keras.Model | None,
        teachers: Sequence[keras.Model],
    ) -> None:
        if start is not None:
            start.save(self.start)
        if teachers:
            (self.path / "teachers").mkdir()
        for number, teacher in enumerate(teachers, 1):
            teacher.save(self.path / "teachers" / f"{number}.keras")
        write_json(self.path / RUN_FILE, {"schema_version": SCHEMA_VERSION, **facts})
        write_json(self.path / CONFIG_FILE, config.to_dict())

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise an error unless a run folder can be made at ``path``: only an empty folder may be there.

        Raises:
            RunError: something else is there.
            WriteError: it is the current folder or a mount point.
        """
        check_place(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path}: already exists; choose another folder, or continue with --resume {path}")

    @staticmethod
    def next_path(root: Path, name: str) -> Path:
        """Return ``root/name-001``, or the number after the highest existing one."""
        numbers = [path.name.rpartition("-")[2] for path in root.glob(f"{name}-*")]
        taken = [int(number) for number in numbers if number.isdecimal()]
        return root / f"{name}-{max(taken, default=0) + 1:03d}"

    @classmethod
    def open(cls, path: Path) -> Run:
        """Open an existing run folder. Raises RunError if ``path`` is not one."""
        if not (path / CONFIG_FILE).is_file():
            raise RunError(f"{path}: not a run folder (no config.json); 'fertools train' makes one")
        return cls(path)

    @classmethod
    def latest_finished(cls, root: Path) -> Run:
        """Return the run below ``root`` that finished last. Raises RunError if there is none."""
        finished = sorted(root.glob(f"**/{METRICS_FILE}"), key=lambda file: file.stat().st_mtime)
        if not finished:
            raise RunError(f"no finished run under {root}/: train one with 'fertools train'")
        return cls(finished[-1].parent)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def best(self) -> Path:
        """The network of the best validation accuracy."""
        return self.path / BEST_FILE

    @property
    def start(self) -> Path:
        """The file of the network that training starts from; missing if that is a random one."""
        return self.path / "start.keras"

    @property
    def teachers(self) -> list[Path]:
        """The files of the teachers; none without distillation."""
        return sorted((self.path / "teachers").glob("*.keras"), key=lambda file: int(file.stem))

    def answers(self, version: int) -> Path:
        """Path of the teachers' answers to a version of the images, counted from 0.

        Seeds share it. The key tells apart what is asked: which teachers, in which precision, and which
        images, which backends augment differently.
        """
        facts, augmentation = self.facts, self.config.augmentation
        teachers = [teacher["sha256"] for teacher in facts["distillation"]["teachers"]]
        # The backend that augments now, which need not be the one that began the run.
        images = [facts["data"]["fingerprint"], augmentation, import_keras().backend.backend()]
        asked = [teachers, facts["precision"], images]
        key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
        return (self.seeds_folder or self.path) / f"answers-{key}" / f"{version:04d}.npy"

    @property
    def seeds_folder(self) -> Path | None:
        """The common folder of the runs of several seeds, if this is one of them."""
        path = self.path.resolve()
        return path.parent if path.name.startswith(SEED_PREFIX) else None

    @property
    def finished(self) -> bool:
        """Whether the training is finished."""
        return (self.path / METRICS_FILE).is_file()

    def check_unfinished(self) -> None:
        """Raise RunError if there is nothing left to train."""
        if self.finished:
            raise RunError(f"{self.path}: this run is finished; nothing to resume")

    @property
    def config(self) -> TrainConfig:
        """The configuration. Raises RunError if config.json is damaged."""
        try:
            return TrainConfig.from_dict(self._json(CONFIG_FILE))
        except ConfigError as error:
            raise RunError(f"{self.path / 'config.json'}: {error}; restore it or train again") from error

    @property
    def facts(self) -> dict[str, Any]:
        """run.json, see ``trainer.new_run``. Raises RunError if it is damaged."""
        facts = self._json(RUN_FILE)
        data = facts.get("data")
        if FACTS - facts.keys() or not isinstance(data, dict) or DATA_FACTS - data.keys():
            raise RunError(f"{self.path / 'run.json'}: incomplete; restore it or train again")
        return facts

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json of a finished run. Raises RunError if it is damaged."""
        metrics = self._json(METRICS_FILE)
        validation = metrics.get("validation")
        if METRICS - metrics.keys() or not isinstance(validation, dict) or "accuracy" not in validation:
            raise RunError(f"{self.path / METRICS_FILE}: incomplete; remove it and resume the run")
        return metrics

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            document = json.loads(read_text(path))
        except FileNotFoundError as error:
            raise RunError(f"{path}: missing; resume the run with --resume {self.path}") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise RunError(f"{path}: not a JSON object")
        return document

    def history(self) -> list[Epoch]:
        """The finished epochs, first to last. Raises RunError if history.csv is damaged."""
        path = self.path / HISTORY_FILE
        if not path.exists():
            return []
        try:
            history = [
                Epoch(
                    epoch=int(row.pop("epoch")),
                    **{name: float(value) for name, value in row.items() if value != ""},
                )
                for row in csv.DictReader(read_text(path).splitlines())
            ]
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise RunError(f"{path}: damaged ({error}); train again") from error
        if [row.epoch for row in history] != [*range(1, len(history) + 1)]:
            raise RunError(f"{path}: damaged (epochs are missing); train again")
        return history

    def state(self, epoch: int) -> Path:
        """Path of the state after ``epoch``."""
        return self.path / f"last-{epoch:04d}.npz"

    def candidate(self, epoch: int) -> Path:
        """The network of ``epoch``, which is the best if the epoch is committed."""
        return self.path / f"best-{epoch:04d}.keras"

    def commit(self, history: list[Epoch]) -> None:
        """Write the history. From here on the run resumes after its last row.

        If the last epoch is the best, its candidate becomes the best network; older states are removed.
        """
        with (
            replacing(self.path / HISTORY_FILE) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            fields = [name for name, value in asdict(history[-1]).items() if value is not None]
            writer = csv.DictWriter(file, fields, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(asdict(row) for row in history)
        for state in self.path.glob("last-*.npz"):
            if state != self.state(history[-1].epoch):
                state.unlink()
        self._settle(history)

    def _settle(self, history: Sequence[Epoch]) -> None:
        """Make the candidate of a committed epoch the best network; others are of epochs that were lost."""
        for file in self.path.glob("best-*.keras"):
            if history and file == self.candidate(best_epoch(history).epoch):
                with telling(self.best):
                    os.replace(file, self.best)
            else:
                file.unlink()

    def clean_up(self) -> None:
        """Finish what a killed process began: its commit, and its temporary files."""
        self._settle(self.history())
        for leftover in self.path.glob(f"{TEMPORARY}*"):
            leftover.unlink()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training this run.

        Raises:
            RunError: another one does.
        """
        if sys.platform == "win32":  # it has no flock
            yield
            return
        import fcntl

        with (self.path / CONFIG_FILE).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(f"{self.path}: another process is training this run") from error
            except OSError as error:
                if error.errno not in (ENOLCK, ENOTSUP):  # a file system without locks
                    raise
            yield


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Return the first of the epochs with the highest score."""
    return max(history, key=lambda row: row.score)


def seed_folder(path: Path, seed: int) -> Path:
    """Path of the run of ``seed`` in the folder ``path``."""
    return path / f"{SEED_PREFIX}{seed}"


def seeded(config: TrainConfig, count: int) -> list[TrainConfig]:
    """Return ``config`` with its own seed and the ``count - 1`` following ones."""
    return [dataclasses.replace(config, seed=config.seed + number) for number in range(count)]


def open_runs(path: Path) -> list[Run]:
    """Return the run at ``path``, or its runs of all seeds, by seed. Raises RunError if there is none."""
    folders = [folder for folder in path.glob(f"{SEED_PREFIX}*") if is_run(folder)]
    if not folders:
        return [Run.open(path)]
    return sorted((Run(folder) for folder in folders), key=lambda run: run.config.seed)


def siblings(run: Run) -> list[Run]:
    """Return the finished runs of all seeds: ``run``, and those beside it that differ only in the seed."""
    folder = run.seeds_folder
    if folder is None:
        return [run]
    return [other for other in open_runs(folder) if other.finished and _alike(run, other)]


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs have the same configuration except the seed, the same data and the same teachers."""
    same_config = dataclasses.replace(one.config, seed=0) == dataclasses.replace(other.config, seed=0)
    facts, others = one.facts, other.facts
    return (
        same_config
        and facts["data"]["fingerprint"] == others["data"]["fingerprint"]
        and all(facts.get(name) == others.get(name) for name in ("weights", "distillation"))
    )


def best_seed(run: Run) -> Run:
    """Return the best of ``run`` and its siblings on the validation split; the first of equal ones."""
    return max(siblings(run), key=_score)


def _score(run: Run) -> float:
    """What decides between seeds, as between epochs: the score of a finished run's best epoch."""
    history = run.history()  # a copy of a run may lack it
    return best_epoch(history).score if history else validation_accuracy(run)


def validation_accuracy(run: Run) -> float:
    """Validation accuracy of a finished run's best network, a share."""
    return float(run.metrics["validation"]["accuracy"])


@dataclass(frozen=True)
class SeedSummary:
    """Validation accuracies, shares, of one run per seed, with the sample standard deviation."""

    accuracies: tuple[float, ...]
    mean: float
    deviation: float
    best: Run

    @classmethod
    def of(cls, runs: Sequence[Run]) -> SeedSummary:
        """Summarize finished runs. Raises RunError for fewer than two."""
        if len(runs) < 2:
            raise RunError("a deviation needs two runs or more")
        accuracies = tuple(map(validation_accuracy, runs))
        best = max(runs, key=_score)
        return cls(accuracies, statistics.mean(accuracies), statistics.stdev(accuracies), best)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return dataclasses.asdict(self) | {"best": str(self.best.path)}
