import json

import h5py
import numpy as np
import pytest
from PIL import Image

from fertools.backend import import_keras
from fertools.errors import ConfigError, ModelError
from fertools.models import NETWORKS, build, build_pretrained
from fertools.models.inference import BATCH_SIZE, probabilities
from fertools.models.structure import images_at_once, structure

keras = import_keras()

from keras.src.legacy.saving import legacy_h5_format  # noqa: E402

from fertools.training.network import IMAGES as STATISTICS_IMAGES  # noqa: E402

#: Name, class, output shape, parameters.
TABLE = """
conv1          Conv2D             48 48 64      640
conv1_norm     BatchNormalization 48 48 64      256
conv1_relu     Activation         48 48 64        0
conv1_pool     MaxPooling2D       24 24 64        0
conv1_dropout  Dropout            24 24 64        0
conv2          Conv2D             24 24 128  204928
conv2_norm     BatchNormalization 24 24 128     512
conv2_relu     Activation         24 24 128       0
conv2_pool     MaxPooling2D       12 12 128       0
conv2_dropout  Dropout            12 12 128       0
conv3          Conv2D             12 12 512  590336
conv3_norm     BatchNormalization 12 12 512    2048
conv3_relu     Activation         12 12 512       0
conv3_pool     MaxPooling2D       6 6 512         0
conv3_dropout  Dropout            6 6 512         0
conv4          Conv2D             6 6 512   2359808
conv4_norm     BatchNormalization 6 6 512      2048
conv4_relu     Activation         6 6 512         0
conv4_pool     MaxPooling2D       3 3 512         0
conv4_dropout  Dropout            3 3 512         0
flatten        Flatten            4608            0
dense1         Dense              256       1179904
dense1_norm    BatchNormalization 256          1024
dense1_relu    Activation         256             0
dense1_dropout Dropout            256             0
dense2         Dense              512        131584
dense2_norm    BatchNormalization 512          2048
dense2_relu    Activation         512             0
dense2_dropout Dropout            512             0
probabilities  Dense              7            3591
"""


@pytest.fixture(scope="module")
def network():
    return build("sequential")


def test_layer_table(network):
    rows = [
        [layer.name, type(layer).__name__, *map(str, layer.output.shape[1:]), str(layer.count_params())]
        for layer in network.layers
    ]
    assert rows == [line.split() for line in TABLE.strip().splitlines()]
    assert {layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)} == {0.25}
    assert {layer.padding for layer in network.layers if isinstance(layer, keras.layers.Conv2D)} == {"same"}


def test_parameter_counts(network):
    assert network.count_params() == 4_478_727
    assert sum(variable.value.shape.num_elements() for variable in network.trainable_variables) == 4_474_759


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_output_is_float32(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        network = build("sequential")
    finally:
        keras.config.set_dtype_policy(before)
    assert network.layers[0].compute_dtype == policy.removeprefix("mixed_")
    assert network.outputs[0].dtype == "float32"
    assert {variable.dtype for variable in network.weights} == {"float32"}


def test_names_do_not_depend_on_what_was_built_before(network):
    assert build("sequential").to_json() == network.to_json()


def test_json_round_trip(network):
    twin = keras.models.model_from_json(network.to_json())
    assert json.loads(twin.to_json()) == json.loads(network.to_json())
    twin.set_weights(network.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    np.testing.assert_array_equal(probabilities(twin, images), probabilities(network, images))


def test_probabilities(network):
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    rows = probabilities(network, images, batch_size=2)
    assert rows.shape == (5, 7)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    direct = network(images[..., None] / np.float32(255), training=False)
    np.testing.assert_allclose(rows, direct, atol=1e-6)


def test_unknown_model():
    with pytest.raises(ConfigError, match=f"unknown model 'vgg': choose one of {', '.join(NETWORKS)}"):
        build("vgg")


#: The parameters that the networks were published with.
PUBLISHED = {
    "sequential": 4_478_727,
    "inception-resnet": 21_865_895,
    "mlp": 2_639_623,
    "cnn3": 2_470_151,
    "shallow": 78_335,
}


#: Networks of more parameters take seconds to build.
MANY = 40_000_000


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=[pytest.mark.slow] if facts.parameters > MANY else [])
        for name, facts in NETWORKS.items()
    ],
)
def any_network(request):
    """Each network, built once for all tests that want it."""
    return build(request.param)


def test_facts(any_network):
    facts = NETWORKS[any_network.name]
    assert any_network.count_params() == facts.parameters == PUBLISHED.get(facts.name, facts.parameters)
    assert sum(layer.multiply_adds for layer in structure(any_network)) == facts.multiply_adds
    assert any_network.input_shape == (None, 48, 48, 1)
    shape = {layer.name: layer.shape for layer in structure(any_network)}
    if facts.input.startswith("48x48x3"):
        assert shape["three_channels"] == (48, 48, 3)
    elif facts.input.startswith("200x200x3"):
        assert shape["normalize"] == (200, 200, 3)
    else:
        assert facts.input.startswith("48x48x1")


def test_ends_as_calibration_wants_it(any_network):
    """In a Dense layer with softmax, whose logits one temperature can divide, in float32."""
    last = any_network.layers[-1]
    assert isinstance(last, keras.layers.Dense)
    assert last.activation is keras.activations.softmax
    assert last.compute_dtype == "float32"
    assert any_network.output_shape == (None, 7)


def test_layers_have_names_of_their_own(any_network):
    """Not those that Keras makes up, which count on with every network that a process builds."""
    names = [layer.name for layer in any_network.layers]
    for name in names:
        kind, _, number = name.rpartition("_")
        if kind in ("conv2d", "batch_normalization", "activation", "custom_scale_layer") and int(number) > 1:
            assert f"{kind}_{int(number) - 1}" in names, name
    assert not {"conv2d", "batch_normalization", "dense", "dropout", "activation"} & {*names}


def test_no_layer_is_a_python_function(any_network):
    assert not any(isinstance(layer, keras.layers.Lambda) for layer in any_network.layers)
    twin = json.loads(any_network.to_json())
    assert twin["config"]["name"] == any_network.name


@pytest.mark.parametrize(
    "name",
    [
        *("mlp", "cnn3-sgd", "shallow", "resnet18", "transfer-vgg16"),
        pytest.param("inception-resnet", marks=pytest.mark.slow),
    ],
)
def test_json_round_trip_of_any_network(name):
    network = build(name)
    twin = keras.models.model_from_json(network.to_json())
    assert twin.to_json() == network.to_json()
    twin.set_weights(network.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48), dtype=np.uint8)
    np.testing.assert_array_equal(probabilities(twin, images), probabilities(network, images))


def values(network, name, images):
    """What the layer ``name`` gives for uint8 images."""
    model = keras.Model(network.inputs[0], network.get_layer(name).output)
    return np.asarray(model(images[..., None] / np.float32(255)))


def test_what_the_first_layers_make_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    np.testing.assert_allclose(values(build("mlp"), "raw_pixels", image)[..., 0], image, atol=1e-4)
    copied = values(build("shallow"), "three_channels", image)
    np.testing.assert_allclose(copied, np.repeat(image[..., None] / 255, 3, axis=-1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "module"), [("transfer-vgg16", "vgg16"), ("transfer-inceptionv3", "inception_v3")]
)
def test_transfer_networks_see_what_imagenet_saw(name, module):
    image = np.random.default_rng(0).integers(0, 256, (1, 48, 48), dtype=np.uint8)
    found = values(build(name), "normalize", image)
    # Pillow resizes by the same rule: bilinear, about the centres of pixels.
    grey = Image.fromarray(image[0].astype(np.float32)).resize((200, 200), Image.Resampling.BILINEAR)
    colours = np.repeat(np.asarray(grey)[None, ..., None], 3, axis=-1)
    expected = getattr(keras.applications, module).preprocess_input(colours.copy())
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.ptp(expected))


def test_dropout_of_the_two_runs_of_cnn3():
    rates = {
        name: {layer.rate for layer in build(name).layers if isinstance(layer, keras.layers.Dropout)}
        for name in ("cnn3", "cnn3-sgd")
    }
    assert rates == {"cnn3": {0.2}, "cnn3-sgd": {0.3}}


def test_large_layers_make_small_batches(network):
    assert images_at_once(network) >= BATCH_SIZE
    assert images_at_once(network, kept=True) >= STATISTICS_IMAGES
    large = keras.Sequential([keras.layers.Input((48, 48, 1)), keras.layers.UpSampling2D(100)])
    assert images_at_once(large) == 2**28 // (4800 * 4800 * 4)
    assert images_at_once(large, kept=True) == 2**32 // (4800 * 4800 * 4 + 48 * 48 * 4)


def test_no_imagenet_weights_for_our_own():
    with pytest.raises(ConfigError, match="weights=imagenet: cnn3 has none of ImageNet; transfer-vgg16, "):
        build_pretrained("cnn3")


def test_imagenet_weights_from_a_file(tmp_path):
    """In the format that Keras offers them in."""
    base = keras.applications.VGG16(include_top=False, weights=None)
    with h5py.File(tmp_path / "notop.h5", "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, base)
    network = build_pretrained("transfer-vgg16", str(tmp_path / "notop.h5"))
    kernels = [layer for layer in base.layers if layer.weights]
    assert len(kernels) == 13
    for layer in kernels:
        for found, given in zip(
            network.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(found, given)


def test_weights_that_cannot_be_had(monkeypatch, capsys):
    """Without a network; nothing goes to stdout, and the error is one line that says what else to do."""

    def no_network(*arguments, **options):
        print("Downloading data from somewhere")
        raise Exception("URL fetch failure on somewhere: None -- [Errno -3] no name resolution")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", no_network)
    with pytest.raises(ModelError) as caught:
        build_pretrained("transfer-vgg16")
    assert str(caught.value) == (
        "weights=imagenet: cannot be had for transfer-vgg16 (URL fetch failure on somewhere: None"
        " -- [Errno -3] no name resolution); train with weights none, or a file"
    )
    assert capsys.readouterr().out == ""
