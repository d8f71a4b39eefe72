import tempfile

import numpy as np
import onnx
import pytest
from hostile import full_disk
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from small_run import decisive, randomize, run_onnxruntime

from fertools.backend import import_keras
from fertools.errors import ConfigError, DataError, WriteError
from fertools.export import QuantizeConfig
from fertools.export.graph import to_onnx
from fertools.export.quantization import quantize
from fertools.models import build
from fertools.models.inference import load
from fertools.processor import int8_features

keras = import_keras()
layers = keras.layers


@pytest.fixture(scope="module")
def train(small_data):
    return small_data.split("train").images


@pytest.fixture(scope="module")
def test(small_data):
    return small_data.split("test").images


@pytest.fixture(scope="module")
def model(small_run):
    return to_onnx(load(small_run / "best.keras"))


@pytest.fixture(scope="module")
def int8(model, train):
    return quantize(model, train, QuantizeConfig(images=256))


def tensors(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def kernels(model):
    return [array for array in tensors(model).values() if array.dtype == np.int8 and array.ndim >= 2]


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


def test_the_first_convolution_stays_in_float(model, int8):
    node = next(node for node in int8.graph.node if "image" in node.input)
    names = []
    while node.op_type != "QuantizeLinear":
        names.append(node.op_type)
        (node,) = (reader for reader in int8.graph.node if node.output[0] in reader.input)
        if node.op_type == "Conv":
            assert [tensors(int8)[name].dtype for name in node.input[1:]] == [np.float32, np.float32]
    # Pooling comes before the ReLU, so that onnxruntime does not pool bytes.
    assert names == ["Cast", "Reshape", "Conv", "MaxPool", "Relu"]
    assert [node.op_type for node in model.graph.node][2:5] == ["Conv", "Relu", "MaxPool"]


def test_the_image_is_the_first_quantized_tensor(model, train):
    int8 = quantize(model, train, QuantizeConfig(images=256, float_layers=0))
    node = next(node for node in int8.graph.node if "image" in node.input)
    while node.op_type in ("Reshape", "Transpose"):
        (node,) = (reader for reader in int8.graph.node if node.output[0] in reader.input)
    assert node.op_type == "DequantizeLinear"
    scale, zero_point = (tensors(int8)[name] for name in node.input[1:])
    assert scale == 1
    assert (zero_point, zero_point.dtype) == (0, np.uint8)
    assert not {"Cast", "Mul"} & {node.op_type for node in int8.graph.node}


def test_a_float_first_convolution_follows_more_closely(model, int8, train, test):
    quantized = quantize(model, train, QuantizeConfig(images=256, float_layers=0))
    expected = run_onnxruntime(model, test)
    kept, lost = (abs(run_onnxruntime(graph, test) - expected).mean() for graph in (int8, quantized))
    assert kept < 0.8 * lost


@pytest.mark.parametrize(("name", "factor"), [("mlp", 1.0), ("mlp-scaled", 1 / 255)])
def test_pixels_of_dense_layers_are_it_too(train, name, factor):
    model = to_onnx(decisive(randomize(build(name)), train[:8]))
    int8 = quantize(model, train, QuantizeConfig(images=35))
    assert not {"Cast", "Mul"} & {node.op_type for node in int8.graph.node}
    node = next(node for node in int8.graph.node if "image" in node.input)
    while node.op_type in ("Reshape", "Transpose", "Concat"):
        (node,) = (reader for reader in int8.graph.node if node.output[0] in reader.input)
    scale, zero_point = (tensors(int8)[name] for name in node.input[1:])
    assert node.op_type == "DequantizeLinear"
    assert scale == np.float32(factor)
    assert (zero_point, zero_point.dtype) == (0, np.uint8)
    expected, found = run_onnxruntime(model, train[:8]), run_onnxruntime(int8, train[:8])
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_another_front_is_left_alone(train):
    """Shifted pixels are not the quantized form of anything with zero point 0."""
    network = keras.Sequential(
        [
            layers.Input((48, 48, 1)),
            layers.Rescaling(2.0, -1.0),
            layers.Conv2D(4, 3, strides=4),
            layers.Flatten(),
        ]
    )
    network.add(layers.Dense(7, activation="softmax"))
    model = to_onnx(randomize(network))
    int8 = quantize(model, train, QuantizeConfig(images=35))
    assert {"Cast", "Mul", "Add"} <= {node.op_type for node in int8.graph.node}
    expected, found = run_onnxruntime(model, train[:8]), run_onnxruntime(int8, train[:8])
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_the_end_stays_in_float(int8):
    softmax = producers(int8)["probabilities"]
    assert softmax.op_type == "Softmax"
    gemm = producers(int8)[softmax.input[0]]
    assert gemm.op_type == "Gemm"
    assert [tensors(int8)[name].dtype for name in gemm.input[1:]] == [np.float32, np.float32]
    assert int8.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_everything_between_is_int8(int8):
    made = producers(int8)
    _, *inner, _ = (node for node in int8.graph.node if node.op_type in ("Conv", "Gemm"))
    assert [node.op_type for node in inner] == ["Conv", "Gemm"]
    for node in inner:
        assert [made[name].op_type for name in node.input] == ["DequantizeLinear"] * 3
    assert len(kernels(int8)) == 2
    onnx.checker.check_model(int8, full_check=True)


def test_weights_have_seven_bits(int8):
    # 2 * 255 * 64 fits 16 bits, so pairs of products cannot saturate on processors that add them there.
    for kernel in kernels(int8):
        assert -64 <= kernel.min() <= kernel.max() <= 64
        assert abs(kernel.astype(int)).max() == 64


def test_eight_bits_if_wanted(model, train):
    for kernel in kernels(quantize(model, train, QuantizeConfig(images=35, reduce_range=False))):
        assert abs(kernel.astype(int)).max() >= 127


def test_scales_per_channel_or_per_tensor(model, int8, train):
    def scales(graph):
        return sorted(
            array.size
            for name, array in tensors(graph).items()
            if array.dtype == np.int8 and name.endswith("zero_point")
        )

    assert scales(int8) == [16, 32]
    assert scales(quantize(model, train, QuantizeConfig(images=35, per_channel=False))) == [1, 1]


@pytest.mark.parametrize("settings", [{}, {"reduce_range": False}, {"per_channel": False}])
def test_for_amx_the_kernels_are_off_zero_and_the_answers_the_same(model, train, test, settings):
    plain, amx = (
        quantize(model, train, QuantizeConfig(images=35, amx=each, **settings)) for each in (False, True)
    )
    before, after = tensors(plain), tensors(amx)
    assert [*before] == [*after]
    convolutions = [
        node
        for node in amx.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in after and after[node.input[0]].ndim == 4
    ]
    assert convolutions
    for node in convolutions:
        kernel, _, zero_point = node.input
        assert {*after[zero_point].flat} == {-1}
        np.testing.assert_array_equal(after[kernel].astype(int), before[kernel].astype(int) - 1)
    moved = {name for node in convolutions for name in (node.input[0], node.input[2])}
    for name in before.keys() - moved:
        np.testing.assert_array_equal(after[name], before[name])
    if "avx2" not in int8_features() or {"avx512_vnni", "avx_vnni"} & {*int8_features()}:  # no sum saturates
        np.testing.assert_array_equal(run_onnxruntime(amx, test), run_onnxruntime(plain, test))


def test_keeps_the_probabilities(model, int8, test):
    expected, found = run_onnxruntime(model, test), run_onnxruntime(int8, test)
    assert np.mean(expected.argmax(axis=1) == found.argmax(axis=1)) >= 0.98
    assert abs(found.sum(axis=1) - 1).max() < 1e-5
    assert abs(expected - found).max() < 0.15


def test_onnx_reference_agrees(int8, test):
    model = onnx.ModelProto.FromString(int8.SerializeToString())
    model.opset_import[0].version = 19  # means the same here; it has no DequantizeLinear of older ones
    (reference,) = ReferenceEvaluator(model).run(None, {"image": test[:8, ..., None]})
    np.testing.assert_allclose(run_onnxruntime(int8, test[:8]), reference, atol=0.02)


def test_seed_decides(model, train):
    first, again, other = (
        quantize(model, train, QuantizeConfig(images=10, seed=seed)).SerializeToString(deterministic=True)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_draws_no_more_images_than_asked_for(model, train):
    """Replacing all images that were not drawn changes nothing."""
    drawn = np.random.default_rng(0).permutation(len(train))[:10]
    others = np.zeros_like(train)
    others[drawn] = train[drawn]
    config = QuantizeConfig(images=10)
    assert quantize(model, train, config) == quantize(model, others, config)


def test_leaves_model_and_terminal_alone(model, train, capfd):
    before = model.SerializeToString(deterministic=True)
    for method in ("minmax", "percentile"):
        quantize(model, train, QuantizeConfig(images=33, method=method))  # no multiple of a batch
    assert model.SerializeToString(deterministic=True) == before
    assert capfd.readouterr() == ("", "")


def test_number_of_images():
    assert QuantizeConfig().resolved(10_000).images == 512
    assert QuantizeConfig().resolved(100).images == 100
    assert QuantizeConfig(method="percentile").resolved(10_000).images == 256
    with pytest.raises(DataError, match="asks for 101 training images and the data has 100"):
        QuantizeConfig(images=101).resolved(100)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": 0}, "at least one image"),
        ({"method": "best"}, "choose one of minmax, percentile"),
        ({"method": "percentile", "images": 257}, "at most 256 images, not 257"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        QuantizeConfig(**fields)


def test_a_full_temporary_folder_is_named(model, train):
    """Even where onnxruntime writes a part of a file without an error."""
    for room in (1000, model.ByteSize() * 3 // 4):
        with full_disk(room), pytest.raises(WriteError) as caught:
            quantize(model, train, QuantizeConfig(images=32))
        assert str(caught.value).startswith(f"{tempfile.gettempdir()}: cannot be written (")
