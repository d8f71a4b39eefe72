import json

import numpy as np
import pytest

from fertools.backend import import_keras
from fertools.errors import ConfigError
from fertools.models import BUILDERS, build
from fertools.models.prediction import probabilities

keras = import_keras()

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
    with pytest.raises(ConfigError, match=f"unknown model 'vgg': choose one of {', '.join(BUILDERS)}"):
        build("vgg")
