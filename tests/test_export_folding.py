import numpy as np
import pytest
from small_run import branched, randomize

from fertools.backend import import_keras

keras = import_keras()
layers = keras.layers

from fertools.export.folding import fold  # noqa: E402
from fertools.models import build  # noqa: E402


def norms(network):
    return [layer.name for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def largest_difference(network, folded, shape=(8, 48, 48, 1)):
    images = np.random.default_rng(1).random(shape, np.float32)
    outputs = [np.asarray(model(images, training=False)) for model in (network, folded)]
    assert np.ptp(outputs[0]) > 0.01  # a constant would be equal to anything
    return np.abs(outputs[0] - outputs[1]).max()


def test_sequential_folds_completely():
    network = randomize(build("sequential"))
    folded = fold(network)
    assert len(norms(network)) == 6
    assert norms(folded) == []
    assert not any(isinstance(layer, (layers.Dropout, layers.Flatten)) for layer in folded.layers)
    assert largest_difference(network, folded, (4, 48, 48, 1)) < 1e-5


def test_the_network_itself_stays_as_it_was():
    network = randomize(keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(3, 3, name="c")]))
    network.add(layers.BatchNormalization())
    before = [array.copy() for array in network.get_weights()]
    fold(network)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_without_bias_scale_or_center(scale, center):
    network = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(scale=scale, center=center, epsilon=0.01),
            layers.Flatten(),
            layers.Dense(5, use_bias=False),
            layers.BatchNormalization(scale=scale, center=center),
        ]
    )
    folded = fold(randomize(network))
    assert norms(folded) == []
    assert largest_difference(network, folded, (8, 8, 8, 1)) < 1e-5


def test_branches_fold_only_where_it_is_exact():
    network = randomize(branched())
    folded = fold(network)
    assert sorted(set(norms(network)) - set(norms(folded))) == ["plain"]
    assert largest_difference(network, folded, (8, 12, 12, 1)) < 1e-5


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
def test_rescaling_and_resizing_become_products(interpolation):
    image = keras.Input((12, 10, 2))
    larger = layers.Resizing(50, 31, interpolation=interpolation, name="larger")(image)
    factor = layers.Rescaling(3.0, name="factor")(larger)
    shifted = layers.Rescaling(2.0, offset=[0.5, -1.0], name="shifted")(factor)
    network = keras.Model(image, shifted)
    folded = fold(network)
    assert not isinstance(folded.get_layer("larger"), layers.Resizing)
    assert not isinstance(folded.get_layer("factor"), layers.Rescaling)
    assert isinstance(folded.get_layer("shifted"), layers.Rescaling)
    assert largest_difference(network, folded, (3, 12, 10, 2)) < 1e-5


def test_resizing_that_crops_stays():
    network = keras.Sequential([layers.Input((12, 8, 1)), layers.Resizing(20, 20, crop_to_aspect_ratio=True)])
    assert isinstance(fold(network).layers[0], layers.Resizing)
