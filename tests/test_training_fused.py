"""The layers that TensorFlow trains faster compute what Keras' own do."""

from __future__ import annotations

import numpy as np
import pytest

from fertools.backend import BFLOAT16_FLAGS, bfloat16_is_forbidden, import_keras
from fertools.models import NETWORKS, build
from fertools.processor import processor

keras = import_keras()
if keras.backend.backend() != "tensorflow":
    pytest.skip("TensorFlow's operation", allow_module_level=True)

from fertools.training.network import (  # noqa: E402
    FusedBatchNormalization,
    KernelProductConv2D,
    in_fast_layers,
)
from fertools.training.trainer import dtype_policy  # noqa: E402


def trained_once(layer, inputs):
    """Outputs, gradients and moving averages after one step with ``inputs``."""
    import tensorflow as tf

    inputs = tf.cast(inputs, layer.compute_dtype)
    layer.build(inputs.shape)
    for number, variable in enumerate(layer.trainable_variables):
        variable.assign(np.linspace(0.5, 1.5, variable.shape[0]) * (number + 1))
    weights = np.linspace(-1, 1, inputs.shape[0])[:, None, None, None]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 2 * weights)
    gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
    found = [outputs, *gradients, layer.moving_mean, layer.moving_variance]
    return [np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32"))) for value in found]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("mixed_bfloat16", 0.03)])
@pytest.mark.parametrize("scale", [True, False])
def test_computes_what_keras_does(dtype, tolerance, scale):
    inputs = np.random.default_rng(0).normal(3, 2, (6, 5, 4, 8)).astype(np.float32)
    if dtype != "float32" and BFLOAT16_FLAGS & processor()[1] and bfloat16_is_forbidden():
        pytest.skip("TensorFlow takes oneDNN's bfloat16, which oneDNN is forbidden here")
    options = {"scale": scale, "momentum": 0.9, "epsilon": 0.01, "dtype": dtype}
    expected = trained_once(keras.layers.BatchNormalization(**options), inputs)
    found = trained_once(FusedBatchNormalization(**options), inputs)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, atol=tolerance * max(1, np.abs(one).max()))
    # The moving averages are float32 of the same bfloat16 inputs.
    for one, other in zip(expected[-2:], found[-2:], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5)


@pytest.mark.parametrize("name", ["sequential", "compact", "resnet18"])
def test_the_network_stays_the_same(name):
    network = build(name)
    faces = np.random.default_rng(0).uniform(size=(2, 48, 48, 1)).astype(np.float32)
    fused = in_fast_layers(network, on_cpu=True)
    kinds = {type(layer) for layer in fused._flatten_layers()}
    assert FusedBatchNormalization in kinds
    assert keras.layers.BatchNormalization not in kinds
    assert (fused.name, fused.count_params()) == (network.name, NETWORKS[name].parameters)
    np.testing.assert_array_equal(fused.predict(faces, verbose=0), network.predict(faces, verbose=0))


def test_dense_layers_and_frozen_ones_are_keras():
    layer, plain = (kind() for kind in (FusedBatchNormalization, keras.layers.BatchNormalization))
    inputs = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(inputs, training=True), plain(inputs, training=True))
    frozen = FusedBatchNormalization()
    frozen.trainable = False
    images = inputs.reshape(1, 2, 2, 3)
    np.testing.assert_allclose(frozen(images, training=True), images, atol=1e-3)


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 1)])
@pytest.mark.parametrize("size", [(5, 4), (6, 7)])
def test_the_gradient_of_a_kernel_as_a_product(kernel, size):
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=(3, *size, 4)).astype(np.float32))
    layers = [
        kind(6, kernel, padding="same", activation="relu")
        for kind in (KernelProductConv2D, keras.layers.Conv2D)
    ]
    found = []
    for layer in layers:
        layer.build(images.shape)
        layer.set_weights([weights.numpy() for weights in layers[0].weights])
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images)
            loss = tf.reduce_sum(outputs**2 * np.arange(6))
        found.append([outputs, *tape.gradient(loss, [images, *layer.trainable_variables])])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("on_cpu", "dtype", "count"),
    [(True, "mixed_bfloat16", 2), (True, "float32", 0), (False, "mixed_bfloat16", 0)],
)
def test_products_only_where_they_are_faster(on_cpu, dtype, count):
    with dtype_policy(dtype):
        layers = in_fast_layers(build("sequential"), on_cpu=on_cpu)._flatten_layers()
    assert [type(layer) for layer in layers].count(KernelProductConv2D) == count
