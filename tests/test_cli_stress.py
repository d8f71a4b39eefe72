import dataclasses
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
from fertools.evaluation.stress import CHANGES, stress

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


def of(name):
    return next(change for change in CHANGES if change.name == name)


def test_some_of_them_are_what_they_say():
    ramp = np.tile(np.arange(48, dtype=np.uint8) * 5, (40, 48, 1))
    np.testing.assert_allclose(of("contrast").apply(ramp, 0.4).std(), 0.4 * ramp.std(), rtol=0.02)
    noise = of("sensor noise").apply(np.full((40, 48, 48), 128, np.uint8), 16).astype(float)
    assert noise.std() == pytest.approx(16, rel=0.02)
    hidden = of("occlusion").apply(np.zeros((40, 48, 48), np.uint8), 20)
    assert (hidden > 0).mean(axis=(1, 2)).max() == pytest.approx(0.2, abs=0.02)
    shifted = of("shifted box").apply(ramp, 10).astype(float)
    assert np.abs(shifted[:, :, 10:38] - ramp[:, :, 10:38]).max() == pytest.approx(0.1 * 48 * 5, abs=1)


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
    write(tiny_training.dataset(), tmp_path / "tiny.npz")
    tiny_export(tmp_path / "export")
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
