import dataclasses
import hashlib
import io
import json
import sys

import numpy as np
import pytest
import tiny_training
from click.testing import CliRunner
from PIL import Image
from tiny_model import tiny_export

from fertools.cli import main
from fertools.contract import ONNX_FILE
from fertools.data import synthetic, write
from fertools.evaluation.figures import stress_figure
from fertools.evaluation.stress import CHANGES, VERSION, stress

#: A network that guesses is right with probability 1/7.
CLASSES = 7


@pytest.fixture(scope="module")
def faces():
    return synthetic.generate(60, 7, 7).split("train").images


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_changes_are_the_same_each_time_and_grow(change, faces):
    far = []
    for severity in change.severities:
        changed = change.apply(faces, severity)
        assert changed.shape == faces.shape
        assert changed.dtype == np.uint8
        np.testing.assert_array_equal(changed, change.apply(faces, severity))
        # The change of a face does not depend on how many follow.
        if change.name != "sensor noise":
            np.testing.assert_array_equal(change.apply(faces[:9], severity), changed[:9])
        far.append(np.abs(changed.astype(float) - faces).mean())
    assert far == sorted(far)
    assert far[0] > 0.3


def test_every_face_is_changed_its_own_way(faces):
    same = np.repeat(faces[:1], 30, axis=0)
    for change in CHANGES:
        if change.name not in ("small face", "large box", "tight box", "defocus", "JPEG", "contrast"):
            different = {face.tobytes() for face in change.apply(same, change.severities[-1])}
            assert len(different) > 1, change.name


#: Of each column the pixels right of the centre, of each row those below it.
ACROSS = np.arange(48) - 23.5
GREY = np.full((48, 48), 128, np.uint8)
RAMP = np.tile(np.arange(48, dtype=np.uint8) * 5, (48, 1))
#: Black but for a dot 12 pixels right of the centre.
DOT = np.zeros((48, 48), np.uint8)
DOT[23:25, 35:37] = 255


def changed(name, face):
    """Each severity of a change, with 200 copies of a face after it, float64 (200, 48, 48)."""
    change = next(change for change in CHANGES if change.name == name)
    for severity in change.severities:
        yield severity, change.apply(np.repeat(face[None], 200, axis=0), severity).astype(float)


def spot(images):
    """Where the light is, in pixels right of the centre and below it, and its covariance there."""
    x, y = np.broadcast_arrays(ACROSS, ACROSS[:, None])

    def mean(values):
        return (images * values).sum(axis=(1, 2)) / images.sum(axis=(1, 2))

    right, below = mean(x), mean(y)
    return right, below, (mean(x * x) - right**2, mean(y * y) - below**2, mean(x * y) - right * below)


def both_signs(values):
    return values.min() < 0 < values.max()


def test_small_face(faces):
    for size, images in changed("small face", faces[0]):
        small = Image.fromarray(faces[0]).resize((size, size), Image.Resampling.BILINEAR)
        expected = np.asarray(small.resize((48, 48), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(images[0], expected, atol=1)  # to_face rounds otherwise


@pytest.mark.parametrize("name", ["large box", "tight box"])
def test_box(name):
    """In a larger box everything is nearer to its centre."""
    for scale, images in changed(name, DOT):
        right, below, _ = spot(images)
        np.testing.assert_allclose(right, 12 / scale, atol=0.1)
        np.testing.assert_allclose(below, 0, atol=0.1)


def test_shifted_box():
    for percent, images in changed("shifted box", DOT):
        right, below, _ = spot(images)
        np.testing.assert_allclose(np.hypot(right - 12, below), percent / 100 * 48, atol=0.1)
        assert both_signs(right - 12)
        assert both_signs(below)


def test_turned_box():
    for degrees, images in changed("turned box", DOT):
        right, below, _ = spot(images)
        np.testing.assert_allclose(np.hypot(right, below), 12, atol=0.1)
        np.testing.assert_allclose(np.degrees(np.abs(np.arctan2(below, right))), degrees, atol=0.5)
        assert both_signs(below)


def test_defocus():
    """The variance of the blur is added to that of the dot."""
    for sigma, images in changed("defocus", DOT):
        _, _, (across, down, _) = spot(images)
        np.testing.assert_allclose(np.sqrt(across - 0.25), sigma, rtol=0.1)
        np.testing.assert_allclose(across, down, rtol=0.01)


def test_motion_blur():
    """The variance along a line is a twelfth of the square of its length."""
    dot = np.zeros((48, 48), np.uint8)
    dot[24, 24] = 255
    for length, images in changed("motion blur", dot):
        np.testing.assert_allclose(images.sum(axis=(1, 2)), 255, atol=5)
        _, _, (across, down, slant) = spot(images)
        assert np.sqrt(12 * (across + down)).mean() == pytest.approx(length, rel=0.15)
        assert both_signs(across - down)
        assert both_signs(slant)


def test_sensor_noise():
    for sigma, images in changed("sensor noise", GREY):
        assert (images - 128).std() == pytest.approx(sigma, rel=0.02)
        assert (images - 128).mean() == pytest.approx(0, abs=0.2)


def test_jpeg(faces):
    for quality, images in changed("JPEG", faces[0]):
        file = io.BytesIO()
        Image.fromarray(faces[0]).save(file, "JPEG", quality=quality)
        np.testing.assert_array_equal(images[0], np.asarray(Image.open(file)))


def test_contrast():
    for factor, images in changed("contrast", RAMP):
        np.testing.assert_allclose(images[0] - RAMP.mean(), factor * (RAMP - RAMP.mean()), atol=0.51)


def test_brightness():
    for levels, images in changed("brightness", GREY):
        assert {*np.unique(images)} == {128 - levels, 128 + levels}
        assert (np.ptp(images, axis=(1, 2)) == 0).all()


def test_gamma():
    for gamma, images in changed("gamma", GREY):
        dark, light = (round(255 * (128 / 255) ** power) for power in (gamma, 1 / gamma))
        assert {*np.unique(images)} == {dark, light}
        assert (np.ptp(images, axis=(1, 2)) == 0).all()


def test_side_light():
    """From edge to edge through the centre, which stays as it was."""
    for percent, images in changed("side light", GREY // 2):
        rows, columns = images[:, 23:25].mean(axis=1), images[:, :, 23:25].mean(axis=2)
        right, below = rows[:, 47] - rows[:, 0], columns[:, 47] - columns[:, 0]
        np.testing.assert_allclose(np.hypot(right, below) / 2, percent / 100 * 64, atol=1)
        np.testing.assert_allclose(rows[:, 23:25].mean(axis=1), 64, atol=1)
        assert both_signs(right)
        assert both_signs(below)


def test_occlusion():
    for percent, images in changed("occlusion", RAMP):
        hidden = images != RAMP
        tall, wide = hidden.any(axis=2).sum(axis=1), hidden.any(axis=1).sum(axis=1)
        np.testing.assert_allclose(tall * wide / 48**2, percent / 100, atol=0.02)
        for image, where in zip(images, hidden, strict=True):
            assert len(np.unique(image[where])) == 1
        assert hidden.any(axis=(0, 1)).all()
        assert hidden.any(axis=(0, 2)).all()


def test_the_version_counts_the_changes_and_what_they_draw():
    """Figures of other changes, other severities or other random numbers cannot be compared."""
    digest = hashlib.sha256()

    def note(faces, severity, drawn, generator):
        digest.update(f"{severity:g}".encode() + drawn.astype("<f8").tobytes())
        return faces

    for change in CHANGES:
        digest.update(change.name.encode())
        for severity in change.severities:
            dataclasses.replace(change, make=note).apply(np.zeros((3, 48, 48), np.uint8), severity)
    assert (VERSION, digest.hexdigest()[:16]) == (1, "ab1294cd6c6fd058"), "raise VERSION when this changes"


def test_stress_means_and_pairs(faces):
    """A network that answers by brightness, and one that is always right about clean images."""
    dataset = tiny_training.dataset()
    split = dataset.split("validation")
    answers = {face.tobytes(): label for face, label in zip(split.images, split.labels, strict=True)}

    def remembers(images):
        return np.eye(CLASSES, dtype=np.float32)[[answers.get(image.tobytes(), 0) for image in images]]

    def guesses(images):
        return np.eye(CLASSES, dtype=np.float32)[images.mean(axis=(1, 2)).astype(int) % CLASSES]

    found = stress({"one": remembers, "other": guesses}, dataset)
    one = found["one"]
    assert dataclasses.replace(one, changes=()).by_face_pixels == {}
    assert one.clean == 1
    assert one.mean < 0.5
    assert one.points_lost == pytest.approx(100 * (1 - one.mean))
    assert [each.name for each in one.changes] == [change.name for change in CHANGES]
    assert one.mean == pytest.approx(np.mean([np.mean(each.accuracies) for each in one.changes]))
    for each in found.values():
        assert each.hits.shape == (35,)
        assert each.hits.mean() == pytest.approx(each.mean)
    assert [*one.by_face_pixels] == ["48", "36", "24", "16"]
    assert one.by_face_pixels["24"] == one.of("small face").accuracies[1]
    few = stress({"one": remembers}, dataset, images=10)["one"]
    assert few.images == 10
    assert json.loads(json.dumps(few.to_dict()))["mean"] == few.mean


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    dataset = tiny_training.dataset()
    write(dataset, tmp_path / "tiny.npz")
    tiny_export(tmp_path / "export", data={"name": "tiny.npz", "fingerprint": dataset.fingerprint})
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, ["stress", *map(str, arguments)])


def test_a_device_has_no_scipy(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    result = run("export", "--data", "tiny.npz")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: scipy is not installed: pip install 'fertools[train]'"


def test_table(folder):
    result = run("export", "--data", "tiny.npz")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny.npz, validation split, 35 images"
    for change in CHANGES:
        assert sum(line.startswith(change.name) for line in lines) == 1
    assert lines[-2].startswith("clean ")
    assert lines[-1].startswith("stressed ")


def test_json_and_picture(folder):
    result = run(f"export/{ONNX_FILE}", "--data", "tiny.npz", "--split", "test", "--json", "--plot", "s.png")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "Wrote s.png.\n"
    document = json.loads(result.stdout)
    assert (document["split"], document["images"], document["version"]) == ("test", 14, 1)
    means = [np.mean(each["accuracies"]) for each in document["changes"]]
    assert document["mean"] == pytest.approx(np.mean(means))
    with Image.open("s.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize("wrong", [["nowhere"], ["export", "--split", "other"], ["export", "--images", "0"]])
def test_wrong_use(folder, wrong):
    result = run(*wrong, "--data", "tiny.npz")
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output


def test_picture_that_cannot_be_written(folder):
    result = run("export", "--data", "tiny.npz", "--plot", "tiny.npz/s.png")
    assert result.exit_code == 1
    assert "tiny.npz/s.png: cannot be written" in result.stderr


def test_figure_of_few_changes(tmp_path):
    network = lambda images: np.eye(CLASSES, dtype=np.float32)[images[:, 0, 0] % CLASSES]  # noqa: E731
    found = stress({"x": network}, tiny_training.dataset(), changes=CHANGES[:2])["x"]
    stress_figure(found, tmp_path / "few.png", "x")
    assert (tmp_path / "few.png").is_file()
