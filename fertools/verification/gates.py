"""The gates: limits that an export must keep, and the verdict on each.

There are two kinds of limit. Those of the float32 file, and that rows sum to 1, hold for every image of the
split: one image too far off breaks them. Those of int8 (accuracy lost, agreement) are shares of all images
that the model will ever see, of which the split is a sample. They are judged by their 95% confidence
intervals:

- *proved*: the whole interval keeps the limit;
- *broken*: the whole interval exceeds it, or, on a split of ``DECISIVE_IMAGES`` or more, the measured value
  does. On that many images a file that loses nothing stays within the limit in 97.5 of 100 samples, so there
  the limit applies to the measured value, as strictly as if there were no interval;
- *not proved*: anything else. The split is too small to decide, and the verdict says how many images would be
  enough.

Each of the two statements is wrong in at most 2.5 of 100 samples of a file that just keeps, or just exceeds,
the limit; tests/test_verification_gates.py sums this up over all samples. (The exception is "broken" on a
decisive split, which a file just within the limit may meet.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

#: Largest difference of a probability between ONNX (or .ort) float32 and Keras. 1e-5 gives false alarms
#: (optimum#449), because the order of summation differs.
FLOAT_DIFFERENCE = 1e-4
#: How much lower the int8 accuracy may be than Keras', in points (hundredths of the images).
INT8_POINTS_LOST = 0.5
#: Share of images on which int8 and Keras must predict the same class.
INT8_AGREEMENT = 0.985
#: How much lower int8's mean accuracy on worse images may be than Keras', in points.
INT8_STRESSED_POINTS_LOST = 1.0
#: How far a row of probabilities may be from summing to 1.
SUM_DIFFERENCE = 1e-3

#: Level of the two-sided confidence intervals.
LEVEL = 0.95
#: From this many images on, a measured share beyond its limit breaks the gate. The smallest n with
#: 1.96 * sqrt(0.015 / n) <= 0.005: the accuracy of a file that loses nothing, and predicts another class as
#: often as the agreement allows, is then measured within 0.5 points in 97.5 of 100 samples.
DECISIVE_IMAGES = 2305
#: More images than this are never asked for: the measured value is as good as the limit itself.
MOST_IMAGES = 10_000_000

CONVERSION_HINT = "a layer is converted wrongly, or one of the two files was altered: export again"
CALIBRATION_HINT = "calibrate on more images (--calibration-images), or export without --quantize"
PROOF_HINT = (
    "the test split is the final proof, and trying until it passes would spoil it: go by the validation"
    " figures (fertools export prints them, report.json keeps them), or export without --quantize"
)


class State(StrEnum):
    """Verdict on a limit."""

    PROVED = "proved"
    NOT_PROVED = "not proved"
    BROKEN = "broken"


@dataclass(frozen=True)
class Gate:
    """One limit, the measured value, and the verdict."""

    name: str
    measured: float
    limit: float
    #: "at most" or "at least".
    bound: str
    #: Where to look and what to do if the gate is broken.
    hint: str
    state: State
    #: 95% confidence interval of the measured value, in its unit; None for limits on every single image.
    interval: tuple[float, float] | None = None
    #: Counts of the images behind a share, by kind; "images" is the number of all.
    counts: Mapping[str, int] = field(default_factory=dict)
    #: For a gate that is not proved: how many images with the same shares would decide it; None if that
    #: exceeds ``MOST_IMAGES``.
    images_needed: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the gate is not broken. It may still be not proved: see ``state``."""
        return self.state is not State.BROKEN

    @property
    def finding(self) -> str:
        """The measured value and the limit, in words."""
        limit = f"{self.bound} {self.limit:g}"
        if self.interval is None:
            return f"{self.name}: {self.measured:.6g} ({limit})"
        low, high = self.interval
        counts = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        # A limit missed by less than the fourth digit must not read as kept.
        measured = f"{self.measured:.4g}"
        if float(measured) == self.limit:
            measured = f"{self.measured:.8g}"
        return f"{self.name}: {measured} ({limit}; {LEVEL:.0%} interval {low:.4g} to {high:.4g}; {counts})"

    @property
    def doubt(self) -> str:
        """For a gate that is not proved, what would decide it, in words."""
        if self.images_needed is None:
            return "too close to the limit for any number of images like these to say"
        return f"too few images to say; {self.images_needed:,} like these would do"

    def __str__(self) -> str:
        if self.state is State.PROVED:
            return f"proved      {self.finding}"
        if self.state is State.NOT_PROVED:
            return f"not proved  {self.finding}; {self.doubt}"
        return f"BROKEN      {self.finding}; {self.hint}"


Probabilities = NDArray[np.float32]


def float_gates(keras: Probabilities, found: Probabilities, name: str = "onnx") -> list[Gate]:
    """Gates of the float32 file, which is called ``name``; both arrays float32 (n, 7)."""
    differences = np.abs(keras.astype(np.float64) - found).max(axis=1)
    best_two = np.sort(keras, axis=1)[:, -2:]
    clear = best_two[:, 1] - best_two[:, 0] > FLOAT_DIFFERENCE
    swapped = clear & (keras.argmax(axis=1) != found.argmax(axis=1))
    return [
        _on_every_image(
            f"{name}: largest probability difference",
            largest_difference(keras, found),
            FLOAT_DIFFERENCE,
            f"most at image {differences.argmax()}; {CONVERSION_HINT}",
        ),
        _on_every_image(
            f"{name}: images with another clear top-1",
            int(swapped.sum()),
            0,
            f"first image {swapped.argmax()}; {CONVERSION_HINT}",
        ),
    ]


def int8_gates(
    reference: Probabilities, int8: Probabilities, labels: NDArray[np.uint8], hint: str = PROOF_HINT
) -> list[Gate]:
    """Gates of the int8 file.

    Arguments:
        reference: probabilities of Keras, or of the float32 file, float32 (n, 7).
        int8: probabilities of the int8 file, float32 (n, 7).
        labels: uint8 (n,), n at least 1.
        hint: what to do if a share exceeds its limit.
    """
    sums = np.abs(int8.sum(axis=1, dtype=np.float64) - 1)
    return [
        _accuracy_gate(reference, int8, labels, hint),
        _agreement_gate(reference, int8, hint),
        _on_every_image(
            "int8: a row's sum is off by",
            float(sums.max()),
            SUM_DIFFERENCE,
            f"most at image {sums.argmax()}; the softmax must stay in float: export again",
        ),
    ]


def stress_gate(reference: NDArray[np.float64], int8: NDArray[np.float64]) -> Gate:
    """Gate that int8 is no more fragile than Keras.

    The interval is Student's, of the differences per image and of four artificial images more: two that int8
    loses under all changes, two that it gains under all. A few images without a difference then prove
    nothing. A file at the limit is proved in 4 of 100 samples at most: where every image is lost under all
    changes or under none; in one of 100 where the lost ones are lost under half of them.

    Arguments:
        reference: per image, the share of the changes under which Keras is right: ``Stress.hits``.
        int8: the same for the int8 file; float64 (n,), n at least 1.
    """
    from scipy.special import stdtrit

    differences = reference - int8
    measured = 100 * float(differences.mean())

    def interval(images: int) -> tuple[float, float]:
        count = images + 4
        mean = differences.mean() * images / count
        variance = (np.mean(differences**2) * images + 4) / count - mean**2
        half = stdtrit(count - 1, (1 + LEVEL) / 2) * math.sqrt(variance / (count - 1))
        return 100 * float(mean - half), 100 * float(mean + half)

    images = len(differences)
    state, needed = _judge(interval, images, measured <= INT8_STRESSED_POINTS_LOST, INT8_STRESSED_POINTS_LOST)
    return Gate(
        "int8: points of accuracy lost on worse images",
        measured,
        INT8_STRESSED_POINTS_LOST,
        "at most",
        PROOF_HINT,
        state,
        interval(images),
        {"images": images},
        needed,
    )


def _on_every_image(name: str, measured: float, limit: float, hint: str) -> Gate:
    """Gate that every image of the split must keep; NaN breaks it."""
    return Gate(name, measured, limit, "at most", hint, State.PROVED if measured <= limit else State.BROKEN)


def _accuracy_gate(
    reference: Probabilities, int8: Probabilities, labels: NDArray[np.uint8], hint: str
) -> Gate:
    """Paired comparison of two accuracies: only images that exactly one of the two gets right count."""
    right, kept = reference.argmax(axis=1) == labels, int8.argmax(axis=1) == labels
    lost, won = int(np.sum(right & ~kept)), int(np.sum(kept & ~right))
    # From whole numbers, so that a limit that is met exactly is kept.
    measured = 100 * (lost - won) / len(labels)

    def interval(images: int) -> tuple[float, float]:
        times = images / len(labels)
        low, high = difference_interval(lost * times, won * times, images)
        return 100 * low, 100 * high

    state, needed = _judge(interval, len(labels), measured <= INT8_POINTS_LOST, INT8_POINTS_LOST)
    return Gate(
        "int8: points of accuracy lost",
        measured,
        INT8_POINTS_LOST,
        "at most",
        hint,
        state,
        interval(len(labels)),
        {"right only before": lost, "right only in int8": won, "images": len(labels)},
        needed,
    )


def _agreement_gate(reference: Probabilities, int8: Probabilities, hint: str) -> Gate:
    images = len(reference)
    other = int(np.sum(reference.argmax(axis=1) != int8.argmax(axis=1)))
    measured = (images - other) / images

    def disagreement(images_: int) -> tuple[float, float]:
        return share_interval(other * images_ / images, images_)

    state, needed = _judge(disagreement, images, measured >= INT8_AGREEMENT, 1 - INT8_AGREEMENT)
    low, high = disagreement(images)
    return Gate(
        "int8: top-1 agreement",
        measured,
        INT8_AGREEMENT,
        "at least",
        hint,
        state,
        (1 - high, 1 - low),
        {"with another top-1": other, "images": images},
        needed,
    )


def _judge(
    interval: Callable[[int], tuple[float, float]], images: int, kept: bool, limit: float
) -> tuple[State, int | None]:
    """Return the verdict on a share that may be at most ``limit``, and how many images would decide it.

    Arguments:
        interval: returns the share's interval for a number of images with the same proportions.
        images: number of images.
        kept: whether the measured value keeps the limit.
        limit: in the interval's unit.
    """

    def state(images: int) -> State:
        low, high = interval(images)
        if high <= limit:
            return State.PROVED
        beyond = not kept if images >= DECISIVE_IMAGES else low > limit
        return State.BROKEN if beyond else State.NOT_PROVED

    found = state(images)
    if found is not State.NOT_PROVED:
        return found, None
    few, enough = images, 2 * images
    while state(enough) is State.NOT_PROVED:
        few, enough = enough, 2 * enough
        if few > MOST_IMAGES:
            return found, None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (middle, enough) if state(middle) is State.NOT_PROVED else (few, middle)
    return found, enough if enough <= MOST_IMAGES else None


def share_interval(count: float, images: int) -> tuple[float, float]:
    """Return the exact 95% interval of a share, from ``count`` of ``images`` (Clopper & Pearson 1934).

    The true share is below it in at most 2.5 of 100 samples, and above it in at most 2.5. ``count`` may be a
    fraction, to extrapolate to more images.
    """
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = 0.0 if count <= 0 else float(betaincinv(count, images - count + 1, tail))
    high = 1.0 if count >= images else float(betaincinv(count + 1, images - count, 1 - tail))
    return low, high


def difference_interval(first: float, second: float, images: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two shares of the same images, from two disjoint counts.

    The exact intervals of both shares, joined by squaring and adding their distances (Newcombe 1998,
    doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, with Clopper-Pearson limits for
    Wilson's; Zou & Donner 2008, doi:10.1002/sim.3095). Where ``second`` is 0 the upper bound is the exact one
    of ``first``, so a split without a difference claims no more than its size allows. Tango's score interval
    (1998) is a little narrower, but its lower bound errs in up to 4.4 of 100 samples at small counts.
    """
    one, other = first / images, second / images
    (one_low, one_high), (other_low, other_high) = (
        share_interval(count, images) for count in (first, second)
    )
    return (
        one - other - math.hypot(one - one_low, other_high - other),
        one - other + math.hypot(one_high - one, other - other_low),
    )


def correct(probabilities: Probabilities, labels: NDArray[np.uint8]) -> int:
    """Number of rows whose largest value is the label's."""
    return int(np.sum(probabilities.argmax(axis=1) == labels))


def agreement(first: Probabilities, second: Probabilities) -> float:
    """Share of rows with the same largest value."""
    return float(np.mean(first.argmax(axis=1) == second.argmax(axis=1)))


def largest_difference(first: Probabilities, second: Probabilities) -> float:
    """Largest absolute difference of a value; NaN if there is one."""
    return float(np.abs(first.astype(np.float64) - second).max())
