import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_run import run_onnxruntime

from fertools.export import QuantizeConfig
from fertools.export.graph import to_onnx
from fertools.export.quantization import calibration_images, quantize
from fertools.export.rounding import INPUTS, Layer, input_squares, round_rows, round_weights
from fertools.models.inference import load

SHAPE = [None, 48, 48, 1]


def alike(generator, count, size):
    """Input vectors (count, size) that have much in common, as the pixels of a patch have."""
    return generator.normal(size=(count, 3)) @ generator.normal(size=(3, size)) + 0.1 * generator.normal(
        size=(count, size)
    )


def nearest(weights, scales, levels):
    steps = np.where(scales == 0, 1, scales)[:, None]
    return np.clip(np.rint(weights / steps), -levels, levels) * scales[:, None]


def model_of(node, weights, shape, *more):
    """A graph: the image, cast and reshaped to ``shape``, then ``node`` from "x" and "w" to our output."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["float", "shape"], ["x"]),
            node,
            *more,
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, SHAPE)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(weights.astype(np.float32), "w"),
            numpy_helper.from_array(np.array(shape, np.int64), "shape"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights_of(model):
    return next(numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "w")


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (5, 48, 48)).astype(np.uint8)


@given(
    seed=st.integers(0, 2**32 - 1),
    outputs=st.integers(1, 5),
    inputs=st.integers(1, 300),
    levels=st.sampled_from([64, 127]),
    common=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_rounded_weights_are_on_a_grid_that_spans_as_before(seed, outputs, inputs, levels, common):
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(outputs, inputs))
    vectors = alike(generator, 50, inputs)
    largest = np.abs(weights).max(axis=1)
    scales = (np.full(outputs, largest.max()) if common else largest) / levels
    rounded = round_rows(weights, vectors.T @ vectors, scales, levels)
    integers = rounded / scales[:, None]
    np.testing.assert_allclose(integers, np.rint(integers), atol=1e-6)
    assert np.abs(integers).max() == pytest.approx(levels)
    if not common:
        np.testing.assert_allclose(np.abs(rounded).max(axis=1), largest)


@pytest.mark.parametrize("size", [20, 300])
def test_answers_are_closer_than_with_the_nearest_weights(size):
    generator = np.random.default_rng(0)
    weights, vectors = generator.normal(size=(8, size)), alike(generator, 2000, size)
    scales = np.abs(weights).max(axis=1) / 64
    rounded = round_rows(weights, vectors.T @ vectors, scales, 64)
    unseen = vectors[1000:]
    error, plain = (
        np.mean(((found - weights) @ unseen.T) ** 2) for found in (rounded, nearest(weights, scales, 64))
    )
    assert error < plain / 3


def test_inputs_that_have_nothing_in_common_leave_the_nearest_weights():
    weights = np.random.default_rng(0).normal(size=(8, 200))
    scales = np.abs(weights).max(axis=1) / 64
    found = round_rows(weights, np.diag(np.arange(1.0, 201)), scales, 64)
    np.testing.assert_allclose(found, nearest(weights, scales, 64))


def test_inputs_and_outputs_that_are_always_zero():
    weights = np.random.default_rng(0).normal(size=(3, 10))
    weights[1] = 0
    scales = np.abs(weights).max(axis=1) / 64
    np.testing.assert_array_equal(round_rows(weights, np.zeros((10, 10)), scales, 64), weights)
    found = round_rows(weights, np.diag([0.0] * 5 + [1] * 5), scales, 64)
    assert np.isfinite(found).all()
    assert not found[1].any()


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [5, 3], "strides": [3, 2], "pads": [1, 0, 2, 3]},
        {"kernel_shape": [1, 1], "dilations": [1, 1], "strides": [2, 2], "group": 1},
    ],
    ids=["plain", "strides and uneven pads", "one pixel"],
)
def test_the_inputs_of_a_convolution_are_those_that_it_computes_with(options, images):
    # The images as 4 channels of 24x24.
    weights = np.random.default_rng(0).normal(size=(6, 4, *options["kernel_shape"])).astype(np.float32)
    model = model_of(
        helper.make_node("Conv", ["x", "w"], ["probabilities"], **options), weights, [-1, 4, 24, 24]
    )
    layer = Layer(model.graph.node[-1])
    (squares,) = input_squares(model, [layer], images)
    found = run_onnxruntime(model, images)
    assert found.shape[0] * found.shape[2] * found.shape[3] <= INPUTS
    rows = layer.outputs_first(weights)
    expected = np.einsum("nohw,nohw->o", found, found, dtype=np.float64)
    np.testing.assert_allclose(np.einsum("oi,ij,oj->o", rows, squares, rows), expected, rtol=1e-4)
    np.testing.assert_array_equal(layer.as_stored(rows, weights.shape), weights)


@pytest.mark.parametrize("transposed", [0, 1])
def test_the_inputs_of_a_dense_layer_are_those_that_it_computes_with(transposed, images):
    weights = np.random.default_rng(0).normal(size=(3, 2304) if transposed else (2304, 3)).astype(np.float32)
    model = model_of(
        helper.make_node("Gemm", ["x", "w"], ["probabilities"], transB=transposed), weights, [-1, 2304]
    )
    layer = Layer(model.graph.node[-1])
    (squares,) = input_squares(model, [layer], images)
    rows = layer.outputs_first(weights)
    expected = (run_onnxruntime(model, images).astype(np.float64) ** 2).sum(axis=0)
    np.testing.assert_allclose(np.einsum("oi,ij,oj->o", rows, squares, rows), expected, rtol=1e-3)
    np.testing.assert_array_equal(layer.as_stored(rows, weights.shape), weights)


def test_of_many_pixels_some_are_drawn():
    layer = Layer(
        helper.make_node("Conv", ["x", "w"], ["probabilities"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    )
    tensor = np.random.default_rng(0).normal(size=(2, 1, 48, 48)).astype(np.float32)
    vectors = layer.vectors(tensor, np.random.default_rng(0))
    assert vectors.shape == (INPUTS, 9)
    assert len(np.unique(vectors[:, 4])) > 0.99 * INPUTS  # the pixel itself: no place was drawn twice


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"kernel_shape": [3, 3], "group": 2}, (4, 2, 3, 3)),
        ({"kernel_shape": [3, 3], "dilations": [2, 2]}, (4, 4, 3, 3)),
        ({"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, (4, 4, 3, 3)),
    ],
    ids=["groups", "dilation", "automatic padding"],
)
def test_other_convolutions_stay_as_they_are(options, shape, images):
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = model_of(
        helper.make_node("Conv", ["x", "w"], ["probabilities"], **options), weights, [-1, 4, 24, 24]
    )
    before = model.SerializeToString()
    round_weights(model, list(model.graph.node), images, 64, per_channel=True)
    assert model.SerializeToString() == before


def test_weights_of_two_layers_stay_as_they_are(images):
    weights = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)
    options = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    first, second = (
        helper.make_node("Conv", [given, "w"], [name], **options)
        for given, name in (("x", "z"), ("z", "probabilities"))
    )
    model = model_of(first, weights, [-1, 4, 24, 24], second)
    before = model.SerializeToString()
    round_weights(model, list(model.graph.node), images, 64, per_channel=True)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("per_channel", [True, False])
def test_only_the_given_layers_move_and_answer_almost_the_same(per_channel, images):
    weights = np.random.default_rng(0).normal(size=(6, 4, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["probabilities"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    model = model_of(node, weights, [-1, 4, 24, 24])
    expected = run_onnxruntime(model, images)
    round_weights(model, list(model.graph.node)[:-1], images, 64, per_channel=per_channel)
    np.testing.assert_array_equal(weights_of(model), weights)
    round_weights(model, list(model.graph.node), images, 64, per_channel=per_channel)
    moved = weights_of(model)
    scales = np.abs(weights).max(axis=(1, 2, 3) if per_channel else None, keepdims=True) / 64
    assert (moved != weights).any()
    np.testing.assert_allclose(moved / scales, np.rint(moved / scales), atol=1e-4)
    error = np.abs(run_onnxruntime(model, images) - expected).mean()
    plain = model_of(node, np.rint(weights / scales) * scales, [-1, 4, 24, 24])
    assert error < np.abs(run_onnxruntime(plain, images) - expected).mean() / 1.2


@pytest.mark.parametrize("reduce_range", [True, False])
def test_the_quantizer_finds_the_grid_again(small_run, small_data, reduce_range, monkeypatch):
    config = QuantizeConfig(images=64, reduce_range=reduce_range)
    train = small_data.split("train").images
    given = {}

    def remember(model, nodes, images, levels, **options):
        np.testing.assert_array_equal(images, calibration_images(train, config)[::3])
        round_weights(model, nodes, images, levels, **options)
        given.update({tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer})

    monkeypatch.setattr("fertools.export.quantization.round_weights", remember)
    monkeypatch.setattr("fertools.export.quantization.ROUNDING_IMAGES", 25)
    model = to_onnx(load(small_run / "best.keras"))
    int8 = quantize(model, train, config)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in int8.graph.initializer}
    found = 0
    for name, array in stored.items():
        if array.dtype == np.int8 and array.ndim >= 2:
            original = name.removesuffix("_quantized")
            (node,) = (node for node in int8.graph.node if name in node.input)
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            scale = stored[node.input[1]]
            shape = [-1 if position == axis else 1 for position in range(array.ndim)]
            np.testing.assert_allclose(array * scale.reshape(shape), given[original], rtol=1e-5, atol=1e-8)
            assert np.abs(array).max() == (64 if reduce_range else 127)
            found += 1
    assert found >= 2
