from collections import Counter

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from small_run import branched, randomize, run_onnxruntime

from fertools.backend import import_keras
from fertools.models import build
from fertools.models.inference import probabilities

keras = import_keras()
layers = keras.layers

from fertools.export.graph import to_onnx  # noqa: E402

FACES = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    return randomize(build("sequential"))


@pytest.fixture(scope="module")
def model(network):
    return to_onnx(network)


def describe(value):
    tensor = value.type.tensor_type
    dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), dims


def test_contract(model):
    assert [describe(value) for value in model.graph.input] == [("image", "UINT8", ["batch", 48, 48, 1])]
    assert [describe(value) for value in model.graph.output] == [("probabilities", "FLOAT", ["batch", 7])]
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    onnx.checker.check_model(model, full_check=True)


def test_nothing_is_left_of_training(model):
    assert Counter(node.op_type for node in model.graph.node) == {
        "Cast": 1,  # the scaling to 0..1 is in the kernels of conv1
        "Reshape": 2,  # NHWC to NCHW with one channel, and Flatten
        "Conv": 4,
        "Relu": 6,
        "MaxPool": 4,
        "Transpose": 1,  # before Flatten
        "Gemm": 3,
        "Softmax": 1,
    }
    parameters = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert 4_470_000 < parameters < 4_478_727  # without the statistics


@pytest.mark.parametrize(
    "run", [run_onnxruntime, lambda m, f: ReferenceEvaluator(m).run(None, {"image": f[..., None]})[0]]
)
def test_same_probabilities_as_keras(network, model, run):
    expected, found = probabilities(network, FACES), run(model, FACES)
    assert found.dtype == np.float32
    assert found.shape == (3, 7)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_any_batch_size(model):
    one_by_one = np.concatenate([run_onnxruntime(model, face[None]) for face in FACES])
    np.testing.assert_allclose(run_onnxruntime(model, FACES), one_by_one, atol=1e-6)


def test_functional_network_with_branches():
    image = keras.Input((48, 48, 1))
    network = keras.Model(image, branched()(layers.AveragePooling2D(4)(image)))
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            randomize(layer)
    found = run_onnxruntime(to_onnx(network), FACES)
    np.testing.assert_allclose(found, probabilities(network, FACES), atol=1e-5)


def test_dense_layer_without_bias():
    network = keras.Sequential(
        [layers.Input((48, 48, 1)), layers.Flatten(), layers.Dense(9, use_bias=False, activation="relu")]
    )
    network.add(layers.Dense(7, use_bias=False))
    found = run_onnxruntime(to_onnx(network), FACES)
    np.testing.assert_allclose(found, probabilities(network, FACES), atol=1e-5)


def test_resized_images():
    """tf2onnx would make 199 rows of them: 48 times the float32 next to 200/48 is below 200."""
    network = keras.Sequential([layers.Input((48, 48, 1)), layers.Resizing(200, 200), layers.Flatten()])
    model = to_onnx(network)
    assert "Resize" not in {node.op_type for node in model.graph.node}
    found = run_onnxruntime(model, FACES)
    assert found.shape == (3, 200 * 200)
    np.testing.assert_allclose(found, probabilities(network, FACES), atol=1e-6)
