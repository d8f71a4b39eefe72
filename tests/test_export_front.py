import numpy as np
import pytest
from small_run import decisive, randomize, run_onnxruntime, small_faces

from fertools.backend import import_keras
from fertools.export import QuantizeConfig
from fertools.export.graph import to_onnx
from fertools.export.passes import WEIGHTED, first_layers, members, pool_before_relu
from fertools.export.quantization import quantize
from fertools.models import build
from fertools.models.ensemble import weighted_mean
from fertools.models.inference import probabilities

keras = import_keras()
layers = keras.layers

FACES = small_faces().split("train").images[:40]


def operators(model):
    return [node.op_type for node in model.graph.node]


def pooled():
    """Two convolutions, both with ReLU and pooling, and a head."""
    network = keras.Sequential([layers.Input((48, 48, 1))])
    for filters in (6, 8):
        network.add(layers.Conv2D(filters, 3, activation="relu", padding="same"))
        network.add(layers.MaxPooling2D(3, strides=2, padding="same"))
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Dense(7, activation="softmax"))
    return randomize(network)


def skipping(behind=None):
    """The image is read by a convolution, and again after it, by pooling or by the layer ``behind``."""
    image = keras.Input((48, 48, 1))
    found = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    # Not the mean over the image: faces hardly differ in it, and `decisive` would enlarge its rounding.
    found = (behind or layers.AveragePooling2D(12))(layers.Concatenate()([found, image]))
    found = layers.Flatten()(found)
    return randomize(keras.Model(image, layers.Dense(7, activation="softmax")(found)))


def test_the_scaling_is_in_the_kernels():
    network = decisive(pooled(), FACES)
    model = to_onnx(network)
    assert "Mul" not in operators(model)
    np.testing.assert_allclose(run_onnxruntime(model, FACES), probabilities(network, FACES), atol=1e-4)


@pytest.mark.parametrize("behind", [None, layers.Conv2D(2, 5, strides=8)])
def test_the_scaling_stays_where_something_else_reads_the_image(behind):
    network = decisive(skipping(behind), FACES)
    model = to_onnx(network)
    assert operators(model).count("Mul") == 1
    assert first_layers(model) == []
    np.testing.assert_allclose(run_onnxruntime(model, FACES), probabilities(network, FACES), atol=1e-4)


@pytest.mark.parametrize(("second", "convolutions"), [("cnn3", 2), ("mlp-scaled", 0)])
def test_ensembles(second, convolutions):
    """If a member begins with a dense layer, the scaling stays, and the answers are unchanged."""
    networks = [decisive(pooled(), FACES), decisive(randomize(build(second)), FACES)]
    whole = weighted_mean(networks, (0.5, 0.5))
    model = to_onnx(whole)
    found = [node.op_type for node in first_layers(model)]
    assert found.count("Conv") == convolutions
    for layers_, member in zip(members(model), networks, strict=True):
        weighted = [layer for layer in member.layers if layer.weights]
        assert len(layers_) == len(weighted)  # no layer of the other
    more = [node.op_type in WEIGHTED for node in first_layers(model, 2)]
    assert sum(more) == convolutions + 2  # one more of each
    expected = probabilities(whole, FACES)
    np.testing.assert_allclose(run_onnxruntime(model, FACES), expected, atol=1e-4)
    int8 = quantize(model, FACES, QuantizeConfig(images=40))
    np.testing.assert_allclose(run_onnxruntime(int8, FACES), expected, atol=0.1)


def test_pooling_before_the_relu_changes_no_value():
    model = to_onnx(decisive(pooled(), FACES))
    expected = run_onnxruntime(model, FACES)
    before = operators(model)
    pool_before_relu(model, first_layers(model))
    at = before.index("Relu")
    assert before[at : at + 2] == ["Relu", "MaxPool"]
    assert operators(model)[at : at + 2] == ["MaxPool", "Relu"]
    assert operators(model)[at + 2 :] == before[at + 2 :]  # the second one is quantized, and stays
    np.testing.assert_array_equal(run_onnxruntime(model, FACES), expected)
