import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics
from tiny_model import tiny_export

from fertools.contract import LABELS, ONNX_FILE
from fertools.data import Dataset, synthetic
from fertools.errors import ConfigError, DataError, MissingExtraError, ModelError, RunError
from fertools.evaluation import confusion_figure, evaluate, is_run, measure, open_network
from fertools.evaluation.metrics import calibration_error
from fertools.runtime import Predictor


def sure(predicted, confidence=0.9):
    """Probabilities that put ``confidence`` on the predicted class."""
    rows = np.full((len(predicted), 7), (1 - confidence) / 6, np.float32)
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows


def test_a_device_has_no_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"^scikit-learn is not installed.*fertools\[train\]"):
        evaluate(sure([0]), np.zeros(1, np.uint8))


def test_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 6], np.uint8)
    found = evaluate(sure([0, 0, 1, 1, 3, 6]), labels)
    assert found.images == 6
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.macro_f1 == pytest.approx((0.8 + 0.5 + 1) / 3)
    assert found.log_loss == pytest.approx(-(4 * math.log(0.9) + 2 * math.log(0.1 / 6)) / 6, rel=1e-6)
    assert found.ece == pytest.approx(0.9 - 4 / 6)
    assert [c.label for c in found.classes] == list(LABELS)
    angry, disgust, happy = found.classes[0], found.classes[1], found.classes[3]
    assert (angry.precision, angry.recall, angry.support) == (1, pytest.approx(2 / 3), 3)
    assert (disgust.precision, disgust.recall, disgust.f1) == (0.5, 0.5, 0.5)
    assert (happy.precision, happy.recall, happy.f1, happy.support) == (0, 0, 0, 0)
    assert found.confusion[0] == (2, 1, 0, 0, 0, 0, 0)
    assert found.confusion[1] == (0, 1, 0, 1, 0, 0, 0)
    assert sum(map(sum, found.confusion)) == 6


def test_a_class_that_is_sure_and_wrong_costs_a_finite_loss():
    rows = np.zeros((1, 7), np.float32)
    rows[0, 3] = 1
    assert evaluate(rows, np.array([0], np.uint8)).log_loss == pytest.approx(-math.log(1e-12))


@pytest.mark.parametrize(
    ("confidences", "right", "expected"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 0),
        ([1, 1, 1, 1], [1, 1, 1, 0], 1 / 4),
        ([0.8, 0.8, 0.8, 0.8, 0.8], [1, 1, 1, 1, 0], 0),  # right as often as it says
        ([0.61, 0.65], [0, 1], abs(0.5 - 0.63)),  # one bin, 9/15 to 10/15: the mean of each counts
        ([0.65, 0.68], [0, 1], (0.65 + 0.32) / 2),  # two bins: errors do not cancel
        ([0.95, 0.95, 0.35], [1, 0, 1], (2 * 0.45 + 0.65) / 3),  # bins weigh by their images
    ],
)
def test_calibration_error_by_hand(confidences, right, expected):
    rows = np.concatenate([sure([3], confidence) for confidence in confidences])
    labels = np.where(right, 3, 0).astype(np.uint8)
    assert calibration_error(rows, labels) == pytest.approx(expected, abs=1e-6)


def test_a_bin_holds_its_upper_edge_and_not_its_lower():
    rows = np.zeros((2, 7), np.float32)
    rows[:, 3], rows[:, 2] = (0.6, 0.59), (0.4, 0.41)
    rows[0, 3] = np.nextafter(np.float32(0.6), np.float32(0))  # 9/15 itself is no float32: just below
    labels = np.array([0, 3], np.uint8)
    assert calibration_error(rows, labels) == pytest.approx(abs(0.5 - 0.595), abs=1e-6)
    rows[0, 3] = np.nextafter(np.float32(0.6), np.float32(1))
    assert calibration_error(rows, labels) == pytest.approx((0.6 + 0.41) / 2, abs=1e-6)


def test_calibration_error_of_what_is_no_number():
    rows = sure([0, 1])
    rows[0] = np.nan
    assert math.isnan(calibration_error(rows, np.array([0, 1], np.uint8)))


ROWS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float32, (n, 7), elements=st.floats(0.015625, 1, width=32)),
        arrays(np.uint8, n, elements=st.integers(0, 6)),
    )
)


@settings(deadline=None, max_examples=40)
@given(ROWS)
def test_agrees_with_sklearn(case):
    rows, labels = case
    rows = rows / rows.sum(axis=1, keepdims=True)
    found, predicted = evaluate(rows, labels), rows.argmax(axis=1)
    present = np.unique(labels)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, predicted))
    recall = metrics.recall_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert found.balanced_accuracy == pytest.approx(recall)
    f1 = metrics.f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(f1)
    exact = rows.astype(np.float64) / rows.astype(np.float64).sum(axis=1, keepdims=True)
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, exact, labels=range(7)), rel=1e-5)
    matrix = metrics.confusion_matrix(labels, predicted, labels=range(7))
    np.testing.assert_array_equal(found.confusion, matrix)


def test_text_and_json():
    found = evaluate(sure([0, 1, 2, 3, 4, 5, 5]), np.arange(7, dtype=np.uint8))
    lines = found.to_text().splitlines()
    assert lines[0] == "accuracy            85.71%   (7 images)"
    assert lines[4] == "ECE, 15 bins         4.29%"
    assert found.headline() == "\n".join(lines[:5])
    assert lines[7].split() == ["Angry", "100.00%", "100.00%", "100.00%", "1"]
    assert lines[-1].split() == ["Neutral", "0", "0", "0", "0", "0", "1", "0"]
    assert json.loads(json.dumps(found.to_dict()))["classes"][6]["label"] == "Neutral"


def test_figure(tmp_path):
    found = evaluate(sure([0, 1, 2]), np.array([0, 1, 1], np.uint8))
    confusion_figure(found, tmp_path / "new" / "confusion.png", "tiny")
    assert (tmp_path / "new" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert len([*(tmp_path / "new").iterdir()]) == 1


@pytest.fixture(scope="module")
def dataset():
    """70 train and 30 test images; 10 of the test images also stand in train, two of them twice in test."""
    drawn = synthetic.generate(70, 0, 30)
    images = drawn.images.copy()
    images[70:80] = images[:10]
    images[80:82] = images[90:92]
    return Dataset("some", images, drawn.labels, drawn.usage)


def perfect(dataset):
    """A network that knows the labels of the test images, and is wrong about those it does not know."""
    known = {
        image.tobytes(): label for image, label in zip(dataset.images[:80], dataset.labels, strict=False)
    }
    return lambda images: sure([known.get(image.tobytes(), 6) for image in images])


def test_measured_twice(dataset):
    found = measure(perfect(dataset), dataset, "test")
    assert (found.data, found.fingerprint, found.split) == ("some", dataset.fingerprint, "test")
    assert found.views == found.to_dict()["views"] == "single"
    assert found.to_text().startswith("some, test split, views: single\n")
    assert found.official.images == 30
    assert found.deduplicated.images == 20
    split, deduplicated = dataset.split("test"), dataset.deduplicated("test")
    assert found.official == evaluate(perfect(dataset)(split.images), split.labels)
    assert found.deduplicated == evaluate(perfect(dataset)(deduplicated.images), deduplicated.labels)
    assert found.deduplicated.headline() in found.to_text()
    document = json.loads(json.dumps(found.to_dict()))
    assert document["official"]["images"] == 30
    assert document["deduplicated"]["images"] == 20


def test_flip_views_are_the_mean_over_the_image_and_its_mirror(dataset):
    def bright_left(images):
        return sure(np.where(images[:, :, :24].mean(axis=(1, 2)) > images[:, :, 24:].mean(axis=(1, 2)), 0, 1))

    split = dataset.split("test")
    found = measure(bright_left, dataset, "test", "flip")
    both = (bright_left(split.images) + bright_left(split.images[:, :, ::-1])) / 2
    assert found.official == evaluate(both, split.labels)
    assert found.official != measure(bright_left, dataset, "test").official
    assert found.deduplicated.images == 20
    assert found.views == found.to_dict()["views"] == "flip"
    assert found.to_text().startswith("some, test split, views: flip\n")


def test_unknown_views(dataset):
    with pytest.raises(ConfigError, match="views must be single or flip, not 'ten'"):
        measure(perfect(dataset), dataset, "test", "ten")


def test_nothing_is_left_without_duplicates(dataset):
    images = np.concatenate([dataset.images[:10]] * 2)
    usage = np.repeat(np.array([0, 2], np.uint8), 10)
    copied = Dataset("copied", images, np.tile(dataset.labels[:10], 2), usage)
    found = measure(perfect(dataset), copied, "test")
    assert found.deduplicated is None
    assert found.to_dict()["deduplicated"] is None
    assert found.to_text().endswith("Every image is also in another split.")


def test_an_empty_split(dataset):
    with pytest.raises(DataError, match="some: no validation images"):
        measure(perfect(dataset), dataset, "validation")


def test_exported_network_in_chunks(tmp_path, dataset):
    folder = tiny_export(tmp_path / "export")
    expected = Predictor(folder).probabilities(dataset.images)
    for path in (folder, folder / ONNX_FILE):
        np.testing.assert_allclose(
            open_network(path, "float32")(dataset.images),
            Predictor(folder, precision="float32").probabilities(dataset.images),
            atol=1e-6,
        )
    np.testing.assert_allclose(open_network(folder)(dataset.images), expected, atol=1e-6)
    assert not is_run(folder)


def test_nothing_there(tmp_path):
    with pytest.raises(ModelError):
        open_network(tmp_path / "nothing")


def test_runs_without_a_readable_network(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert is_run(tmp_path)
    with pytest.raises(ConfigError, match="a run has no int8 network"):
        open_network(tmp_path, "int8")
    with pytest.raises(RunError, match=r"best\.keras: missing; the run has no finished epoch yet"):
        open_network(tmp_path)
    (tmp_path / "best.keras").write_bytes(b"PK broken")
    with pytest.raises(ModelError, match=r"best\.keras: not a Keras model that can be loaded"):
        open_network(tmp_path)


def test_frozen():
    found = evaluate(sure([0]), np.array([0], np.uint8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.accuracy = 1.0
