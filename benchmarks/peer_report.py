"""The figures of benchmarks/peers.py, as tables and as JSON."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fertools.tables import text_table

OURS = ("fertools", "onnxruntime")


@dataclass(frozen=True)
class Speed:
    """How fast an engine answers batches of one size."""

    threads: int
    batch: int
    #: Per call, not per image: the median of the rounds' medians, and those medians.
    milliseconds: float
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """Results of one engine with one model."""

    engine: str
    family: str
    precision: str
    #: Type of its input pixels.
    dtype: str
    bytes: int
    #: Shares of the test images: classified correctly, and with the same class as Keras.
    accuracy: float
    agreement: float | None
    #: From the start of a process to its first prediction, on the fewest threads: medians.
    start_seconds: float
    peak_bytes: int | None
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class Standing:
    """Our int8 file in our Predictor, compared with others in one setting; None for what did not run.

    Ratios are medians of the rounds' ratios, because what slows a round slows both.
    """

    threads: int
    batch: int
    #: The fastest int8 of another engine, and our time as a multiple of its.
    rival: str | None
    time_ratio: float | None
    #: Their times as multiples of ours.
    times_onnxruntime_float32: float | None
    times_tf_function: float | None
    #: Our time as a multiple of that of a plain session.run on the same file.
    overhead_ratio: float | None

    def __str__(self) -> str:
        parts = []
        if self.time_ratio is not None:
            parts.append(f"takes {self.time_ratio:.2f} times as long as {self.rival}")
        for times, name in (
            (self.times_onnxruntime_float32, "onnxruntime fp32"),
            (self.times_tf_function, "tf.function"),
        ):
            if times is not None:
                parts.append(f"is {times:.1f} times as fast as {name}")
        if self.overhead_ratio is not None:
            parts.append(f"takes {self.overhead_ratio:.3f} times as long as a plain session.run")
        return ", ".join(parts) or "has nothing to be set against"


@dataclass(frozen=True)
class Model:
    """One export in all engines."""

    name: str
    rows: tuple[Row, ...]
    standings: tuple[Standing, ...]
    #: Engine -> why it has no row.
    left_out: dict[str, str]


@dataclass(frozen=True)
class Report:
    """All figures of one run."""

    command: str
    processor: str
    int8_features: tuple[str, ...]
    #: Usable processors, and whether each engine was pinned to as many as it had threads.
    processors: int
    pinned: bool
    versions: dict[str, str]
    data: dict[str, str]
    images: int
    rounds: int
    #: Modules -> median seconds to import them.
    imports: dict[str, float]
    models: tuple[Model, ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """Tables for a terminal."""
        features = f" ({', '.join(self.int8_features)})" if self.int8_features else ""
        lines = [
            f"{self.processor}{features}, {self.processors} processors, {self.rounds} rounds",
            f"{self.images:,} test images of {self.data['name']}; times in milliseconds per image,"
            " by threads (t) and batch (b)",
        ]
        for model in self.models:
            lines += ["", table(model), ""]
            lines += [f"{engine}: left out, {why}" for engine, why in model.left_out.items()]
            lines += [f"fertools int8, {in_words(one.threads, one.batch)}: {one}" for one in model.standings]
        lines.append("")
        for modules, seconds in self.imports.items():
            ratio = seconds / self.imports["onnxruntime"]
            lines.append(f"import {modules}: {seconds:.3f} s, {ratio:.2f} times onnxruntime's")
        return "\n".join(lines)


def in_words(threads: int, batch: int) -> str:
    """Describe a setting."""
    return f"{'one thread' if threads == 1 else f'{threads} threads'}, batch {batch}"


def table(model: Model) -> str:
    """One line per engine."""
    times = (f"{speed.threads}t b{speed.batch}" for speed in model.rows[0].speeds)
    heads = (model.name, "input", "MB", "accuracy", "agrees", "start s", "peak MB", *times)
    rows = (
        (
            *(row.engine, row.dtype, f"{row.bytes / 1e6:.2f}", f"{row.accuracy:.2%}"),
            "-" if row.agreement is None else f"{row.agreement:.2%}",
            f"{row.start_seconds:.2f}",
            "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}",
            *(f"{speed.milliseconds / speed.batch:.3f}" for speed in row.speeds),
        )
        for row in model.rows
    )
    return text_table(heads, rows, left=(0, 1))


def standings(rows: Sequence[Row]) -> Iterator[Standing]:
    """Compare "fertools int8" with the others in each setting; yield nothing without it."""
    ours = next((row for row in rows if row.engine == "fertools int8"), None)
    # onnxruntime runs our file, so it is not a rival.
    rivals = [row.engine for row in rows if row.precision == "int8" and row.family not in OURS]
    for place, speed in enumerate(ours.speeds if ours else ()):
        ratios = {}
        for row in rows:
            pairs = zip(speed.rounds, row.speeds[place].rounds, strict=True)
            ratios[row.engine] = statistics.median(mine / theirs for mine, theirs in pairs)
        rival = max(rivals, key=ratios.__getitem__, default=None)
        yield Standing(
            speed.threads,
            speed.batch,
            rival,
            ratios[rival] if rival else None,
            1 / ratios["onnxruntime fp32"] if "onnxruntime fp32" in ratios else None,
            1 / ratios["tf.function"] if "tf.function" in ratios else None,
            ratios.get("onnxruntime int8"),
        )
