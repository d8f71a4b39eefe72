import numpy as np
import pytest

from fertools.training.backend import import_keras

keras = import_keras()
layers = keras.layers

from fertools.export.folding import fold  # noqa: E402
from fertools.models import build  # noqa: E402


def randomize(network, seed=0):
    """Give biases, and the statistics, scales and offsets of norms, values far from 0 and 1."""
    random = np.random.default_rng(seed)
    for layer in network.layers:
        if getattr(layer, "use_bias", False):
            layer.bias.assign(random.normal(0, 0.1, layer.bias.shape))
        if isinstance(layer, layers.BatchNormalization):
            size = layer.moving_mean.shape
            layer.moving_mean.assign(random.normal(0, 0.5, size))
            layer.moving_variance.assign(random.uniform(0.2, 3, size))
            if layer.scale:
                layer.gamma.assign(random.uniform(-1.5, 1.5, size))
            if layer.center:
                layer.beta.assign(random.normal(0, 0.5, size))
    return network


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


def branched():
    """Its norms: "plain" can be folded, the others cannot, each for the reason in its name."""
    image = keras.Input((12, 12, 1))
    trunk = layers.Conv2D(4, 3, padding="same")(image)
    trunk = layers.BatchNormalization(name="plain")(trunk)
    forked = layers.Conv2D(4, 3, padding="same")(trunk)
    left = layers.BatchNormalization(name="behind_a_fork")(forked)
    summed = layers.Add()([left, forked])
    summed = layers.BatchNormalization(name="behind_an_add")(summed)
    bent = layers.Conv2D(4, 3, activation="relu")(summed)
    bent = layers.BatchNormalization(name="behind_an_activation")(bent)
    shared = layers.BatchNormalization(name="shared")
    first = shared(layers.Conv2D(3, 1)(bent))
    second = shared(layers.Activation("tanh")(layers.Conv2D(3, 1)(bent)))
    merged = layers.Concatenate()([first, second])
    # As many rows as channels: only the axis tells them apart.
    rows = layers.Conv2D(10, 1)(merged)
    rows = layers.BatchNormalization(axis=1, name="along_rows")(rows)
    flat = layers.Flatten()(layers.SpatialDropout2D(0.3)(rows))
    return keras.Model(image, layers.Dense(7, activation="softmax")(flat))


def test_branches_fold_only_where_it_is_exact():
    network = randomize(branched())
    folded = fold(network)
    assert sorted(set(norms(network)) - set(norms(folded))) == ["plain"]
    assert largest_difference(network, folded, (8, 12, 12, 1)) < 1e-5
