"""The network as it runs on the device: BatchNormalization folded away, no dropout, a plain reshape."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers, ops


class Nothing(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes the place of a layer that was removed.

    Not Keras' Identity, which refuses the ``mask`` that functional models call some layers with.
    """

    def call(self, inputs: Any, **arguments: Any) -> Any:
        """Return ``inputs``."""
        return inputs


class FixedFlatten(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Flatten with the batch axis as the unknown one.

    Keras' own Flatten asks for the batch size at run time, a chain of seven nodes in ONNX.
    """

    def call(self, inputs: Any) -> Any:
        """Reshape (batch, ...) to (batch, features)."""
        return ops.reshape(inputs, (-1, math.prod(inputs.shape[1:])))


class MatrixResizing(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Resizing as two matrix products, whose matrices are Keras' own resizing of the unit matrix.

    A Resize node makes floor(size x scale) pixels, and the float32 next to 200/48 makes 199 of 48.
    """

    def __init__(self, resizing: layers.Resizing) -> None:
        super().__init__(name=resizing.name)
        height, width = resizing.input.shape[1:3]
        options = {"interpolation": resizing.interpolation, "antialias": resizing.antialias}

        def matrix(size: int, wanted: int) -> np.ndarray[Any, Any]:
            unit = np.eye(size, dtype=np.float32)[None, ..., None]
            return np.asarray(ops.image.resize(unit, (wanted, size), **options))[0, ..., 0]

        self.rows, self.columns = matrix(height, resizing.height), matrix(width, resizing.width)

    def call(self, inputs: Any) -> Any:
        """Resize (batch, height, width, channels)."""
        height, width, channels = inputs.shape[1:]
        rows = ops.matmul(self.rows, ops.reshape(inputs, (-1, height, width * channels)))
        return ops.matmul(self.columns, ops.reshape(rows, (-1, len(self.rows), width, channels)))


class Factor(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Rescaling by one number. Keras' own also adds its offset, even if it is zero."""

    def __init__(self, factor: float, name: str) -> None:
        super().__init__(name=name)
        self.factor = factor

    def call(self, inputs: Any) -> Any:
        """Multiply."""
        return inputs * self.factor


def fold(network: keras.Model) -> keras.Model:
    """Return a copy of ``network`` for inference, equal up to rounding.

    A BatchNormalization that alone follows a linear Conv2D or Dense is multiplied into its kernel
    and bias. Others stay, also those behind an Add. Works on Sequential and functional models, in float32.
    """
    folded = _foldable(network)
    dropped = {norm.name for norm in folded.values()}

    def clone(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if layer.name in dropped or isinstance(layer, layers.Dropout):
            return Nothing(name=layer.name)
        if isinstance(layer, layers.Flatten) and layer.data_format == "channels_last":
            return FixedFlatten(name=layer.name)
        if isinstance(layer, layers.Resizing) and not (
            layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio
        ):
            return MatrixResizing(layer)
        if isinstance(layer, layers.Rescaling) and layer.offset == 0:
            return Factor(layer.scale, name=layer.name)
        if layer.name in folded:
            config["use_bias"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    for source in network.layers:
        if source.name in folded:
            copy.get_layer(source.name).set_weights(_folded_weights(source, folded[source.name]))
        elif source.name not in dropped and source.weights:
            copy.get_layer(source.name).set_weights(source.get_weights())
    return copy


def _foldable(network: keras.Model) -> dict[str, layers.BatchNormalization]:
    """Find the layers whose weights can absorb the normalization that follows them, by name."""
    graph = network._functional if isinstance(network, keras.Sequential) else network
    readers: dict[str, list[layers.Layer]] = {}
    calls: Counter[str] = Counter()
    for node in itertools.chain.from_iterable(graph._nodes_by_depth.values()):
        calls[node.operation.name] += 1
        for parent in node.parent_nodes:
            readers.setdefault(parent.operation.name, []).append(node.operation)
    found = {}
    for layer in network.layers:
        if not isinstance(layer, (layers.Conv2D, layers.Dense)):
            continue
        following = readers.get(layer.name, [])
        if (
            layer.activation is keras.activations.linear
            and len(following) == 1
            and isinstance(following[0], layers.BatchNormalization)
            and calls[layer.name] == calls[following[0].name] == 1
            and following[0].axis in (-1, layer.output.ndim - 1)
        ):
            found[layer.name] = following[0]
    return found


def _folded_weights(layer: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray[Any, Any]]:
    """Kernel and bias of ``layer`` followed by ``norm``, computed in float64."""
    mean, variance = (np.float64(value) for value in (norm.moving_mean, norm.moving_variance))
    gamma = np.float64(norm.gamma) if norm.scale else 1.0
    beta = np.float64(norm.beta) if norm.center else 0.0
    bias = np.float64(layer.bias) if layer.use_bias else 0.0
    factor = gamma / np.sqrt(variance + norm.epsilon)
    kernel = np.float64(layer.kernel) * factor  # both kinds of kernel have the outputs last
    return [kernel.astype(np.float32), ((bias - mean) * factor + beta).astype(np.float32)]
