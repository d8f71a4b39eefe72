"""The figures of benchmarks/processors.py, as a table and as JSON."""

from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from fertools.evaluation import accuracy
from fertools.tables import text_table
from fertools.verification.gates import (
    INT8_AGREEMENT,
    INT8_POINTS_LOST,
    agreement,
    correct,
    largest_difference,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One file on one processor. Shares of the images, and largest differences of a probability."""

    model: str
    file: str
    sha256: str
    processor: str
    #: Whether the limits are for it.
    limited: bool
    accuracy: float
    #: Against the same file here: points of accuracy, images named alike, probabilities.
    points_lost: float
    agreement: float
    difference: float
    #: Against the float32 file here.
    float_accuracy: float
    float_agreement: float
    float_difference: float

    @property
    def passed(self) -> bool:
        """Whether the processor changes the answers by no more than quantization may."""
        within = self.points_lost <= INT8_POINTS_LOST and self.agreement >= INT8_AGREEMENT
        return within or not self.limited


def compare(
    found: np.ndarray, native: np.ndarray, float32: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """The figures of a row.

    Arguments:
        found: probabilities of the file on the processor; these three are float32 (n, 7).
        native: the same file here.
        float32: the float32 file here.
        labels: uint8 (n,), 0..6.
    """
    return {
        "accuracy": accuracy(found, labels),
        "points_lost": 100 * (correct(native, labels) - correct(found, labels)) / len(labels),
        "agreement": agreement(native, found),
        "difference": largest_difference(native, found),
        "float_accuracy": accuracy(float32, labels),
        "float_agreement": agreement(float32, found),
        "float_difference": largest_difference(float32, found),
    }


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of one run."""

    #: This processor, and its instruction sets that matter to int8.
    processor: str
    int8_features: tuple[str, ...]
    versions: dict[str, str]
    data: dict[str, str]
    images: int
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every row that has limits keeps them."""
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Report":
        """The inverse of ``to_dict``."""
        return cls(**{**document, "rows": tuple(Row(**row) for row in document["rows"])})

    def to_text(self) -> str:
        """Tables for a terminal."""
        lines = [
            f"the first {self.images:,} test images of {self.data['name']};"
            f" here: {self.processor} ({', '.join(self.int8_features)})",
            ", ".join(f"{name} {version}" for name, version in self.versions.items()),
        ]
        for (model, file, sha256), rows in groupby(self.rows, lambda row: (row.model, row.file, row.sha256)):
            heads = (
                f"{model}, {file}, sha256 {sha256[:12]}",
                "accuracy",
                "same file here",
                "max diff",
                "float32 here",
                "max diff",
                "",
            )
            cells = [
                (
                    row.processor,
                    f"{row.accuracy:.2%}",
                    f"{row.agreement:.2%}",
                    f"{row.difference:.2g}",
                    f"{row.float_agreement:.2%}",
                    f"{row.float_difference:.2g}",
                    "" if row.passed else "BROKEN",
                )
                for row in rows
            ]
            lines += ["", text_table(heads, cells, left=(0, 6))]
        floats = {row.model: row.float_accuracy for row in self.rows}
        limits = (
            f"at most {INT8_POINTS_LOST:g} points of accuracy lost, agreement at least {INT8_AGREEMENT:.1%}"
        )
        broken = ", ".join(f"{row.model} on {row.processor}" for row in self.rows if not row.passed)
        return "\n".join(
            [
                *lines,
                "",
                "float32 here: " + ", ".join(f"{name} {value:.2%}" for name, value in floats.items()),
                f"{limits}: " + (f"BROKEN by {broken}" if broken else "kept by the int8 files everywhere"),
            ]
        )
