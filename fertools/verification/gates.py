"""The limits that an export must keep, and the verdict on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Largest difference of a probability between ONNX (or .ort) float32 and Keras. 1e-5 gives false alarms
#: (optimum#449): the two sum up in another order.
FLOAT_DIFFERENCE = 1e-4
#: How much lower the int8 accuracy may be than Keras', in points (hundredths of the images).
INT8_POINTS_LOST = 0.5
#: Share of images on which int8 and Keras must name the same class.
INT8_AGREEMENT = 0.985
#: How far a row of probabilities may be from summing to 1.
SUM_DIFFERENCE = 1e-3

CONVERSION_HINT = "a layer is converted wrongly, or one of the two files was altered: export again"
CALIBRATION_HINT = "calibrate on more images (--calibration-images), or export without --quantize"


@dataclass(frozen=True)
class Gate:
    """One limit and what was measured against it."""

    name: str
    measured: float
    limit: float
    #: "at most" or "at least".
    bound: str
    #: Where to look and what to do if the gate is broken.
    hint: str

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; a value that is not a number breaks it."""
        if self.bound == "at most":
            return self.measured <= self.limit
        return self.measured >= self.limit

    @property
    def finding(self) -> str:
        """What was measured, and the limit."""
        return f"{self.name}: {self.measured:.6g} ({self.bound} {self.limit:g})"

    def __str__(self) -> str:
        return f"ok      {self.finding}" if self.passed else f"BROKEN  {self.finding}; {self.hint}"


Probabilities = NDArray[np.float32]


def float_gates(keras: Probabilities, found: Probabilities, name: str = "onnx") -> list[Gate]:
    """Gates of the float32 file, which is called ``name``; both arrays float32 (n, 7)."""
    differences = np.abs(keras.astype(np.float64) - found).max(axis=1)
    best_two = np.sort(keras, axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > FLOAT_DIFFERENCE
    swapped = clear & (keras.argmax(axis=1) != found.argmax(axis=1))
    return [
        Gate(
            f"{name}: largest probability difference",
            largest_difference(keras, found),
            FLOAT_DIFFERENCE,
            "at most",
            f"most at image {differences.argmax()}; {CONVERSION_HINT}",
        ),
        Gate(
            f"{name}: images with another clear top-1",
            int(swapped.sum()),
            0,
            "at most",
            f"first image {swapped.argmax()}; {CONVERSION_HINT}",
        ),
    ]


def int8_gates(keras: Probabilities, int8: Probabilities, labels: NDArray[np.uint8]) -> list[Gate]:
    """Gates of the int8 file; both arrays float32 (n, 7), labels uint8 (n,)."""
    lost = correct(keras, labels) - correct(int8, labels)
    sums = np.abs(int8.sum(axis=1, dtype=np.float64) - 1)
    return [
        Gate(
            "int8: points of accuracy lost",
            100 * lost / len(labels),  # of whole numbers, so that a limit that is just kept is kept
            INT8_POINTS_LOST,
            "at most",
            CALIBRATION_HINT,
        ),
        Gate("int8: top-1 agreement", agreement(keras, int8), INT8_AGREEMENT, "at least", CALIBRATION_HINT),
        Gate(
            "int8: a row's sum is off by",
            float(sums.max()),
            SUM_DIFFERENCE,
            "at most",
            f"most at image {sums.argmax()}; the softmax must stay in float: export again",
        ),
    ]


def correct(probabilities: Probabilities, labels: NDArray[np.uint8]) -> int:
    """Number of rows whose largest value is the label's."""
    return int(np.sum(probabilities.argmax(axis=1) == labels))


def agreement(first: Probabilities, second: Probabilities) -> float:
    """Share of rows with the same largest value."""
    return float(np.mean(first.argmax(axis=1) == second.argmax(axis=1)))


def largest_difference(first: Probabilities, second: Probabilities) -> float:
    """Largest absolute difference of a value; NaN if there is one."""
    return float(np.abs(first.astype(np.float64) - second).max())
