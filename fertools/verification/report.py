"""The result of a verification, as a table, as JSON and as an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fertools.errors import GateError
from fertools.evaluation import Evaluation
from fertools.tables import text_table
from fertools.verification.gates import Gate, Probabilities, State


@dataclass(frozen=True)
class Row:
    """One form of the model, measured on the test split with a single view, as it runs on the device.

    Accuracies and agreement are shares; those that end in ``_deduplicated`` leave out what is in another
    split too, and are None where nothing is left. The accuracies of ``flip`` are of the mean over each image
    and its mirror. ``milliseconds`` is a median at batch 1 on one thread, None where it was not measured.
    ``probabilities``, float32 (images, 7), are no part of the JSON document.
    """

    model: str
    evaluation: Evaluation
    accuracy_deduplicated: float | None
    accuracy_flip: float
    accuracy_flip_deduplicated: float | None
    agreement: float
    difference: float
    bytes: int
    milliseconds: float | None
    probabilities: Probabilities = field(repr=False, compare=False)


@dataclass(frozen=True)
class Report:
    """Keras, ONNX (or .ort) and int8 side by side on ``images`` images of the split ``split``."""

    split: str
    images: int
    images_deduplicated: int
    #: ``name`` and ``fingerprint`` of the data of the measurement.
    data: dict[str, str]
    #: The same of the data that the model was trained on.
    trained_on: dict[str, str]
    rows: tuple[Row, ...]
    gates: tuple[Gate, ...]
    #: Processor, its int8 features, how the time was taken.
    environment: dict[str, Any]

    @property
    def passed(self) -> bool:
        """Whether no gate is broken; some may be not proved."""
        return not self.broken

    @property
    def broken(self) -> tuple[Gate, ...]:
        """The gates whose limits are exceeded."""
        return tuple(gate for gate in self.gates if gate.state is State.BROKEN)

    def check(self, prefix: str = "") -> None:
        """Raise BrokenGateError, its message beginning with ``prefix``, if a gate is broken."""
        if self.broken:
            raise BrokenGateError(self.broken, prefix, self)

    def row(self, model: str) -> Row:
        """The row of "keras", "onnx" (or "ort") or "int8"."""
        return next(row for row in self.rows if row.model == model)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values, with the verdicts; what is not a number becomes None."""
        fields = asdict(self)
        for row in fields["rows"]:
            del row["probabilities"]
        document: dict[str, Any] = _finite(fields)
        return document | {"gates": [gate_values(gate) for gate in self.gates], "passed": self.passed}

    def to_text(self) -> str:
        """The table and the verdicts, for a terminal."""
        heading = f"{self.data['name']}, {self.split} split, {self.images:,} images"
        if self.data["fingerprint"] != self.trained_on["fingerprint"]:
            heading += f" (trained on other data: {self.trained_on['name']})"
        table = text_table(HEADINGS, map(cells, self.rows))
        return "\n".join([heading, "", table, "", *map(str, self.gates)])


class BrokenGateError(GateError):
    """Verification gates are broken.

    Arguments:
        gates: one at least.
        prefix: begins the message.
        report: what else was measured on the test split; None if that was not reached.
    """

    def __init__(self, gates: Sequence[Gate], prefix: str = "", report: Report | None = None) -> None:
        count = "a gate is" if len(gates) == 1 else f"{len(gates)} gates are"
        lines = (f"  {gate.finding}; {gate.hint}" for gate in gates)
        super().__init__("\n".join([f"{prefix}{count} broken", *lines]))
        self.gates = tuple(gates)
        self.report = report


def gate_values(gate: Gate) -> dict[str, Any]:
    """The fields as JSON values, with whether it passed; what is not a number becomes None."""
    values: dict[str, Any] = _finite({**asdict(gate), "passed": gate.passed})
    return values


HEADINGS = (
    *("", "accuracy", "de-duplicated", "flip views", "macro F1", "ECE"),
    *("agreement", "max diff", "MB", "ms/image"),
)


def cells(row: Row) -> tuple[str, ...]:
    """A row's values, formatted, in the order of ``HEADINGS``."""
    return (
        row.model,
        f"{row.evaluation.accuracy:.2%}",
        "-" if row.accuracy_deduplicated is None else f"{row.accuracy_deduplicated:.2%}",
        f"{row.accuracy_flip:.2%}",
        f"{row.evaluation.macro_f1:.2%}",
        f"{row.evaluation.ece:.2%}",
        f"{row.agreement:.2%}",
        f"{row.difference:.1e}",
        f"{row.bytes / 1e6:.2f}",
        "-" if row.milliseconds is None else f"{row.milliseconds:.2f}",
    )


def _finite(value: Any) -> Any:
    """``value`` with None for NaN and infinities, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
