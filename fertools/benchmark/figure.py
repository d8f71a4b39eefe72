"""A benchmark as a picture."""

from __future__ import annotations

from pathlib import Path

from fertools.benchmark.report import Benchmark
from fertools.files import replacing


def benchmark_figure(found: Benchmark, path: Path) -> None:
    """Draw milliseconds an image, p50 with a whisker to p95, as a PNG at ``path``."""
    from matplotlib.figure import Figure

    batches = sorted({row.batch for row in found.speeds})
    figure = Figure(figsize=(3 + 2 * len(batches), 4), layout="constrained")
    axes = figure.subplots()
    files = [file.file for file in found.files]
    width = 0.8 / len(files)
    for place, file in enumerate(files):
        rows = {row.batch: row for row in found.speeds if row.file == file}
        p50 = [rows[batch].p50_milliseconds / batch for batch in batches]
        p95 = [rows[batch].p95_milliseconds / batch for batch in batches]
        where = [index + (place - (len(files) - 1) / 2) * width for index in range(len(batches))]
        above = [max(high - middle, 0.0) for middle, high in zip(p50, p95, strict=True)]
        bars = axes.bar(where, p50, width, yerr=[[0.0] * len(p50), above], capsize=3, label=file)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axes.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylabel("milliseconds an image, p50 and p95")
    axes.set_title(f"{found.model}, {found.pool}\n{found.processor}", fontsize=10)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
