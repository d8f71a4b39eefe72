"""Accuracy and its companions, from probabilities and labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertools.contract import LABELS
from fertools.errors import MissingExtraError
from fertools.tables import text_table

#: Bins of the calibration error, as in Guo et al. 2017.
BINS = 15


@dataclass(frozen=True)
class ClassScore:
    """The metrics of one class; shares in 0..1, ``support`` is its number of images."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """The metrics of ``images`` images; shares in 0..1.

    ``balanced_accuracy`` and ``macro_f1`` average over the classes that occur. ``ece`` is the expected
    calibration error, see ``calibration_error``. ``confusion[i][j]`` counts images of class i that were
    predicted as class j, both in the order of ``LABELS``.
    """

    images: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def headline(self) -> str:
        """The five figures over all classes, one per line."""
        return "\n".join(
            (
                f"accuracy           {self.accuracy:7.2%}   ({self.images:,} images)",
                f"balanced accuracy  {self.balanced_accuracy:7.2%}",
                f"macro F1           {self.macro_f1:7.2%}",
                f"log loss           {self.log_loss:7.4f}",
                f"ECE, {BINS} bins       {self.ece:7.2%}",
            )
        )

    def to_text(self) -> str:
        """Tables for a terminal."""
        scores = [
            (c.label, f"{c.precision:.2%}", f"{c.recall:.2%}", f"{c.f1:.2%}", str(c.support))
            for c in self.classes
        ]
        confusion = [(label, *map(str, row)) for label, row in zip(LABELS, self.confusion, strict=True)]
        tables = (
            text_table(("class", "precision", "recall", "F1", "images"), scores),
            text_table(("true \\ predicted", *LABELS), confusion),
        )
        return "\n\n".join([self.headline(), *tables])


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Share of the rows of (n, 7), n at least 1, whose largest value is the label's."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def evaluate(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> Evaluation:
    """Measure ``probabilities`` (n, 7) against ``labels`` (n,), n at least 1.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn import metrics
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "train") from error

    predicted = probabilities.argmax(axis=1)
    order = np.arange(len(LABELS))
    confusion = metrics.confusion_matrix(labels, predicted, labels=order)
    scores = metrics.precision_recall_fscore_support(labels, predicted, labels=order, zero_division=0)
    classes = tuple(
        ClassScore(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(LABELS, *scores, strict=True)
    )
    occurring = [c for c in classes if c.support]
    return Evaluation(
        images=len(labels),
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        # Not metrics.balanced_accuracy_score: it warns when a class was predicted that does not occur.
        balanced_accuracy=float(np.mean([c.recall for c in occurring])),
        macro_f1=float(np.mean([c.f1 for c in occurring])),
        log_loss=log_loss(probabilities, labels),
        ece=calibration_error(probabilities, labels),
        classes=classes,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def log_loss(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Mean negative logarithm of the true class's probability."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(true, 1e-12)).mean())


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Expected calibration error, a share: how far confidence is from accuracy.

    The images fall into ``BINS`` equally wide bins ((m - 1) / BINS, m / BINS] by the probability of
    their best class; the error is the mean over the images of the difference between their bin's
    accuracy and mean confidence (Guo et al. 2017, arXiv:1706.04599).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    excess = np.bincount(bins, confidence - right)
    return float(np.abs(excess).sum() / len(labels))
