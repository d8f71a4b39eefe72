"""The confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fertools.contract import LABELS
from fertools.evaluation.metrics import Evaluation
from fertools.files import replacing


def confusion_figure(evaluation: Evaluation, path: Path, title: str) -> None:
    """Draw the confusion matrix as a PNG at ``path``: shares of each true class, with the counts."""
    from matplotlib.figure import Figure

    counts = np.asarray(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(LABELS)), LABELS, rotation=45, ha="right")
    axes.set_yticks(range(len(LABELS)), LABELS)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{title}\naccuracy {evaluation.accuracy:.2%} of {evaluation.images:,} images")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.5 else "black"
        text = f"{share:.0%}\n{counts[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
