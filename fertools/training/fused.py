"""BatchNormalization as one operation of TensorFlow.

Keras composes it, and its gradient, of many operations on float32 tensors; TensorFlow's own reads and writes
bfloat16, and computes in float32. What that gains on a CPU stands in docs/recipe.md. XLA, which compiles the
step on JAX, fuses Keras' by itself.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras has no types
    """Trains like its parent on TensorFlow, over the last axis of (batch, height, width, channels)."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize, and in training keep the moving averages up."""
        if not (training and self.trainable and len(inputs.shape) == 4 and self.axis in (-1, 3)):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        ones, zeros = ops.ones_like(self.moving_mean), ops.zeros_like(self.moving_mean)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma if self.scale else ones,
            offset=self.beta if self.center else zeros,
            mean=ones[:0],  # unused in training
            variance=ones[:0],
            epsilon=self.epsilon,
            is_training=True,
        )
        # It gives the sample's variance, divided by one less than there are values; Keras averages the other.
        count = ops.cast(ops.size(inputs) / ops.size(mean), variance.dtype)
        variance *= (count - 1) / count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


def with_fused(network: keras.Model) -> keras.Model:
    """The same network with the same weights, its BatchNormalization fused if Keras is on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return network

    def fused(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = FusedBatchNormalization
        return kind.from_config(layer.get_config())

    clone = keras.models.clone_model(network, clone_function=fused)
    clone.set_weights(network.get_weights())
    return clone
