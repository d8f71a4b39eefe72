"""Pictures: the confusion matrix, and accuracy on worse and worse images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fertools.contract import LABELS
from fertools.evaluation.metrics import Evaluation
from fertools.evaluation.stress import Stress
from fertools.figures import blank, literal, save


def confusion_figure(evaluation: Evaluation, path: Path, title: str) -> None:
    """Draw the confusion matrix as a PNG at ``path``: shares of each true class, with the counts."""
    counts = np.asarray(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = blank(7, 6)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(LABELS)), LABELS, rotation=45, ha="right")
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{literal(title)}\naccuracy {evaluation.accuracy:.2%} of {evaluation.images:,} images")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{share:.0%}\n{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    save(figure, path)


def stress_figure(stress: Stress, path: Path, title: str) -> None:
    """Draw accuracy against severity as a PNG at ``path``: one panel per change, all on the same scale."""
    columns = 5
    rows = -(-len(stress.changes) // columns)
    figure = blank(2.6 * columns, 2.3 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for change, panel in zip(stress.changes, panels, strict=False):  # in this order no panel is cut off
        places = range(len(change.severities) + 1)
        # Blue and orange of Okabe and Ito's palette, which colour-blind people can distinguish.
        panel.axhline(100 * stress.clean, color="#E69F00", linestyle="--", linewidth=1)
        accuracies = [100 * value for value in (stress.clean, *change.accuracies)]
        panel.plot(places, accuracies, color="#0072B2", marker="o", markersize=4)
        panel.set_xticks(places, ["clean", *(f"{value:g}" for value in change.severities)], fontsize=8)
        panel.set_title(f"{change.name}, {change.unit}", fontsize=9)
        panel.grid(axis="y", alpha=0.3)
    for panel in list(panels):
        panel.set_visible(False)
    figure.supylabel("accuracy, %", fontsize=10)
    figure.suptitle(
        f"{literal(title)}\nclean {stress.clean:.2%} (dashed), mean of the changes {stress.mean:.2%}",
        fontsize=11,
    )
    save(figure, path, dpi=100)
