import numpy as np
import pytest

from fertools.backend import import_keras
from fertools.data import synthetic

keras = import_keras()

from keras import ops  # noqa: E402

from fertools.models import build  # noqa: E402
from fertools.models.inference import probabilities  # noqa: E402
from fertools.training.augmentation import AT_ONCE, augmented  # noqa: E402
from fertools.training.config import AUGMENTATIONS  # noqa: E402
from fertools.training.network import (  # noqa: E402
    Mixup,
    SoftTargetLoss,
    Store,
    estimate_statistics,
)


def test_rows_come_from_the_store():
    images = np.random.default_rng(0).integers(0, 256, (9, 48, 48, 1), dtype=np.uint8)
    store = Store(images, "images")
    for rows in (images, images[::-1]):
        store.hold(rows)
        found = ops.convert_to_numpy(store(np.array([7, 0, 7], np.int32)))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, rows[[7, 0, 7]])


def test_augmented_images_depend_on_the_seed_alone():
    images = synthetic.generate(AT_ONCE + 3, 7, 7).split("train").images
    one, again, other = (augmented(images, AUGMENTATIONS["strong"], seed) for seed in (1, 1, 2))
    assert (one.dtype, one.shape) == (np.uint8, images.shape)
    np.testing.assert_array_equal(one, again)
    changed = (one != other).any(axis=(1, 2))
    assert changed.mean() > 0.99
    assert changed[AT_ONCE:].all()
    np.testing.assert_array_equal(augmented(images, AUGMENTATIONS["none"], 1), images)


def test_mixup_blends_each_image_with_the_one_before():
    images = np.random.default_rng(0).random((3, 48, 48, 1), np.float32)
    shares = np.array([1.0, 0.25, 0.0], np.float32)
    found = ops.convert_to_numpy(Mixup()((images, shares)))
    np.testing.assert_allclose(found[0], images[0])
    np.testing.assert_allclose(found[1], 0.25 * images[1] + 0.75 * images[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], images[1])


def soft_target_loss(student, teacher, temperature=1.0, share=1.0):
    layer = SoftTargetLoss(temperature, share)
    answer = layer((ops.convert_to_tensor(student), ops.convert_to_tensor(teacher)), training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(answer), student)
    return float(layer.losses[0])


def test_soft_target_loss():
    student = np.array([[0.2, 0.8], [0.5, 0.5]], np.float32)
    teacher = np.array([[0.6, 0.4], [0.5, 0.5]], np.float32)
    expected = (0.6 * np.log(3) + 0.4 * np.log(0.5)) / 2
    assert soft_target_loss(student, teacher) == pytest.approx(expected, rel=1e-5)
    assert soft_target_loss(student, teacher, share=0.25) == pytest.approx(expected / 4, rel=1e-5)
    assert soft_target_loss(teacher, teacher) == pytest.approx(0, abs=1e-7)
    softened = [np.sqrt(rows) / np.sqrt(rows).sum(axis=1, keepdims=True) for rows in (student, teacher)]
    divergence = (softened[1] * np.log(softened[1] / softened[0])).sum(axis=1).mean()
    assert soft_target_loss(student, teacher, temperature=2.0) == pytest.approx(4 * divergence, rel=1e-5)


def test_the_teachers_share_of_the_loss_is_weighted_as_the_labels_is():
    student = np.array([[0.2, 0.8], [0.4, 0.6]], np.float32)
    teacher = np.array([[0.6, 0.4], [0.5, 0.5]], np.float32)
    weights = np.array([3.0, 0.5], np.float32)
    layer = SoftTargetLoss(1.0, 1.0)
    layer([ops.convert_to_tensor(array) for array in (student, teacher, weights)], training=True)
    each = (teacher * np.log(teacher / student)).sum(axis=1)
    assert float(layer.losses[0]) == pytest.approx((3 * each[0] + 0.5 * each[1]) / 2, rel=1e-5)


def test_soft_targets_of_certain_networks_stay_finite():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    assert 0 < soft_target_loss(certain, certain[::-1].copy()) < 20


def test_soft_target_loss_is_a_training_loss_alone():
    layer = SoftTargetLoss(1.0, 1.0)
    layer((ops.ones((2, 7)) / 7, ops.ones((2, 7)) / 7), training=False)
    assert layer.losses == []


def test_statistics_are_those_of_the_images():
    network = build("compact")
    images = synthetic.generate(70, 7, 7, seed=0).split("train").images
    estimate_statistics(network, images)
    first = network.get_layer("stem")(images[..., None].astype(np.float32) / 255)
    norm = network.get_layer("stem_norm")
    np.testing.assert_allclose(norm.moving_mean, ops.mean(first, axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, ops.var(first, axis=(0, 1, 2)), rtol=1e-3)
    assert norm.momentum == 0.99
    # What it computes with them is what training would have computed without dropout.
    direct = ops.convert_to_numpy(network(images[..., None].astype(np.float32) / 255, training=True))
    np.testing.assert_allclose(probabilities(network, images), direct, atol=1e-4)


def test_statistics_of_several_batches_are_their_mean(monkeypatch):
    images = synthetic.generate(72, 7, 7, seed=0).split("train").images
    found = []
    for at_once in (len(images), len(images) // 3):
        network = build("compact")
        network.set_weights([np.full_like(array, 0.01) for array in network.get_weights()])
        monkeypatch.setattr("fertools.training.network.images_at_once", lambda *_, kept, n=at_once: n)
        estimate_statistics(network, images)
        norm = network.get_layer("stem_norm")
        found.append((np.array(norm.moving_mean), np.array(norm.moving_variance)))
    (mean, variance), (mean_of_means, mean_of_variances) = found
    np.testing.assert_allclose(mean_of_means, mean, rtol=1e-4)
    assert (mean_of_variances <= variance * 1.0001).all()  # without the variance between the batches
    np.testing.assert_allclose(mean_of_variances, variance, rtol=0.2)


def test_dropout_does_not_spread_the_statistics():
    network = build("sequential")
    images = synthetic.generate(14, 7, 7, seed=0).split("train").images
    estimate_statistics(network, images)
    before = [np.array(array) for array in network.get_weights()]
    estimate_statistics(network, images)  # dropout would draw anew
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert {layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)} == {0.25}
