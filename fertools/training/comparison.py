"""Several runs side by side: their figures on the validation split as a table and JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fertools.evaluation import is_run
from fertools.models import find
from fertools.provenance import label
from fertools.tables import text_table
from fertools.training.config import TrainConfig
from fertools.training.run import Epoch, Run, best_epoch, open_runs, validation_accuracy
from fertools.training.sweep import Sweep, is_sweep

#: Number of last epochs of a run whose mean is reported.
LAST = 10

#: Heading, field of Summary and format of each column of the table.
COLUMNS = (
    ("best epoch's accuracy", "best_accuracy", ".2%"),
    ("epoch", "best_accuracy_epoch", ".1f"),
    ("final", "final_accuracy", ".2%"),
    (f"last {LAST}", "last_accuracy", ".2%"),
    ("best loss", "best_loss", ".4f"),
    ("epoch", "best_loss_epoch", ".1f"),
    ("final", "final_loss", ".4f"),
    (f"last {LAST}", "last_loss", ".4f"),
)


@dataclass(frozen=True)
class Summary:
    """Validation figures of a history: accuracies as shares, losses in nats, epochs from 1."""

    epochs: int
    #: Of the best epoch; with a camera that has the best mean of clean and degraded images.
    best_accuracy: float
    best_accuracy_epoch: int
    final_accuracy: float
    #: Means of the last ten epochs, or of all where there are fewer.
    last_accuracy: float
    best_loss: float
    best_loss_epoch: int
    final_loss: float
    last_loss: float
    #: Time of training and validating all epochs.
    seconds: float

    @classmethod
    def of(cls, history: Sequence[Epoch]) -> Summary:
        """Sum up a history of one epoch or more."""
        highest, lowest = best_epoch(history), min(history, key=lambda row: row.val_loss)
        return cls(
            epochs=len(history),
            best_accuracy=highest.val_accuracy,
            best_accuracy_epoch=highest.epoch,
            final_accuracy=history[-1].val_accuracy,
            last_accuracy=statistics.mean(row.val_accuracy for row in history[-LAST:]),
            best_loss=lowest.val_loss,
            best_loss_epoch=lowest.epoch,
            final_loss=history[-1].val_loss,
            last_loss=statistics.mean(row.val_loss for row in history[-LAST:]),
            seconds=round(sum(row.seconds for row in history), 1),
        )


@dataclass(frozen=True)
class Entry:
    """One row of a comparison: a run, or several that differ only in the seed."""

    name: str
    path: Path
    model: str
    parameters: int
    #: Configured epochs of each run.
    planned: int
    #: History of the run so far; of several seeds, those of the finished runs.
    histories: tuple[tuple[Epoch, ...], ...]
    #: What is unfinished, and why; empty if nothing is.
    note: str
    #: Name and fingerprint of the data; empty if no run of it has begun.
    data: Mapping[str, str]

    @property
    def summaries(self) -> list[Summary]:
        """The histories in figures."""
        return [Summary.of(history) for history in self.histories]

    def values(self, name: str) -> list[float]:
        """One figure of every history."""
        return [getattr(summary, name) for summary in self.summaries]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values: a summary of each run, and over several their mean and deviation."""
        summaries, several = self.summaries, {}
        if len(summaries) > 1:
            names = [field.name for field in dataclasses.fields(Summary)]
            several = {
                "mean": {name: statistics.mean(self.values(name)) for name in names},
                "deviation": {name: statistics.stdev(self.values(name)) for name in names},
            }
        return {
            "name": self.name,
            "path": str(self.path),
            "model": self.model,
            "parameters": self.parameters,
            "planned_epochs": self.planned,
            "note": self.note,
            "data": dict(self.data),
            "validation": [dataclasses.asdict(summary) for summary in summaries],
            **several,
        }


@dataclass(frozen=True)
class Comparison:
    """Entries in the order that they were given in, and the finished run of the best accuracy.

    There is no best one if none is finished, or if they were measured on different data.
    """

    entries: tuple[Entry, ...]
    best: Run | None

    @property
    def comparable(self) -> bool:
        """Whether all entries have the same data."""
        return len({entry.data["fingerprint"] for entry in self.entries if entry.data}) < 2

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        best = str(self.best.path) if self.best else None
        return {"runs": [entry.to_dict() for entry in self.entries], "best": best}

    def to_text(self) -> str:
        """A table for a terminal."""
        heads = ["", "epochs", *(head for head, _, _ in COLUMNS), "parameters", "time", ""]
        several = any(len(entry.histories) > 1 for entry in self.entries)
        title = "Validation split" + (", mean ± standard deviation of seeds" if several else "")
        entries = self.entries
        if not self.comparable:
            title += "; the data differ, so the figures cannot be compared"
            entries = tuple(
                replace(each, note="; ".join(filter(None, (each.note, each.data.get("name")))))
                for each in entries
            )
        rows = text_table(heads, map(_cells, entries), left=(0, len(heads) - 1))
        return f"{title}\n{rows}"


def _cells(entry: Entry) -> list[str]:
    """The entry's line of the table."""
    seconds, epochs = entry.values("seconds"), entry.values("epochs") or [0]
    done = "-".join(str(count) for count in sorted({min(epochs), max(epochs)}))
    return [
        f"{entry.name} ({len(seconds)} seeds)" if len(seconds) > 1 else entry.name,
        f"{done}/{entry.planned}",
        *(_cell(entry.values(field), form) for _, field, form in COLUMNS),
        f"{entry.parameters:,}",
        str(timedelta(seconds=round(statistics.mean(seconds)))) if seconds else "-",
        entry.note,
    ]


def _cell(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return str(values[0]) if isinstance(values[0], int) else format(values[0], form)
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form}}"


def compare(paths: Sequence[Path]) -> Comparison:
    """Compare the runs, folders of seeds (one entry each) and sweeps (one entry per point) at ``paths``.

    Unfinished runs are compared by the epochs that they have.

    Raises:
        RunError: a path is none of these, or is damaged.
    """
    groups = [group for path in paths for group in _groups(path)]
    short = [label(group.path) for group in groups]
    names = [name if short.count(name) == 1 else str(g.path) for name, g in zip(short, groups, strict=True)]
    entries = [group.entry(name) for name, group in zip(names, groups, strict=True)]
    finished = [run for group in groups for run in group.runs if run.finished]
    found = Comparison(tuple(entries), max(finished, key=validation_accuracy, default=None))
    return found if found.comparable else replace(found, best=None)


@dataclass(frozen=True)
class _Group:
    """The runs of an entry: folder -> configuration, and why those that failed did."""

    path: Path
    configs: Mapping[Path, TrainConfig]
    failures: Mapping[Path, str]

    @property
    def runs(self) -> list[Run]:
        return [Run(path) for path in self.configs]

    def entry(self, name: str) -> Entry:
        several = len(self.configs) > 1
        config = next(iter(self.configs.values()))
        histories = [run.history() for run in self.runs if run.finished or not several]
        return Entry(
            name=name,
            path=self.path,
            model=config.model,
            parameters=find(config.model).parameters,
            planned=config.epochs,
            histories=tuple(tuple(history) for history in histories if history),
            note=self.note(),
            data=next((_data(run) for run in self.runs if is_run(run.path)), {}),
        )

    def note(self) -> str:
        left = [run for run in self.runs if not run.finished]
        if not left:
            return ""
        count = len(self.configs)
        notes = [f"{count - len(left)} of {count} seeds finished"] if count > 1 else []
        reasons = (self.failures.get(run.path) for run in left)
        notes += dict.fromkeys(f"failed: {reason}" for reason in reasons if reason)
        return "; ".join(notes) or "unfinished"


def _data(run: Run) -> dict[str, str]:
    facts = run.facts["data"]
    return {name: facts[name] for name in ("name", "fingerprint")}


def _groups(path: Path) -> Iterator[_Group]:
    if not is_sweep(path):
        runs = open_runs(path)
        yield _Group(path, {run.path: run.config for run in runs}, {})
        return
    sweep = Sweep(path)
    configs = sweep.configs
    failures = {path / name: why for name, why in sweep.failures.items()}
    for point, names in sweep.points.items():
        yield _Group(path / point, {path / name: configs[name] for name in names}, failures)
