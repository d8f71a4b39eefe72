"""Plot accuracy against latency of all models in all engines."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from peer_report import Report, in_words

from fertools.files import replacing

MARKERS = {
    "Keras": "s",
    "tf.function": "D",
    "MNN": "P",
    "LiteRT": "^",
    "OpenVINO": "v",
    "onnxruntime": "X",
    "fertools": "o",
}
#: Width and height of the picture, and the distance between labels, in inches.
SIZE, STEP = (11, 7), 0.2
#: How far labels and picture extend beyond the points, as shares of the accuracy range.
RAIL, MARGIN = 0.15, 0.7


def peers_figure(report: Report, path: Path) -> None:
    """Draw the test accuracy over the milliseconds of a call in the first setting, as a PNG at ``path``.

    Colours are models, markers are engines, int8 is filled. Each point is labelled with its engine: above for
    the most accurate model, below for the others.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    models = sorted(report.models, key=lambda model: -max(row.accuracy for row in model.rows))
    rows = [row for model in models for row in model.rows]
    times = [row.speeds[0].milliseconds for row in rows]
    low, high = min(row.accuracy for row in rows), max(row.accuracy for row in rows)
    unit = max(high - low, 0.005)

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 2, max(times) * 3)
    axes.set_ylim(low - MARGIN * unit, high + MARGIN * unit)
    step = np.log10(max(times) / min(times) * 6) * STEP / SIZE[0]
    for place, model in enumerate(models):
        colour, side = f"C{place}", -1 if place else 1
        line = sorted(model.rows, key=lambda row: row.speeds[0].milliseconds)
        edge = max(side * row.accuracy for row in line) * side + side * RAIL * unit
        at = spread([np.log10(row.speeds[0].milliseconds) for row in line], step)
        for row, label in zip(line, at, strict=True):
            point = row.speeds[0].milliseconds, row.accuracy
            fill = colour if row.precision == "int8" else "white"
            axes.plot(*point, MARKERS[row.family], color=colour, markerfacecolor=fill, markersize=8)
            axes.annotate(
                row.engine,
                point,
                (10**label, edge),
                color=colour,
                fontsize=8,
                fontweight="bold" if row.family == "fertools" else "normal",
                rotation=side * 55,
                rotation_mode="anchor",
                verticalalignment="center",
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6},
            )
        axes.annotate(
            model.name, point, (12, 0), textcoords="offset points", color=colour, fontsize=11, va="center"
        )
    first = rows[0].speeds[0]
    axes.set_xlabel(
        f"milliseconds, {in_words(first.threads, first.batch)}, {report.processor} (filled: int8)"
    )
    axes.set_ylabel(f"accuracy on {report.images:,} test images of {report.data['name']}")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def spread(places: Sequence[float], step: float) -> Iterator[float]:
    """Move ascending places apart until they are at least ``step`` from each other, keeping their mean."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + step) if moved else place)
    shift = float(np.mean(np.subtract(moved, places)))
    return (place - shift for place in moved)
