"""The part of the loss that compares a student with its teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

#: Keeps the logarithm of a probability finite.
SMALLEST = 1e-7


class SoftTargetLoss(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Passes the student's probabilities on and adds their distance from the teachers' to the loss.

    The distance is the Kullback-Leibler divergence of the softened probabilities, times the square of the
    temperature, which keeps its gradients' size (Hinton et al. 2015, section 2).

    Arguments:
        temperature: softens both sides.
        share: what the distance is multiplied by.
    """

    def __init__(self, temperature: float, share: float) -> None:
        super().__init__(dtype="float32", name="soft_target_loss")
        self.temperature = temperature
        self.share = share

    def call(self, inputs: Sequence[Any], training: bool = False) -> Any:
        """Compare float32 probabilities (batch, 7) of the student and of the teachers.

        A third input, float32 (batch,), is how much each image counts, as ``fit`` weights the labels' loss.
        """
        student, teacher, *weights = inputs
        if training:
            ours, theirs = self._soften(student), ops.stop_gradient(self._soften(teacher))
            distance = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
            weighted = distance * weights[0] if weights else distance
            self.add_loss(self.share * self.temperature**2 * ops.mean(weighted))
        return student

    def _soften(self, probabilities: Any) -> Any:
        """Logarithms of the softened probabilities; log(p) is the logits but for a constant."""
        return ops.log_softmax(ops.log(ops.maximum(probabilities, SMALLEST)) / self.temperature)
