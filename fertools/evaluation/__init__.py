"""Measuring predictions against labels."""

from fertools.evaluation.figure import confusion_figure
from fertools.evaluation.metrics import ClassScore, Evaluation, evaluate

__all__ = ["ClassScore", "Evaluation", "confusion_figure", "evaluate"]
