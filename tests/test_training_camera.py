import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fertools.backend import import_keras
from fertools.data import synthetic
from fertools.training.config import CAMERA_KINDS

keras = import_keras()

from fertools.training import camera  # noqa: E402


@pytest.fixture(scope="module")
def faces():
    images = synthetic.generate(200, 7, 7).split("train").images
    return images[..., None].astype(np.float32) / 255


def through(images, *kinds, share=1.0, strength=1.0, seed=1):
    layer = camera.Camera(share, strength, kinds or CAMERA_KINDS, seed)
    return keras.ops.convert_to_numpy(layer(images, training=True))


@pytest.fixture
def always(monkeypatch):
    """Every change is drawn for every image."""
    monkeypatch.setattr(camera, "EACH", 1.0)


def test_outside_of_training_nothing_happens(faces):
    layer = camera.Camera(1.0, 1.0, CAMERA_KINDS, 0)
    np.testing.assert_array_equal(layer(faces, training=False), faces)


@pytest.mark.parametrize("kind", CAMERA_KINDS)
def test_strength_zero_changes_nothing(faces, kind, always, monkeypatch):
    result = through(faces, kind, strength=0.0)
    np.testing.assert_allclose(result, faces, atol=2e-6)


@pytest.mark.parametrize("kind", CAMERA_KINDS)
def test_each_kind_changes_images(faces, kind, always):
    result = through(faces, kind)
    assert (np.abs(result - faces).max(axis=(1, 2, 3)) > 1 / 255).mean() > 0.7
    assert result.dtype == np.float32
    assert result.min() >= 0
    assert result.max() <= 1
    assert not np.isnan(result).any()


def test_the_others_stay_as_they_are(faces):
    same = (through(faces, share=0.4) == faces).all(axis=(1, 2, 3))
    assert 0.5 < same.mean() < 0.75


def test_seed_decides(faces):
    np.testing.assert_array_equal(through(faces), through(faces))
    assert (through(faces) != through(faces, seed=2)).any()


def test_light_keeps_the_order_of_greys_but_for_its_side(always, monkeypatch):
    monkeypatch.setattr(camera, "SIDE_LIGHT", 0.0)
    ramp = np.tile(np.linspace(0, 1, 48, dtype=np.float32), (300, 48, 1))[..., None]
    result = through(ramp, "light")[..., 0]
    assert (np.diff(result, axis=2) >= -1e-6).all()
    means = result.mean(axis=(1, 2))
    assert means.min() < 0.35
    assert means.max() > 0.65


def test_light_from_a_side(always, monkeypatch):
    monkeypatch.setattr(camera, "CONTRAST", 1.0)
    monkeypatch.setattr(camera, "BRIGHTNESS", 0.0)
    monkeypatch.setattr(camera, "GAMMA", 1.0)
    grey = np.full((300, 48, 48, 1), 0.4, np.float32)
    result = through(grey, "light")[..., 0] / 0.4
    assert result[:, 24, 24] == pytest.approx(1, abs=0.05)
    sides = result[:, 24, [0, 47]]
    assert sides.min() == pytest.approx(1 - camera.SIDE_LIGHT, abs=0.1)
    assert sides.max() == pytest.approx(1 + camera.SIDE_LIGHT, abs=0.1)


def spread(image):
    """Variances along the columns' and the rows' axis of what came of a point of light."""
    mass = image[..., 0].astype(np.float64) / image.sum(dtype=np.float64)
    places = np.arange(48)
    across, down = mass.sum(axis=0), mass.sum(axis=1)
    return [(weight * places**2).sum() - (weight * places).sum() ** 2 for weight in (across, down)]


def point(count=300):
    images = np.zeros((count, 48, 48, 1), np.float32)
    images[:, 24, 24] = 1
    return images


def test_defocus_spreads_a_point_evenly(always):
    variances = np.array([spread(image) for image in through(point(), "defocus")])
    np.testing.assert_allclose(variances[:, 0], variances[:, 1], atol=1e-3)
    assert np.sqrt(variances.max()) == pytest.approx(camera.DEFOCUS, abs=0.05)
    assert variances.min() < 0.1


def test_motion_spreads_a_point_along_a_line(always):
    results = through(point(), "motion")
    np.testing.assert_allclose(results.sum(axis=(1, 2, 3)), 1, atol=1e-4)
    variances = np.array([spread(image) for image in results])
    of_a_line = camera.MOTION**2 * (1 - 1 / 64) / 12
    # Sampling between the pixels spreads a little by itself.
    assert of_a_line * 0.9 < variances.sum(axis=1).max() < of_a_line + 1
    assert (variances[:, 0] > 3 * variances[:, 1]).any()
    assert (variances[:, 1] > 3 * variances[:, 0]).any()


def test_motion_moves_a_face_nowhere(always):
    places = np.arange(48)
    for image in through(point(50), "motion"):
        mass = image[..., 0] / image.sum()
        assert (mass.sum(axis=0) * places).sum() == pytest.approx(24, abs=0.15)
        assert (mass.sum(axis=1) * places).sum() == pytest.approx(24, abs=0.15)


def test_resolution_is_that_of_a_small_face(faces):
    # Pillow's antialiased triangle filter, down and up; it rounds to whole levels between.
    for size in (47, 30, 24, 14):
        matrix = camera._reductions()[48 - size]
        ours = matrix @ faces[0, ..., 0] @ matrix.T
        small = Image.fromarray((faces[0, ..., 0] * 255).astype(np.uint8)).resize((size, size), 2)
        pillow = np.asarray(small.resize((48, 48), 2))
        assert np.abs(ours * 255 - pillow).max() < 2


def test_noise_has_the_strength_that_was_drawn(always):
    grey = np.full((300, 48, 48, 1), 0.5, np.float32)
    deviations = through(grey, "noise").std(axis=(1, 2, 3))
    assert deviations.max() == pytest.approx(camera.NOISE, rel=0.05)
    assert deviations.mean() == pytest.approx(camera.NOISE / 2, rel=0.1)
    halves = np.tile(np.repeat([0.2, 0.6], 24).astype(np.float32), (300, 48, 1))[..., None]
    result = through(halves, "noise")
    ratios = (result[:, :, 24:].std(axis=(1, 2, 3)) / result[:, :, :24].std(axis=(1, 2, 3))) ** 2
    assert ratios.min() == pytest.approx(1, abs=0.15)
    assert 2 < ratios.max() < 3.5


@pytest.mark.parametrize("quality", [10, 30, 60])
def test_jpeg_is_close_to_pillows(faces, quality, always, monkeypatch):
    monkeypatch.setattr(camera, "QUALITY", (quality, quality))
    ours = through(faces, "jpeg")[..., 0] * 255
    whole = np.rint(faces[..., 0] * 255).astype(np.uint8)
    pillows = []
    for image in whole:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        pillows.append(np.asarray(Image.open(file)).astype(np.float32))
    # libjpeg computes in whole numbers: a coefficient at the edge of a step may be rounded otherwise.
    assert np.abs(ours - pillows).mean() < 0.3 * np.abs(whole - np.array(pillows)).mean()


CODE = """
import sys
from fertools.backend import import_keras
keras = import_keras()
import numpy as np
from fertools.training.camera import Camera
from fertools.training.config import CAMERA_KINDS
class Always(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
    def call(self, images):
        return self.layer(images, training=True)
images = np.random.default_rng(0).random((64, 48, 48, 1)).astype(np.float32)
results = []
for kind in CAMERA_KINDS:
    layer = Camera(1.0, 1.0, (kind,), 1)
    eager = keras.ops.convert_to_numpy(layer(images, training=True))
    compiled = Always(Camera(1.0, 1.0, (kind,), 1)).predict(images, batch_size=64, verbose=0)
    np.testing.assert_allclose(eager, compiled, atol=0.02 if kind == "jpeg" else 1e-4)
    results.append(np.abs(eager - images).mean())
np.save(sys.argv[1], results)
"""


@pytest.mark.slow
def test_the_backends_agree_and_compile(tmp_path):
    """They draw other numbers, so it is the mean change of 64 images that is compared."""
    found = []
    for backend in ("tensorflow", "jax"):
        pytest.importorskip(backend)
        file = tmp_path / f"{backend}.npy"
        environment = os.environ | {"KERAS_BACKEND": backend}
        command = [sys.executable, "-c", CODE, file]
        result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)
        assert result.returncode == 0, result.stderr
        found.append(np.load(file))
    np.testing.assert_allclose(*found, rtol=0.6)
