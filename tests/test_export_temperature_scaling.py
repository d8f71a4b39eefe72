import json

import numpy as np
import pytest

from fertools.backend import import_keras
from fertools.data import Split
from fertools.evaluation.metrics import calibration_error, log_loss
from fertools.export.temperature_scaling import (
    TEMPERATURES,
    TemperatureScaling,
    fit_temperature,
    rescaled,
    scale_temperature,
)

keras = import_keras()
layers = keras.layers

from fertools.models import build  # noqa: E402
from fertools.models.inference import probabilities  # noqa: E402


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(temperature, images=20_000, seed=0):
    """Probabilities whose logits are ``temperature`` times those that the labels are drawn from."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, 7))
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return softmax(logits * temperature), labels.astype(np.uint8)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature):
    rows, labels = drawn(temperature)
    assert fit_temperature(rows, labels) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_has_a_lower_loss():
    rows, labels = drawn(1.7, 500)
    best = fit_temperature(rows, labels)
    losses = [log_loss(rescaled(rows, best * factor), labels) for factor in (1, 0.99, 1.01, 0.5, 2)]
    assert losses[0] == min(losses)


def test_scaling_sets_the_calibration_right():
    rows, labels = drawn(2.5)
    assert calibration_error(rows, labels) > 0.1
    assert calibration_error(rescaled(rows, fit_temperature(rows, labels)), labels) < 0.02


def test_a_split_without_a_mistake_asks_for_no_infinite_confidence():
    rows, _ = drawn(1.0, 50)
    assert fit_temperature(rows, rows.argmax(axis=1).astype(np.uint8)) == pytest.approx(
        TEMPERATURES[0], rel=1e-3
    )


def test_rescaled_divides_the_logits_and_back():
    logits = np.random.default_rng(0).normal(0, 3, (50, 7))
    rows = softmax(logits)
    scaled = rescaled(rows, 1.6)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, softmax(logits / 1.6), atol=1e-6)
    powers = rows.astype(np.float64) ** (1 / 1.6)
    np.testing.assert_allclose(scaled, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(rescaled(scaled, 1 / 1.6), rows, atol=1e-6)
    np.testing.assert_allclose(rescaled(rows, 1), rows, atol=1e-6)


def test_rescaled_bears_zeros():
    rows = np.eye(7, dtype=np.float32)
    np.testing.assert_array_equal(rescaled(rows, 2.0).argmax(axis=1), np.arange(7))


def dense(weights, bias=None, *, last="softmax"):
    """A network of one dense layer on the first pixels, optionally with a separate softmax layer."""
    network = keras.Sequential(
        [
            layers.Input((48, 48, 1)),
            layers.Flatten(),
            layers.Dense(
                7, activation=last, use_bias=bias is not None, name="probabilities" if last else "logits"
            ),
        ]
    )
    kernel = np.zeros((48 * 48, 7), np.float32)
    kernel[: len(weights)] = weights
    network.layers[-1].set_weights([kernel] if bias is None else [kernel, bias])
    return network


def noisy(images=4000, seed=0):
    """A split, and the logits that its labels are drawn from: linear in the first seven pixels."""
    random = np.random.default_rng(seed)
    faces = random.integers(0, 256, (images, 48, 48), dtype=np.uint8)
    weights, bias = np.eye(7, dtype=np.float32) * 4, random.normal(0, 0.5, 7).astype(np.float32)
    logits = faces[:, 0, :7] / 255 @ weights + bias
    labels = (logits + random.gumbel(size=logits.shape)).argmax(axis=1).astype(np.uint8)
    return Split(faces, labels), weights, bias


def test_the_last_layer_is_divided_and_labels_stay():
    split, weights, bias = noisy()
    network = dense(weights * 3, bias * 3)
    before = probabilities(network, split.images)
    kernel = network.layers[-1].get_weights()[0]
    found = scale_temperature(network, split)
    after = probabilities(network, split.images)
    assert found.temperature == pytest.approx(3, rel=0.1)
    assert found.unscaled_because is None
    np.testing.assert_allclose(network.layers[-1].get_weights()[0] * found.temperature, kernel, rtol=1e-6)
    np.testing.assert_allclose(after, rescaled(before, found.temperature), atol=1e-5)
    np.testing.assert_array_equal(after.argmax(axis=1), before.argmax(axis=1))
    assert found.ece_before == calibration_error(before, split.labels)
    assert found.ece_after == pytest.approx(calibration_error(after, split.labels), abs=1e-3)
    assert found.ece_after < 0.03 < found.ece_before
    assert str(found) == (
        f"temperature {found.temperature:.4g}: ECE {found.ece_before:.2%} on the validation split before,"
        f" {found.ece_after:.2%} after"
    )


def test_a_layer_without_a_bias():
    split, weights, _ = noisy()
    found = scale_temperature(dense(weights * 3), split)
    assert found.unscaled_because is None
    assert found.ece_after < found.ece_before


def test_a_temperature_that_does_not_lower_the_error_is_not_used():
    """The best class is correct for six images in ten, as predicted: only the others need a temperature."""
    rest = np.array([0.6, 0.35, 0.01, 0.01, 0.01, 0.01, 0.01], np.float32)
    network = dense(np.zeros((1, 7)), np.log(rest))
    labels = np.repeat(np.array([0, 6], np.uint8), [60, 40])
    split = Split(np.zeros((100, 48, 48), np.uint8), labels)
    weights = [array.copy() for array in network.get_weights()]
    found = scale_temperature(network, split)
    assert fit_temperature(probabilities(network, split.images), labels) > 1.5
    assert (found.temperature, found.ece_after) == (1.0, found.ece_before)
    assert found.ece_before < 1e-6
    assert "does not lower the error" in found.unscaled_because
    for old, new in zip(weights, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_last_layer_is_left_alone():
    split, weights, bias = noisy(200)
    network = dense(weights * 3, bias * 3, last=None)
    network.add(layers.Activation("softmax", name="probabilities"))
    before = probabilities(network, split.images)
    found = scale_temperature(network, split)
    assert found == TemperatureScaling(
        1.0,
        calibration_error(before, split.labels),
        calibration_error(before, split.labels),
        "the last layer is not a Dense one with softmax",
    )
    np.testing.assert_array_equal(probabilities(network, split.images), before)
    assert str(found).startswith(
        "no temperature scaling (the last layer is not a Dense one with softmax): ECE"
    )


@pytest.mark.parametrize("name", ["sequential", "compact", "shallow", "resnet18"])
def test_networks_of_ours_can_be_scaled(name):
    """With and without a bias in the last layer; tests/test_models.py checks that all end alike."""
    network = build(name)
    last = network.layers[-1]
    weights = [100 * array for array in last.get_weights()]  # far too confident
    last.set_weights(weights)
    split = Split(
        np.random.default_rng(0).integers(0, 256, (14, 48, 48), dtype=np.uint8),
        np.arange(14, dtype=np.uint8) % 7,
    )
    found = scale_temperature(network, split)
    assert found.temperature > 2
    for array, before in zip(last.get_weights(), weights, strict=True):
        np.testing.assert_allclose(array * found.temperature, before, rtol=1e-6)


def test_json():
    document = TemperatureScaling(1.5, 0.1, 0.02).to_dict()
    assert json.loads(json.dumps(document)) == {
        "temperature": 1.5, "ece_before": 0.1, "ece_after": 0.02, "unscaled_because": None
    }  # fmt: skip
