"""Pictures of trainings: accuracy and loss by epoch, of one run or of several."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fertools.contract import LABELS
from fertools.errors import RunError
from fertools.figures import blank, literal, save
from fertools.training.run import best_epoch

if TYPE_CHECKING:
    from fertools.training.comparison import Entry
    from fertools.training.run import Epoch


#: Twice the loss of guessing all classes alike. Higher losses are drawn there, since one bad run would
#: flatten all others.
HIGHEST_LOSS = 2 * log(len(LABELS))
#: Training figures are of augmented images, with dropout, while the weights change from step to step.
TRAIN = "train (while learning)"


def history_figure(history: list[Epoch], path: Path) -> None:
    """Draw accuracy and loss, train and validation, by epoch, as a PNG at ``path``."""
    epochs = [row.epoch for row in history]
    best = best_epoch(history)
    figure = blank(10, 4)
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.plot(epochs, [getattr(row, name) for row in history], ".-", label=TRAIN)
        axes.plot(epochs, [getattr(row, f"val_{name}") for row in history], ".-", label="validation")
        axes.axvline(best.epoch, color="grey", linewidth=0.8, linestyle=":", label=f"best epoch {best.epoch}")
        _by_epoch(axes, name)
        axes.legend()
    save(figure, path)


def comparison_figure(entries: Sequence[Entry], path: Path) -> None:
    """Draw accuracy and loss of all entries, validation and train, by epoch, as a PNG at ``path``.

    For several seeds, the mean is drawn with a band of one standard deviation to either side.

    Raises:
        RunError: no entry has a finished epoch.
    """
    from matplotlib import colormaps

    drawn = [entry for entry in entries if entry.histories]
    if not drawn:
        raise RunError("no run has a finished epoch: there is nothing to draw")
    palette = colormaps["tab10" if len(drawn) <= 10 else "turbo"]
    colours = palette(range(10)) if len(drawn) <= 10 else palette.resampled(len(drawn))(range(len(drawn)))
    figure = blank(12, 7)
    panels = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (name, highest) in zip(panels, (("accuracy", 1.0), ("loss", HIGHEST_LOSS)), strict=True):
        for axes, split, field in zip(row, ("validation", TRAIN), (f"val_{name}", name), strict=True):
            for entry, colour in zip(drawn, colours, strict=False):
                _draw_entry(axes, entry, field, highest, colour)
            _by_epoch(axes, f"{name}, {split}")
    rows = [row for entry in drawn for history in entry.histories for row in history]
    if max(max(row.loss, row.val_loss) for row in rows) > HIGHEST_LOSS:
        panels[1, 0].set_ylabel(f"higher ones are drawn at {HIGHEST_LOSS:.1f}")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", ncols=-(-len(labels) // 30))
    save(figure, path)


def _draw_entry(axes: Any, entry: Entry, field: str, highest: float, colour: Any) -> None:
    """A line over the epochs that all of the entry's histories have."""
    epochs = [*zip(*entry.histories, strict=False)]
    numbers = [rows[0].epoch for rows in epochs]
    values = np.array([[getattr(row, field) for row in rows] for rows in epochs])
    middle = values.mean(axis=1)
    axes.plot(numbers, middle.clip(max=highest), ".-", color=colour, label=literal(entry.name), linewidth=1.2)
    if len(entry.histories) > 1:
        spread = values.std(axis=1, ddof=1)
        low, high = ((middle + side * spread).clip(max=highest) for side in (-1, 1))
        axes.fill_between(numbers, low, high, color=colour, alpha=0.2, linewidth=0)


def _by_epoch(axes: Any, title: str) -> None:
    """Label a panel whose horizontal axis is the epoch."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(title)
    axes.grid(alpha=0.3)
