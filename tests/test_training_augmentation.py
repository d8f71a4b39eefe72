import dataclasses

import numpy as np
import pytest

from fertools.backend import import_keras
from fertools.training import AUGMENTATIONS, Augmentation

keras = import_keras()

from fertools.training.augmentation import ERASED_AREA, AugmentedInput  # noqa: E402

FIELDS = {"flip": True, "rotation": 10, "shift": 4, "scale": 0.2, "brightness": 0.2, "contrast": 0.3}
FIELDS["erasing"] = 1


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (64, 48, 48, 1), dtype=np.uint8)


def augmented(images, seed=1, training=True, **fields):
    layer = AugmentedInput(Augmentation(**fields), seed)
    return keras.ops.convert_to_numpy(layer(images, training=training))


def dot(row, column, count=200):
    """Images that are black but for a soft dot."""
    y, x = np.mgrid[:48, :48]
    image = 255 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
    return np.repeat(image.astype(np.uint8)[None, ..., None], count, axis=0)


def centres(images):
    """Where the dots have gone: (n, 2) of row and column."""
    mass = images[..., 0] / images.sum(axis=(1, 2, 3))[:, None, None]
    y, x = np.mgrid[:48, :48]
    return np.stack([(mass * y).sum(axis=(1, 2)), (mass * x).sum(axis=(1, 2))], axis=1)


def test_outside_of_training_it_only_scales(images):
    result = augmented(images, training=False, **FIELDS)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, images.astype(np.float32) / np.float32(255))


def test_nothing_set_changes_nothing(images):
    np.testing.assert_array_equal(augmented(images), images.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_changes_images(images, field):
    result = augmented(images, **{field: FIELDS[field]})
    changed = (result != images.astype(np.float32) / np.float32(255)).any(axis=(1, 2, 3))
    assert changed.mean() > (0.2 if field == "flip" else 0.9)
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_values_stay_in_range(images, name):
    extremes = np.where(images > 127, 255, 0).astype(np.uint8)
    result = augmented(extremes, **dataclasses.asdict(AUGMENTATIONS[name]))
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1


def test_flip_mirrors_half_of_the_images(images):
    images = np.tile(images, (8, 1, 1, 1))
    result, scaled = augmented(images, flip=True), images.astype(np.float32) / np.float32(255)
    close = [np.abs(result - one).max(axis=(1, 2, 3)) < 1e-4 for one in (scaled, scaled[:, :, ::-1])]
    assert (close[0] ^ close[1]).all()
    assert 0.4 < close[1].mean() < 0.6


def test_seed_decides(images):
    fields = dataclasses.asdict(AUGMENTATIONS["strong"])
    np.testing.assert_array_equal(augmented(images, **fields), augmented(images, **fields))
    assert (augmented(images, **fields) != augmented(images, seed=2, **fields)).any()


def test_images_and_calls_draw_their_own_values():
    layer = AugmentedInput(Augmentation(rotation=10, shift=3), 0)
    same = dot(30, 30, count=8)
    one, other = (keras.ops.convert_to_numpy(layer(same, training=True)) for _ in range(2))
    assert len({image.tobytes() for image in (*one, *other)}) == 16


def test_shift_is_bounded_and_used():
    moved = centres(augmented(dot(20, 26), shift=5)) - (20, 26)
    assert np.abs(moved).max() < 5.05
    assert (np.abs(moved).max(axis=0) > 4).all()
    assert (np.abs(moved.mean(axis=0)) < 1).all()


def test_rotation_is_bounded_about_the_centre():
    before = np.array([23.5, 38.5]) - 23.5
    after = centres(augmented(dot(23.5, 38.5), rotation=20)) - 23.5
    np.testing.assert_allclose(np.hypot(*after.T), np.hypot(*before), atol=0.2)
    angles = np.degrees(np.arctan2(after[:, 0], after[:, 1]))
    assert np.abs(angles).max() < 20.5
    assert angles.min() < -15
    assert angles.max() > 15


def test_scale_is_bounded_both_ways():
    factors = (centres(augmented(dot(23.5, 38.5), scale=0.25))[:, 1] - 23.5) / 15
    assert factors.min() > 1 / 1.25 - 0.02
    assert factors.max() < 1.25 + 0.02
    assert factors.min() < 0.85
    assert factors.max() > 1.18


def test_brightness_and_contrast_are_bounded():
    grey = np.full((200, 48, 48, 1), 128, np.uint8)
    offsets = augmented(grey, brightness=0.2).mean(axis=(1, 2, 3)) - 128 / 255
    assert 0.15 < np.abs(offsets).max() <= 0.2 + 1e-5
    striped = np.tile(np.array([112, 144], np.uint8), (200, 48, 24))[..., None]
    result = augmented(striped, contrast=0.3)
    gains = (result[:, 0, 1, 0] - result[:, 0, 0, 0]) / (32 / 255)
    assert 0.7 - 1e-3 <= gains.min() < 0.75
    assert 1.25 < gains.max() <= 1.3 + 1e-3
    np.testing.assert_allclose(result.mean(axis=(1, 2, 3)), 128 / 255, atol=1e-5)


def test_erasing_fills_one_rectangle_with_one_grey():
    images = np.random.default_rng(0).integers(0, 256, (400, 48, 48, 1), dtype=np.uint8)
    result = augmented(images, erasing=0.5)
    erased = (result != images.astype(np.float32) / np.float32(255))[..., 0]
    chosen = erased.any(axis=(1, 2))
    assert 0.4 < chosen.mean() < 0.6
    for image, mask in zip(result[chosen], erased[chosen], strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert len(np.unique(box)) == 1
        assert 0.5 * ERASED_AREA[0] < box.size / 48**2 < 1.2 * ERASED_AREA[1]


class Always(keras.Model):
    """Augments in predict too, which is compiled."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, images):
        return self.layer(images, training=True)


def test_compiled_and_eager_are_the_same(images):
    fields = dataclasses.asdict(AUGMENTATIONS["strong"])
    layer = AugmentedInput(Augmentation(**fields), 1)
    assert layer.supports_jit
    compiled = Always(layer).predict(images, batch_size=64, verbose=0)
    np.testing.assert_allclose(compiled, augmented(images, **fields), atol=1e-4)
