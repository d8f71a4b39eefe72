"""The picture of a run's history."""

from __future__ import annotations

from pathlib import Path

from fertools.files import replacing
from fertools.training.feedback import best_epoch
from fertools.training.run import Epoch


def history_figure(history: list[Epoch], path: Path) -> None:
    """Draw accuracy and loss, train and validation, by epoch, as a PNG at ``path``."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [row.epoch for row in history]
    best = best_epoch(history)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        axes.plot(epochs, [getattr(row, name) for row in history], ".-", label="train (augmented)")
        axes.plot(epochs, [getattr(row, f"val_{name}") for row in history], ".-", label="validation")
        axes.axvline(best.epoch, color="grey", linewidth=0.8, linestyle=":", label=f"best epoch {best.epoch}")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name)
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
