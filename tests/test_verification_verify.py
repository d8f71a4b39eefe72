import dataclasses
import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fertools.contract import INT8_FILE, KERAS_FILE, ONNX_FILE
from fertools.data import Dataset
from fertools.errors import DataError, GateError, ModelError
from fertools.evaluation.metrics import calibration_error
from fertools.export.exporter import stamp
from fertools.models.inference import load
from fertools.runtime import Predictor
from fertools.verification import State, verify
from fertools.verification.timing import can_pin


@pytest.fixture
def folder(small_export, tmp_path):
    """A copy of the export, to tamper with."""
    return shutil.copytree(small_export, tmp_path / "out")


def tamper(file, change):
    """Change the graph and update its checksum, which no accident would do."""
    model = onnx.load(file)
    change(model)
    file.write_bytes(stamp(model, Predictor(file, threads=1).info))


def change_last_bias(added):
    """A change that adds these numbers to the last layer's bias."""

    def change(model):
        tensor = next(
            tensor
            for tensor in model.graph.initializer
            if list(tensor.dims) == [7] and tensor.data_type == onnx.TensorProto.FLOAT
        )
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(added), tensor.name)
        )

    return change


def scale_output(factor):
    """A change that multiplies the probabilities."""

    def change(model):
        model.graph.node[-1].output[0] = "unscaled"
        model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
        model.graph.node.append(onnx.helper.make_node("Mul", ["unscaled", "factor"], ["probabilities"]))

    return change


def broken(report):
    return [gate.name for gate in report.broken]


def test_report_of_a_good_export(small_export, small_data):
    report = verify(small_export, small_data)
    assert report.passed
    report.check()
    assert (report.split, report.images, report.images_deduplicated) == ("test", 350, 343)
    assert report.data == {"name": "small.npz", "fingerprint": small_data.fingerprint}
    assert report.trained_on == report.data
    assert [row.model for row in report.rows] == ["keras", "onnx", "int8"]
    keras, onnx_, int8 = report.rows
    assert (keras.agreement, keras.difference) == (1, 0)
    assert onnx_.agreement == 1
    assert 0 < onnx_.difference < 1e-4
    assert 0.985 <= int8.agreement <= 1
    assert 1e-3 < int8.difference < 0.2
    test, deduplicated = small_data.split("test"), small_data.deduplicated("test")
    for row, file in zip(report.rows[1:], (ONNX_FILE, INT8_FILE), strict=True):
        predictor = Predictor(small_export / file, threads=1)
        found = predictor.probabilities(test.images).argmax(axis=1)
        assert row.evaluation.accuracy == pytest.approx(np.mean(found == test.labels))
        found = predictor.probabilities(deduplicated.images).argmax(axis=1)
        assert row.accuracy_deduplicated == pytest.approx(np.mean(found == deduplicated.labels))
        assert row.evaluation.ece == pytest.approx(calibration_error(row.probabilities, test.labels))
        np.testing.assert_allclose(row.probabilities, predictor.probabilities(test.images), atol=1e-6)
        flip = Predictor(small_export / file, threads=1, views="flip")
        found = flip.probabilities(test.images).argmax(axis=1)
        assert row.accuracy_flip == pytest.approx(np.mean(found == test.labels))
        found = flip.probabilities(deduplicated.images).argmax(axis=1)
        assert row.accuracy_flip_deduplicated == pytest.approx(np.mean(found == deduplicated.labels))
        assert row.bytes == (small_export / file).stat().st_size
        assert 0 < row.milliseconds < 1000
    assert keras.bytes == (small_export / KERAS_FILE).stat().st_size
    assert (keras.milliseconds is None) is not can_pin()


def test_document_and_text(small_export, small_data):
    report = verify(small_export, small_data)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["passed"] is True
    assert [gate["passed"] for gate in document["gates"]] == [True] * 5
    row = document["rows"][2]
    assert row["evaluation"]["macro_f1"] == report.row("int8").evaluation.macro_f1
    assert set(row) == {
        "model", "evaluation", "accuracy_deduplicated", "accuracy_flip", "accuracy_flip_deduplicated",
        "agreement", "difference", "bytes", "milliseconds",
    }  # fmt: skip
    assert row["evaluation"]["ece"] == report.row("int8").evaluation.ece
    lines = report.to_text().splitlines()
    assert lines[0] == "small.npz, test split, 350 images"
    headings = ["accuracy", "de-duplicated", "flip views", "macro F1", "ECE"]
    headings += ["agreement", "max diff", "MB", "ms/image"]
    assert lines[2].split("  ")[-1].strip() == headings[-1]
    assert all(heading in lines[2] for heading in headings)
    assert [line.split()[0] for line in lines[3:6]] == ["keras", "onnx", "int8"]
    for value in (row["evaluation"]["accuracy"], row["accuracy_flip"], row["evaluation"]["ece"]):
        assert f"{value:.2%}" in lines[5].split()
    assert len({len(line) for line in lines[2:6]}) == 1
    assert [line.split()[0] for line in lines[7:9]] == ["proved"] * 2
    assert all(line.startswith(("proved ", "not proved ")) for line in lines[7:])
    assert "350 images" in lines[9]


def test_changes_nothing_in_the_folder(small_export, small_data):
    def state():
        files = sorted(small_export.iterdir())
        return [(file.name, file.stat().st_mtime_ns, hashlib.sha256(file.read_bytes())) for file in files]

    before = [(*facts, digest.hexdigest()) for *facts, digest in state()]
    verify(small_export, small_data)
    assert [(*facts, digest.hexdigest()) for *facts, digest in state()] == before


def test_without_int8(folder, small_data):
    (folder / INT8_FILE).unlink()
    report = verify(folder, small_data)
    assert report.passed
    assert [row.model for row in report.rows] == ["keras", "onnx"]
    assert len(report.gates) == 2


def test_small_shift_of_onnx_breaks_the_difference_alone(folder, small_data):
    tamper(folder / ONNX_FILE, change_last_bias([1e-3, 0, 0, 0, 0, 0, 0]))
    report = verify(folder, small_data)
    assert broken(report) == ["onnx: largest probability difference"]
    assert report.broken[0].measured == pytest.approx(report.row("onnx").difference)
    assert 1e-4 < report.row("onnx").difference < 1e-3
    with pytest.raises(GateError, match=r"a gate is broken\n.*difference: 0\.000\d+ \(at most 0\.0001\)"):
        report.check()


def test_another_class_in_onnx(folder, small_data):
    tamper(folder / ONNX_FILE, change_last_bias([50, 0, 0, 0, 0, 0, 0]))
    report = verify(folder, small_data)
    assert broken(report) == ["onnx: largest probability difference", "onnx: images with another clear top-1"]
    assert report.broken[1].measured > 200


def test_not_a_number_in_onnx(folder, small_data):
    tamper(folder / ONNX_FILE, change_last_bias([np.nan, 0, 0, 0, 0, 0, 0]))
    report = verify(folder, small_data)
    assert "onnx: largest probability difference" in broken(report)
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["gates"][0]["measured"] is None
    assert document["gates"][0]["passed"] is False


def test_int8_that_loses_accuracy_and_agreement(folder, small_data):
    tamper(folder / INT8_FILE, change_last_bias([50, 0, 0, 0, 0, 0, 0]))
    report = verify(folder, small_data)
    assert broken(report) == ["int8: points of accuracy lost", "int8: top-1 agreement"]
    lost, agreement = report.broken
    rows = {row.model: row for row in report.rows}
    drop = rows["keras"].evaluation.accuracy - rows["int8"].evaluation.accuracy
    assert lost.measured == pytest.approx(100 * drop)
    assert agreement.measured == rows["int8"].agreement
    assert "validation figures" in lost.hint
    assert "--calibration-images" not in lost.hint  # nobody tries on the test split until it passes


def test_int8_whose_rows_do_not_sum_to_one(folder, small_data):
    tamper(folder / INT8_FILE, scale_output(1.002))
    report = verify(folder, small_data)
    assert broken(report) == ["int8: a row's sum is off by"]
    assert report.broken[0].measured == pytest.approx(0.002, rel=0.01)


def test_another_keras_network(folder, small_data):
    """Even if its answers stay within every limit."""
    network = load(folder / KERAS_FILE)
    weights = network.get_weights()
    weights[-1][0] += 1e-6
    network.set_weights(weights)
    network.save(folder / KERAS_FILE)
    with pytest.raises(
        ModelError, match=r"model\.keras: holds other weights .* than model\.onnx was made from"
    ):
        verify(folder, small_data)


def test_an_int8_file_of_another_export(folder, small_data):
    model, info = onnx.load(folder / INT8_FILE), Predictor(folder / INT8_FILE, threads=1).info
    (folder / INT8_FILE).write_bytes(stamp(model, dataclasses.replace(info, weights_sha256="ab" * 32)))
    with pytest.raises(ModelError, match=r"than model\.int8\.onnx was made from \(abababab"):
        verify(folder, small_data)


def test_other_data_is_an_error_unless_it_is_meant(small_export, small_data):
    other = dataclasses.replace(small_data, name="other.npz", labels=small_data.labels[::-1].copy())
    with pytest.raises(DataError, match=r"other\.npz: not the data .* trained on, small\.npz .*--other-data"):
        verify(small_export, other)
    report = verify(small_export, other, other_data=True)
    assert report.data["name"] == "other.npz"
    assert "(trained on other data: small.npz)" in report.to_text()


def test_a_small_split_proves_nothing_of_int8_and_breaks_nothing(small_export, small_data):
    kept = np.r_[np.flatnonzero(small_data.usage < 2), np.flatnonzero(small_data.usage == 2)[:20]]
    few = Dataset("few", small_data.images[kept], small_data.labels[kept], small_data.usage[kept])
    report = verify(small_export, few, other_data=True)
    report.check()
    assert [gate.name for gate in report.gates if gate.state is State.NOT_PROVED] == [
        "int8: points of accuracy lost",
        "int8: top-1 agreement",
    ]
    document = report.to_dict()
    assert [gate["state"] for gate in document["gates"]] == ["proved"] * 2 + ["not proved"] * 2 + ["proved"]
    assert document["passed"] is True
    assert "too few images to say; " in report.to_text()


@pytest.mark.parametrize(
    ("file", "said"), [(KERAS_FILE, KERAS_FILE), (ONNX_FILE, r"model\.onnx or model\.ort")]
)
def test_missing_file(folder, small_data, file, said):
    (folder / file).unlink()
    with pytest.raises(ModelError, match=f"not an export folder \\(no {said}\\)"):
        verify(folder, small_data)


@pytest.mark.parametrize("file", [KERAS_FILE, ONNX_FILE, INT8_FILE])
def test_damaged_file(folder, small_data, file):
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 3] ^= 0xFF
    (folder / file).write_bytes(content[: -len(content) // 4] if file == KERAS_FILE else content)
    with pytest.raises(ModelError, match=file):
        verify(folder, small_data)


def test_float32_file_in_the_place_of_the_int8_one(folder, small_data):
    shutil.copy(folder / ONNX_FILE, folder / INT8_FILE)
    with pytest.raises(ModelError, match="its precision is float32, not int8"):
        verify(folder, small_data)


def test_no_test_split(small_export, small_data):
    kept = small_data.usage < 2
    parts = (array[kept] for array in (small_data.images, small_data.labels, small_data.usage))
    with pytest.raises(DataError, match="no test images"):
        verify(small_export, Dataset("untested", *parts), other_data=True)


def test_every_image_seen_elsewhere(small_export, small_data):
    images = small_data.images.copy()
    images[small_data.usage == 2] = images[:350]
    seen = dataclasses.replace(small_data, name="seen", images=images)
    report = verify(small_export, seen, other_data=True)
    assert report.images_deduplicated == 0
    assert {row.accuracy_deduplicated for row in report.rows} == {None}
    assert {row.accuracy_flip_deduplicated for row in report.rows} == {None}
    assert "seen, test split, 350 images (trained on other data: small.npz)" in report.to_text()
