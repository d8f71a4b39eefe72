import dataclasses
import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from small_run import COUNTS, run_onnxruntime, write_run

from fertools import contract, data
from fertools.backend import import_keras
from fertools.data import Dataset
from fertools.errors import ConfigError, DataError, ModelError, RunError
from fertools.evaluation.metrics import calibration_error
from fertools.export import QuantizeConfig, export
from fertools.export.graph import to_onnx
from fertools.export.quantization import quantize
from fertools.export.temperature_scaling import rescaled
from fertools.models.inference import load, probabilities
from fertools.runtime import Predictor
from fertools.runtime.metadata import INPUT_CONTRACT, METADATA_KEY
from fertools.training import Run, TrainConfig
from fertools.verification import BrokenGateError, verify
from fertools.verification.gates import int8_gates

FILES = [
    *("MODEL_CARD.md", "confusion.png", "model.int8.onnx", "model.json", "model.keras", "model.onnx"),
    "report.json",
]


def listing(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@pytest.fixture
def copied_run(small_run, tmp_path):
    """A copy of a run folder to damage."""
    return Run.open(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def report(small_export):
    return json.loads((small_export / "report.json").read_text())


def test_files(small_export, report):
    assert sorted(listing(small_export)) == FILES
    assert report["schema_version"] == 2
    assert (small_export / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert {name: facts["sha256"] for name, facts in report["files"].items()} == {
        name: digest for name, digest in listing(small_export).items() if name != "report.json"
    }
    assert small_export.stat().st_mode & 0o077 != 0  # by the umask, unlike a temporary folder


def test_without_quantization_there_is_no_int8_file(small_run, small_data, tmp_path):
    done = export(Run.open(small_run), small_data, tmp_path / "out")
    assert sorted(listing(done.folder)) == [name for name in FILES if "int8" not in name]
    assert [row.model for row in done.report.rows] == ["keras", "onnx"]
    assert "Quantization" not in (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert json.loads((done.folder / "report.json").read_text())["quantization"] is None


def test_the_seeds_beside_a_run_are_measured_too(small_run, small_data, tmp_path):
    for seed in (0, 1):
        folder = shutil.copytree(small_run, tmp_path / "all" / f"seed-{seed}")
        config = TrainConfig(epochs=6, batch_size=35, device="cpu", seed=seed).to_dict()
        (folder / "config.json").write_text(json.dumps(config))
    # The second run answers the same for every image.
    network = load(folder / "best.keras")
    network.layers[-1].set_weights([np.zeros_like(array) for array in network.layers[-1].get_weights()])
    network.save(folder / "best.keras")
    done = export(Run.open(tmp_path / "all" / "seed-0"), small_data, tmp_path / "out")
    found = json.loads((done.folder / "report.json").read_text())["training"]
    assert found["run"] == "all/seed-0"
    assert found["seeds"]["seeds"] == [0, 1]
    good, chance = done.report.row("keras").evaluation.accuracy, 1 / 7
    assert found["seeds"]["test"]["mean"] == pytest.approx((good + chance) / 2)
    assert found["seeds"]["test"]["deviation"] == pytest.approx((good - chance) / 2**0.5)
    assert "of seeds 0, 1 (validation " in (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_architecture_loads_in_safe_mode(small_export, small_data):
    keras = import_keras()
    network = keras.models.model_from_json((small_export / "model.json").read_text())
    whole = keras.saving.load_model(small_export / "model.keras", safe_mode=True)
    network.set_weights(whole.get_weights())
    faces = small_data.images[:4]
    np.testing.assert_array_equal(probabilities(network, faces), probabilities(whole, faces))
    assert getattr(whole, "optimizer", None) is None


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_metadata(small_export, small_data, report, precision):
    predictor = Predictor(small_export, precision=precision, threads=1)
    info = predictor.info
    network = load(small_export / "model.keras")
    weights = b"".join(array.astype("<f4").tobytes() for array in network.get_weights())
    assert info.name == "sequential"
    assert info.labels == contract.LABELS
    assert info.parameters == 20_167
    assert info.precision == precision
    assert info.data == {"name": "small.npz", "fingerprint": small_data.fingerprint}
    assert info.weights_sha256 == hashlib.sha256(weights).hexdigest()
    assert set(info.versions) == {"fertools", "tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime"}
    test = small_data.split("test")
    accuracy = np.mean(predictor.probabilities(test.images).argmax(axis=1) == test.labels)
    form = report["stress"]["forms"][{"float32": "keras", "int8": "int8"}[precision]]
    assert info.accuracy == {
        "split": "test",
        "images": 350,
        "value": pytest.approx(accuracy),
        "by_face_pixels": form["by_face_pixels"],
        "by_face_pixels_images": form["images"],
    }
    assert accuracy > 0.6
    stored = onnx.load(predictor.path).metadata_props
    document = next(json.loads(item.value) for item in stored if item.key == METADATA_KEY)
    assert document["input"] == INPUT_CONTRACT
    rows = {row["model"]: row for row in report["verification"]["rows"]}
    name = {"float32": "onnx", "int8": "int8"}[precision]
    assert rows[name]["evaluation"]["accuracy"] == info.accuracy["value"]


def test_worse_images(small_export, report):
    forms = report["stress"]["forms"]
    assert [*forms] == ["keras", "int8"]
    (gate,) = report["stress"]["gates"]
    lost = 100 * (forms["keras"]["mean"] - forms["int8"]["mean"])
    assert gate["measured"] == pytest.approx(lost)
    assert gate["passed"]
    card = (small_export / "MODEL_CARD.md").read_text(encoding="utf-8")
    for form in forms.values():
        assert form["images"] == 70
        assert f"| {form['clean']:.2%} | {form['mean']:.2%} | {form['points_lost']:.2f} |" in card
    for change in forms["int8"]["changes"]:
        assert f"| {change['name']} | " in card
    assert f"| {gate['name']} (70 images) | " in card


def test_an_int8_file_that_is_more_fragile_is_not_written(small_run, small_data, tmp_path, monkeypatch):
    from fertools.export import exporter

    measured = exporter._stressed

    def fragile(*arguments):
        found = measured(*arguments)
        return found | {"int8": dataclasses.replace(found["int8"], hits=np.zeros(70))}

    monkeypatch.setattr(exporter, "_stressed", fragile)
    with pytest.raises(BrokenGateError, match="on worse test images a gate is broken"):
        export(Run.open(small_run), small_data, tmp_path / "out", quantization=QuantizeConfig(images=64))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sure_run(small_run, small_data, tmp_path_factory):
    """The run of a network whose logits are three times too large."""
    network = load(small_run / "best.keras")
    last = network.layers[-1]
    last.set_weights([3 * array for array in last.get_weights()])
    return write_run(tmp_path_factory.mktemp("runs") / "sure", network, small_data)


def test_the_confidence_is_calibrated_in_every_file(sure_run, tmp_path):
    dataset = data.load(sure_run.with_suffix(".npz"))
    done = export(Run.open(sure_run), dataset, tmp_path / "out", quantization=QuantizeConfig(images=256))
    report = json.loads((done.folder / "report.json").read_text())
    scaling, temperature = report["temperature_scaling"], done.temperature_scaling.temperature
    assert scaling["temperature"] == temperature > 1.5
    assert scaling["unscaled_because"] is None

    trained, written = load(sure_run / "best.keras"), load(done.folder / "model.keras")
    validation, test = dataset.split("validation"), dataset.split("test")
    before, after = (
        calibration_error(probabilities(network, validation.images), validation.labels)
        for network in (trained, written)
    )
    assert scaling["ece_before"] == pytest.approx(before)
    assert scaling["ece_after"] == pytest.approx(after, abs=1e-3)
    assert after < before

    uncalibrated = probabilities(trained, test.images)
    answers = {
        "keras": probabilities(written, test.images),
        "onnx": Predictor(done.folder, precision="float32", threads=1).probabilities(test.images),
        "int8": Predictor(done.folder, precision="int8", threads=1).probabilities(test.images),
    }
    np.testing.assert_array_equal(answers["keras"].argmax(axis=1), uncalibrated.argmax(axis=1))
    np.testing.assert_allclose(answers["keras"], rescaled(uncalibrated, temperature), atol=1e-5)
    assert list(scaling["test_ece"]) == ["keras", "onnx", "int8"]
    for name, rows in answers.items():
        ece = scaling["test_ece"][name]
        assert ece["with"] == pytest.approx(calibration_error(rows, test.labels), abs=1e-3)
        unscaled = rows.astype(np.float64) ** temperature
        unscaled /= unscaled.sum(axis=1, keepdims=True)
        assert ece["without"] == pytest.approx(calibration_error(unscaled, test.labels), abs=1e-3)
    assert scaling["test_ece"]["keras"]["without"] == pytest.approx(
        calibration_error(uncalibrated, test.labels), abs=5e-3
    )


def test_another_last_layer_is_exported_as_it_is(small_run, small_data, tmp_path):
    keras = import_keras()
    network = load(small_run / "best.keras")
    last = network.layers[-1]
    logits = keras.layers.Dense(7, name="logits")
    parts = keras.Sequential([keras.Input((48, 48, 1)), *network.layers[:-1], logits])
    parts.add(keras.layers.Activation("softmax"))
    logits.set_weights(last.get_weights())
    run = Run.open(write_run(tmp_path / "run", parts, small_data))
    done = export(run, data.load(tmp_path / "run.npz"), tmp_path / "out")
    assert done.temperature_scaling.temperature == 1
    reason = "the last layer is not a Dense one with softmax"
    report = json.loads((done.folder / "report.json").read_text())
    assert report["temperature_scaling"]["unscaled_because"] == reason
    assert f"No temperature scaling: {reason}." in (done.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    for old, new in zip(parts.get_weights(), load(done.folder / "model.keras").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_int8_is_calibrated_on_train_alone(small_export, small_data, report):
    expected = quantize(
        to_onnx(load(small_export / "model.keras")),
        small_data.split("train").images,
        QuantizeConfig(images=256),
    )
    faces = small_data.split("test").images[:64]
    found = onnx.load(small_export / "model.int8.onnx")
    np.testing.assert_array_equal(run_onnxruntime(found, faces), run_onnxruntime(expected, faces))
    assert report["quantization"] == {
        "images": 256, "method": "minmax", "per_channel": True, "reduce_range": True,
        "error_feedback": True, "float_layers": 1, "amx": False, "seed": 0, "front_in_float": 1,
        "validation": report["quantization"]["validation"],
    }  # fmt: skip
    judged = report["quantization"]["validation"]
    assert [gate["counts"].get("images") for gate in judged] == [COUNTS[1], COUNTS[1], None]


def test_all_train_images_calibrate_if_they_are_few(small_run, small_data, tmp_path, monkeypatch):
    monkeypatch.setattr("fertools.export.quantization.DEFAULT_IMAGES", 2048)
    said = []
    export(Run.open(small_run), small_data, tmp_path / "out", quantization=QuantizeConfig(), say=said.append)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["quantization"]["images"] == COUNTS[0]
    assert "calibrated on 1400 training images" in " ".join(said)
    assert "--calibration" not in (tmp_path / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_written_files_tell_nothing_of_the_machine(small_run, small_export):
    for name in FILES:
        content = (small_export / name).read_bytes()
        for path in (small_run.parent, small_run.parent.parent, small_export.parent):
            assert str(path).encode() not in content, name


def test_a_repeated_export_takes_the_place_of_the_first(small_run, small_data, small_export, tmp_path):
    folder = shutil.copytree(small_export, tmp_path / "out")
    export(Run.open(small_run), small_data, folder)
    assert sorted(listing(folder)) == [name for name in FILES if "int8" not in name]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_through_a_link(small_run, small_data, small_export, tmp_path):
    folder = shutil.copytree(small_export, tmp_path / "real")
    (tmp_path / "link").symlink_to(folder)
    export(Run.open(small_run), small_data, tmp_path / "link")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "link").is_symlink()
    assert len(listing(folder)) == 6


def test_other_data_needs_force(blank_run, small_export, tmp_path):
    folder = shutil.copytree(small_export, tmp_path / "out")
    before = listing(folder)
    dataset = data.load(blank_run.with_suffix(".npz"))
    with pytest.raises(RunError, match=r"made from small\.npz, not blank\.npz; replace it with --force"):
        export(Run.open(blank_run), dataset, folder)
    assert listing(folder) == before
    export(Run.open(blank_run), dataset, folder, force=True)
    assert json.loads((folder / "report.json").read_text())["model"]["data"]["name"] == "blank.npz"


@pytest.mark.parametrize("spoil", ["no export", "a file too many", "a file", "below a file"])
def test_what_is_no_export_is_never_touched(small_run, small_data, small_export, tmp_path, spoil):
    folder = tmp_path / "out"
    if spoil == "no export":
        folder.mkdir()
        (folder / "report.json").write_text("{}")
    elif spoil == "a file too many":
        shutil.copytree(small_export, folder)
        (folder / "notes.txt").write_text("mine")
    else:
        folder.write_text("mine")
    if spoil == "below a file":
        folder = folder / "out"
    before = [(path, path.is_file() and path.read_bytes()) for path in sorted(tmp_path.rglob("*"))]
    said = []
    with pytest.raises(RunError, match=r"choose another folder with --out"):
        export(Run.open(small_run), small_data, folder, force=True, say=said.append)
    assert [(path, path.is_file() and path.read_bytes()) for path in sorted(tmp_path.rglob("*"))] == before
    assert said == []


def test_what_ships_is_what_was_verified(small_run, small_data, tmp_path, monkeypatch):
    """The exact bytes are verified: files for devices are not written to afterwards."""
    verified = {}

    def remembering(folder, dataset):
        verified.update(listing(folder))
        return verify(folder, dataset)

    monkeypatch.setattr("fertools.export.exporter.verify", remembering)
    done = export(Run.open(small_run), small_data, tmp_path / "out", quantization=QuantizeConfig(images=256))
    shipped = listing(done.folder)
    assert {"model.onnx", "model.int8.onnx", "model.keras"} < set(verified)
    assert verified == {name: shipped[name] for name in verified}
    for row in done.report.rows[1:]:
        precision = "int8" if row.model == "int8" else "float32"
        info = Predictor(done.folder, precision=precision, threads=1).info
        assert info.accuracy["value"] == row.evaluation.accuracy


def test_a_file_that_answers_otherwise_when_run_again_is_not_written(
    small_run, small_data, tmp_path, monkeypatch
):
    accuracies = {"split": "test", "images": 350, "value": 0.123}
    monkeypatch.setattr("fertools.export.exporter._accuracies", lambda *arguments: {"float32": accuracies})
    with pytest.raises(ModelError, match=r"onnx: 12\.3000% of the test images are right, and when run again"):
        export(Run.open(small_run), small_data, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_export_leaves_nothing(small_run, small_data, small_export, tmp_path, error):
    folder = shutil.copytree(small_export, tmp_path / "out")
    before = listing(folder)

    def say(message):
        if message.startswith("verifying"):
            assert len(list(tmp_path.iterdir())) == 2  # the files are made beside
            raise error

    with pytest.raises(error):
        export(Run.open(small_run), small_data, folder, say=say)
    assert listing(folder) == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_broken_gate_leaves_nothing(blank_run, tmp_path):
    dataset = data.load(blank_run.with_suffix(".npz"))
    said = []
    with pytest.raises(BrokenGateError, match=r"nothing written to .*: on the validation split") as caught:
        export(Run.open(blank_run), dataset, tmp_path / "out", quantization=QuantizeConfig(), say=said.append)
    assert list(tmp_path.iterdir()) == []
    assert "int8: top-1 agreement" in [gate.name for gate in caught.value.gates]
    assert "(--calibration-images)" in str(caught.value)
    # The test split is the final proof: a file that fails earlier is not measured on it.
    assert caught.value.report is None
    assert not any(message.startswith("verifying") for message in said)


def test_a_gate_that_breaks_on_the_test_split_leaves_nothing(small_run, small_data, tmp_path, monkeypatch):
    """The hint points to the validation figures, not to options to try."""

    def worse(folder, dataset):
        report = verify(folder, dataset)
        answers = report.row("int8").probabilities[:, ::-1]
        gates = int8_gates(report.row("keras").probabilities, answers, dataset.split("test").labels)
        return dataclasses.replace(report, gates=(*report.gates[:2], *gates))

    monkeypatch.setattr("fertools.export.exporter.verify", worse)
    with pytest.raises(BrokenGateError, match="nothing written") as caught:
        export(Run.open(small_run), small_data, tmp_path / "out", quantization=QuantizeConfig(images=256))
    assert list(tmp_path.iterdir()) == []
    assert [gate.passed for gate in caught.value.report.gates] == [True, True, False, False, True]
    assert "go by the validation figures" in str(caught.value)
    assert "--calibration-images" not in str(caught.value)


def test_unfinished_run(copied_run, small_data, tmp_path):
    (copied_run.path / "metrics.json").unlink()
    with pytest.raises(RunError, match="not finished; continue with 'fertools train --resume"):
        export(copied_run, small_data, tmp_path / "out")


def test_wrong_data(small_run, blank_run, tmp_path):
    with pytest.raises(RunError, match=r"trained on other data than blank\.npz"):
        export(Run.open(small_run), data.load(blank_run.with_suffix(".npz")), tmp_path / "out")


def test_no_test_split(small_run, small_data, tmp_path):
    kept = small_data.usage < 2
    parts = (array[kept] for array in (small_data.images, small_data.labels, small_data.usage))
    run = write_run(tmp_path / "run", load(small_run / "best.keras"), Dataset("untested", *parts))
    with pytest.raises(DataError, match="no test images"):
        export(Run.open(run), data.load(run.with_suffix(".npz")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_validation_split(copied_run, small_data, tmp_path):
    kept = small_data.usage != 1
    parts = (array[kept] for array in (small_data.images, small_data.labels, small_data.usage))
    dataset = Dataset("unvalidated", *parts)
    facts = copied_run.facts
    facts["data"]["fingerprint"] = dataset.fingerprint
    (copied_run.path / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="no validation images"):
        export(copied_run, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_calibration_images_than_there_are(small_run, small_data, tmp_path):
    with pytest.raises(DataError, match="the data has 1400: ask for at most 1400"):
        export(Run.open(small_run), small_data, tmp_path / "out", quantization=QuantizeConfig(images=1401))


def test_damaged_network(copied_run, small_data, tmp_path):
    content = copied_run.best.read_bytes()
    copied_run.best.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="not a Keras model that can be loaded"):
        export(copied_run, small_data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_backend(small_run, small_data, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ConfigError, match="needs Keras on TensorFlow, not jax: unset KERAS_BACKEND"):
        export(Run.open(small_run), small_data, tmp_path / "out")


def test_how_many_images_are_made_worse(small_run, small_data, tmp_path):
    with pytest.raises(ConfigError, match="stress_images=0: at least one"):
        export(Run.open(small_run), small_data, tmp_path / "out", stress_images=0)
    export(Run.open(small_run), small_data, tmp_path / "out", stress_images=9)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["stress"]["forms"]["keras"]["images"] == 9
