"""The figures of a benchmark, as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fertools.figures import blank, literal, save
from fertools.tables import text_table

FILES = ("file", "provider", "MB", "start s", "peak MB")
SPEEDS = ("file", "batch", "p50 ms", "p95 ms", "images/s", "x float32", "of matmul speed")


@dataclass(frozen=True)
class FileFacts:
    """The cost of a file before its first prediction. Times in seconds, sizes in bytes."""

    file: str
    precision: str
    #: The execution provider in use.
    provider: str
    bytes: int
    #: From the start of a Python process to its first prediction: median, in a process of its own.
    start_seconds: float
    #: Largest resident memory of that process; None where the system does not tell.
    peak_bytes: int | None


@dataclass(frozen=True)
class Speed:
    """The speed of a file for batches of one size. Milliseconds are per call, not per image."""

    file: str
    batch: int
    #: Median of the rounds' medians, and the 95th percentile of all calls.
    p50_milliseconds: float
    p95_milliseconds: float
    images_per_second: float
    #: Time of the float32 file for the same batch, divided by this one's; None without such a file.
    times_float32: float | None
    #: Multiply-adds per second, as a share of what a 768x768x768 matrix product of the same type reaches here
    #: at best in the same rounds; None without the package onnx, and where that was so disturbed that it was
    #: slower.
    share_of_peak: float | None


@dataclass(frozen=True)
class Benchmark:
    """All figures of one run; the calls take turns, so their ratios hold on a drifting machine."""

    model: str
    parameters: int
    #: Multiply-adds per image, of convolutions and matrix products.
    multiply_adds: int
    processor: str
    int8_features: tuple[str, ...]
    threads: int
    files: tuple[FileFacts, ...]
    speeds: tuple[Speed, ...]

    @property
    def pool(self) -> str:
        """How many threads, in words."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """Tables for a terminal."""
        features = f" ({', '.join(self.int8_features)})" if self.int8_features else ""
        lines = [
            f"{self.model}: {self.parameters:,} parameters,"
            f" {self.multiply_adds / 1e6:.1f}M multiply-adds per image",
            f"{self.processor}{features}, {self.pool}",
            "",
            text_table(FILES, map(_cells, self.files), left=(0, 1)),
            "",
            text_table(SPEEDS, map(_speed_cells, self.speeds)),
        ]
        return "\n".join(lines)


def _cells(file: FileFacts) -> tuple[str, ...]:
    peak = "-" if file.peak_bytes is None else f"{file.peak_bytes / 1e6:.0f}"
    return file.file, file.provider, f"{file.bytes / 1e6:.2f}", f"{file.start_seconds:.2f}", peak


def _speed_cells(row: Speed) -> tuple[str, ...]:
    """Format a row in the order of ``SPEEDS``."""
    return (
        *(row.file, str(row.batch), f"{row.p50_milliseconds:.3f}", f"{row.p95_milliseconds:.3f}"),
        f"{row.images_per_second:.0f}",
        "-" if row.times_float32 is None else f"{row.times_float32:.2f}",
        "-" if row.share_of_peak is None else f"{row.share_of_peak:.0%}",
    )


def benchmark_figure(found: Benchmark, path: Path) -> None:
    """Draw milliseconds per image, p50 with a whisker to p95, as a PNG at ``path``."""
    batches = sorted({row.batch for row in found.speeds})
    figure = blank(3 + 2 * len(batches), 4)
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
    axes.set_ylabel("milliseconds per image, p50 and p95")
    axes.set_title(f"{literal(found.model)}, {found.pool}\n{found.processor}", fontsize=10)
    axes.legend()
    save(figure, path)
