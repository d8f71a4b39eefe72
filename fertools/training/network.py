"""The layers around a network while it is trained, and the changes to the network for training.

A batch consists only of the indices of its images. The images are on the device as uint8 from the beginning,
and everything that happens to them happens inside the compiled step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from fertools.contract import PIXEL_MAX
from fertools.errors import ConfigError
from fertools.models.structure import images_at_once


class Store(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Holds the rows of an array (n, ...) on the device; maps int32 numbers (batch,) to (batch, ...)."""

    def __init__(self, rows: NDArray[Any], name: str) -> None:
        super().__init__(dtype=rows.dtype.name, name=name)
        self.rows = self.add_weight(
            shape=rows.shape, dtype=rows.dtype.name, initializer="zeros", trainable=False, name="rows"
        )
        self.hold(rows)

    def hold(self, rows: NDArray[Any]) -> None:
        """Take other rows, of the same shape and dtype."""
        self.rows.assign(rows)

    def call(self, numbers: Any) -> Any:
        """Pick rows."""
        return ops.take(self.rows, numbers, axis=0)


class Mixup(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Blends every image of a batch with the one before it (Zhang et al. 2018, arXiv:1710.09412).

    The labels are blended alike where the batch is made, see ``batches.Batches``.
    """

    def __init__(self) -> None:
        super().__init__(dtype="float32", name="mixup")

    def call(self, inputs: tuple[Any, Any]) -> Any:
        """Blend float32 images (batch, 48, 48, 1), of which each keeps its share, float32 (batch,)."""
        images, shares = inputs
        shares = ops.reshape(shares, (-1, 1, 1, 1))
        return shares * images + (1 - shares) * ops.roll(images, 1, axis=0)


class FusedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]  # Keras has no types
    """Its parent, fused by TensorFlow, over the last axis of (batch, height, width, channels)."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize, and in training update the moving averages."""
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
        # It returns the sample variance, divided by n - 1; Keras averages the one divided by n.
        count = ops.cast(ops.size(inputs) / ops.size(mean), variance.dtype)
        variance *= (count - 1) / count
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


#: The fewest filters of a convolution that becomes a ``KernelProductConv2D`` in bfloat16 on processors.
MANY_FILTERS = 256


class KernelProductConv2D(keras.layers.Conv2D):  # type: ignore[misc]  # Keras has no types
    """Its parent; on TensorFlow the gradient of its kernel is one matrix product.

    In bfloat16 oneDNN computes that gradient no faster than in float32, and where a layer has many filters
    up to three times slower than the product (docs/recipe.md, Speed of training). For odd kernels, a stride
    of 1 and padding "same" alone, see ``is_wide``.
    """

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve (batch, height, width, channels) with (rows, columns, channels, filters)."""
        import tensorflow as tf

        @tf.custom_gradient  # type: ignore[untyped-decorator]
        def convolve(images: Any, kernel: Any) -> tuple[Any, Any]:
            def gradients(upstream: Any) -> tuple[Any, Any]:
                of_images = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(images),
                    filter=kernel,
                    out_backprop=upstream,
                    strides=[1, 1, 1, 1],
                    padding="SAME",
                )
                return of_images, self._of_kernel(images, upstream)

            return tf.nn.conv2d(images, kernel, 1, "SAME"), gradients

        return convolve(inputs, tf.identity(ops.convert_to_tensor(kernel)))  # tensors, no variables

    def _of_kernel(self, images: Any, upstream: Any) -> Any:
        """Return the gradient of the kernel: the images' patches times the gradient of the outputs."""
        import tensorflow as tf

        (rows, columns), (_, height, width, channels) = self.kernel_size, images.shape
        padded = tf.pad(images, [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]])
        patches = [padded[:, y : y + height, x : x + width] for y in range(rows) for x in range(columns)]
        product = tf.matmul(
            tf.reshape(tf.concat(patches, axis=3), (-1, rows * columns * channels)),
            tf.reshape(upstream, (-1, self.filters)),
            transpose_a=True,
        )
        return tf.reshape(product, (rows, columns, channels, self.filters))

    @staticmethod
    def is_wide(layer: keras.layers.Layer) -> bool:
        """Whether ``layer`` is a convolution that this one can replace, and is faster with it."""
        return (
            type(layer) is keras.layers.Conv2D
            and layer.compute_dtype == "bfloat16"
            and layer.filters >= MANY_FILTERS
            and layer.padding == "same"
            and layer.strides == layer.dilation_rate == (1, 1)
            and layer.groups == 1
            and all(size % 2 for size in layer.kernel_size)
            and layer.data_format == "channels_last"
        )


def in_fast_layers(network: keras.Model, *, on_cpu: bool) -> keras.Model:
    """Return the same network with the same weights, for TensorFlow in layers that it trains faster.

    These are ``FusedBatchNormalization`` and, on processors, ``KernelProductConv2D``.
    """
    if keras.backend.backend() != "tensorflow":
        return network

    def fast(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = type(layer)
        if kind is keras.layers.BatchNormalization:
            kind = FusedBatchNormalization
        elif on_cpu and KernelProductConv2D.is_wide(layer):
            kind = KernelProductConv2D
        return kind.from_config(layer.get_config())

    clone = keras.models.clone_model(network, clone_function=fast)
    clone.set_weights(network.get_weights())
    return clone


def scale_dropout(network: keras.Model, scale: float) -> None:
    """Multiply the rates of ``network``'s dropout layers by ``scale``, 0..1.

    At 0 and 1 the network need not have any dropout.

    Raises:
        ConfigError: ``scale`` lies between 0 and 1 and the network has no dropout.
    """
    found = [layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.Dropout)]
    if 0 < scale < 1 and not found:
        raise ConfigError(f"dropout_scale={scale:g}: {network.name} has no dropout; leave it out")
    for layer in found:
        layer.rate *= scale


#: Keeps the logarithm of a probability finite.
SMALLEST = 1e-7


class SoftTargetLoss(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Passes the student's probabilities on and adds their distance from the teachers' to the loss.

    The distance is the Kullback-Leibler divergence of the softened probabilities, times the square of the
    temperature, which keeps the size of its gradients (Hinton et al. 2015, section 2).

    Arguments:
        temperature: softens both sides.
        share: factor on the distance.
    """

    def __init__(self, temperature: float, share: float) -> None:
        super().__init__(dtype="float32", name="soft_target_loss")
        self.temperature = temperature
        self.share = share

    def call(self, inputs: Sequence[Any], training: bool = False) -> Any:
        """Compare float32 probabilities (batch, 7) of the student and of the teachers.

        A third input, float32 (batch,), weights each image, as ``fit`` weights the loss of the labels.
        """
        student, teacher, *weights = inputs
        if training:
            ours, theirs = self._soften(student), ops.stop_gradient(self._soften(teacher))
            distance = ops.sum(ops.exp(theirs) * (theirs - ours), axis=-1)
            weighted = distance * weights[0] if weights else distance
            self.add_loss(self.share * self.temperature**2 * ops.mean(weighted))
        return student

    def _soften(self, probabilities: Any) -> Any:
        """Return the logarithms of the softened probabilities; log(p) equals the logits up to a constant."""
        return ops.log_softmax(ops.log(ops.maximum(probabilities, SMALLEST)) / self.temperature)


#: Images for the BatchNorm re-estimation; 1,024 validate equally well (docs/recipe.md).
IMAGES = 512


def estimate_statistics(network: keras.Model, images: NDArray[np.uint8]) -> None:
    """Re-estimate the BatchNorm statistics of ``network`` on ``images``, uint8 (n, 48, 48).

    The averages from training belong to other weights (the current ones, while the averaged ones are saved),
    to augmented images, and to activations whose variance dropout has shifted (Li et al. 2018,
    arXiv:1801.05134). One pass without dropout replaces them, in as few batches as memory allows.
    """
    scaled = images[..., None].astype(np.float32) / np.float32(PIXEL_MAX)
    batches = np.array_split(scaled, -(-len(scaled) // images_at_once(network, kept=True)))
    kept = []
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            kept.append((layer, "momentum", layer.momentum))
        elif isinstance(layer, keras.layers.Dropout):
            kept.append((layer, "rate", layer.rate))
            layer.rate = 0.0
    try:
        for number, batch in enumerate(batches):
            for layer, name, _ in kept:
                if name == "momentum":
                    layer.momentum = number / (number + 1)
            network(batch, training=True)
    finally:
        for layer, name, value in kept:
            setattr(layer, name, value)
