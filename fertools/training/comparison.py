"""The figures of several runs side by side, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from fertools.training.feedback import best_epoch
from fertools.training.run import Epoch, Run

#: Epochs at the end of a run whose mean is told.
LAST = 10

#: Head, field of Summary and format of the table's columns.
COLUMNS = (
    ("best accuracy", "best_accuracy", ".2%"),
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
    """A history in figures, of the validation split: accuracies as shares, losses in nats, epochs from 1."""

    epochs: int
    best_accuracy: float
    best_accuracy_epoch: int
    final_accuracy: float
    #: Means of the last ten epochs, or of all where there are fewer.
    last_accuracy: float
    best_loss: float
    best_loss_epoch: int
    final_loss: float
    last_loss: float
    #: Of training and validating all epochs.
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
    """What is compared: a run, or several of it that differ in the seed alone."""

    name: str
    path: Path
    model: str
    parameters: int
    #: Epochs that each run was told to make.
    planned: int
    #: Of the run as far as it has come; of several seeds, those of the finished runs.
    histories: tuple[tuple[Epoch, ...], ...]
    #: What is unfinished, and why; empty if nothing is.
    note: str

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
            "validation": [dataclasses.asdict(summary) for summary in summaries],
            **several,
        }


@dataclass(frozen=True)
class Comparison:
    """Entries in the order that they were given in, and the finished run of the best accuracy, if any."""

    entries: tuple[Entry, ...]
    best: Run | None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        best = str(self.best.path) if self.best else None
        return {"runs": [entry.to_dict() for entry in self.entries], "best": best}

    def to_text(self) -> str:
        """A table for a terminal."""
        rows = [["", "epochs", *(head for head, _, _ in COLUMNS), "parameters", "time", ""]]
        rows += [_cells(entry) for entry in self.entries]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        several = any(len(entry.histories) > 1 for entry in self.entries)
        lines = ["Validation split" + (", mean ± standard deviation of seeds" if several else "")]
        for name, *figures, note in rows:
            padded = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=False)]
            lines.append("  ".join([f"{name:<{widths[0]}}", *padded, note]).rstrip())
        return "\n".join(lines)


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
