"""Measuring predictions against labels."""

from fertools.evaluation.figures import confusion_figure
from fertools.evaluation.measurement import Measurement, in_batches, is_run, measure, open_network
from fertools.evaluation.metrics import ClassScore, Evaluation, accuracy, evaluate

__all__ = [
    "ClassScore",
    "Evaluation",
    "Measurement",
    "accuracy",
    "confusion_figure",
    "evaluate",
    "in_batches",
    "is_run",
    "measure",
    "open_network",
]
