"""Exports in onnxruntime's mobile format behave like other exports."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import tiny_info, tiny_proto, tiny_reference

from fertools import data
from fertools.benchmark import benchmark
from fertools.benchmark.work import multiply_adds
from fertools.cli import main
from fertools.errors import ConfigError, ModelError
from fertools.export import QuantizeConfig, export
from fertools.export.ort_format import LEVEL, write_ort
from fertools.runtime import Predictor
from fertools.training import Run
from fertools.verification import verify

FILES = [
    *("MODEL_CARD.md", "confusion.png", "model.int8.ort", "model.json", "model.keras", "model.ort"),
    *("report.json", "required_operators.config"),
]
FACES = np.random.default_rng(0).integers(0, 256, (20, 48, 48), dtype=np.uint8)


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def operators(folder):
    """Return domain -> the operators that a reduced build needs."""
    lines = (folder / "required_operators.config").read_text().splitlines()
    found = {}
    for line in lines:
        if not line.startswith("#"):
            domain, _, listed = line.split(";")
            found.setdefault(domain, set()).update(listed.split(","))
    return found


@pytest.fixture(scope="module")
def small_ort(small_run, tmp_path_factory):
    """The .ort export of ``small_run`` with an int8 file. Not to be written to."""
    folder = tmp_path_factory.mktemp("exported") / "small"
    options = ["--target", "ort", "--quantize", "--calibration-images", 256, "--out", folder]
    result = run("export", small_run, *options)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[3:6]] == ["keras", "ort", "int8"]
    return folder


@pytest.fixture(scope="module")
def tiny_ort(tmp_path_factory):
    """A folder with a tiny model in both precisions. Not to be written to."""
    folder = tmp_path_factory.mktemp("tiny")
    precisions = {"model.onnx": "float32", "model.int8.onnx": "int8"}
    write_ort(
        folder, {file: tiny_proto(tiny_info(name)).SerializeToString() for file, name in precisions.items()}
    )
    return folder


def test_files(small_ort):
    assert names(small_ort) == FILES
    report = json.loads((small_ort / "report.json").read_text())
    assert report["target"] == "ort"
    assert set(report["files"]) == {name for name in FILES if name != "report.json"}
    card = (small_ort / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "--target ort --quantize --calibration-images 256\n" in card
    assert "\n## Format\n" in card


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_answers_are_those_of_the_onnx_file(small_ort, small_export, small_data, precision):
    ours, theirs = (
        Predictor(folder, precision=precision, providers="cpu", threads=1)
        for folder in (small_ort, small_export)
    )
    assert ours.path.suffix == ".ort"
    assert ours.info == theirs.info
    faces = small_data.split("test").images
    found, expected = ours.probabilities(faces), theirs.probabilities(faces)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_the_same_gates(small_ort, small_export, small_data):
    report, other = (verify(folder, small_data) for folder in (small_ort, small_export))
    assert report.passed
    assert [row.model for row in report.rows] == ["keras", "ort", "int8"]
    assert [gate.limit for gate in report.gates] == [gate.limit for gate in other.gates]
    renamed = [gate.name.replace("ort:", "onnx:") for gate in report.gates]
    assert renamed == [gate.name for gate in other.gates]
    assert report.trained_on == other.trained_on


def test_nothing_is_left_to_do_on_the_device_and_it_may_be_any(small_ort):
    found = operators(small_ort)
    assert {"QLinearConv", "QGemm"} <= found["com.microsoft"]  # int8 is computed in int8
    assert "com.microsoft.nchwc" not in found  # an x86-specific layout
    assert not {"BatchNormalization", "Relu"} & found["ai.onnx"]


def test_written_files_tell_nothing_of_the_machine(small_ort, small_run):
    text = (small_ort / "required_operators.config").read_text()
    assert text.splitlines()[:3] == ["# Generated from model/s:", "# - model.int8.ort", "# - model.ort"]
    for name in FILES:
        content = (small_ort / name).read_bytes()
        for path in (small_run.parent.parent, small_ort.parent.parent):
            assert str(path).encode() not in content, name


def test_one_format_takes_the_place_of_the_other(small_run, small_ort, small_data, tmp_path):
    folder = shutil.copytree(small_ort, tmp_path / "out")
    export(Run.open(small_run), small_data, folder)
    assert names(folder) == [*FILES[:2], "model.json", "model.keras", "model.onnx", "report.json"]
    export(Run.open(small_run), small_data, folder, target="ort")
    assert names(folder) == [name for name in FILES if "int8" not in name]


def test_commands_take_such_a_folder(small_ort, small_run, small_data):
    source = small_run.with_suffix(".npz")
    assert run("verify", small_ort, "--data", source).exit_code == 0
    result = run("evaluate", small_ort, "--data", source, "--json")
    assert result.exit_code == 0, result.stderr
    accuracy = Predictor(small_ort).info.accuracy["value"]
    assert json.loads(result.stdout)["official"]["accuracy"] == pytest.approx(accuracy)
    document = json.loads(run("info", "--model", small_ort, "--json").stdout)
    assert document["model"]["path"] == str(small_ort / "model.int8.ort")
    assert document["model"]["precision"] == "int8"


def test_benchmark(tiny_ort):
    found = benchmark(tiny_ort, batches=(1,), rounds=1)
    assert [file.file for file in found.files] == ["model.ort", "model.int8.ort"]
    assert found.multiply_adds == 48 * 48 * 7


def test_multiply_adds_are_the_networks_in_every_file(small_ort, small_export):
    files = [folder / f"model{kind}" for folder, kind in (
        (small_export, ".onnx"), (small_export, ".int8.onnx"), (small_ort, ".ort"), (small_ort, ".int8.ort"),
    )]  # fmt: skip
    expected = 24 * 24 * 8 * 9 + 12 * 12 * 16 * 8 * 9 + 6 * 6 * 16 * 32 + 32 * 7
    assert [multiply_adds(file) for file in files] == [expected] * 4


def test_a_file_by_itself(tiny_ort):
    predictor = Predictor(tiny_ort / "model.ort", threads=1)
    assert predictor.info == tiny_info()
    np.testing.assert_allclose(predictor.probabilities(FACES), tiny_reference(FACES), atol=1e-5)
    with pytest.raises(ModelError, match="its precision is float32, not int8"):
        Predictor(tiny_ort / "model.ort", precision="int8")


def test_the_onnx_file_is_preferred(tiny_ort, tmp_path):
    from tiny_model import tiny_export

    folder = shutil.copytree(tiny_ort, tmp_path / "out")
    tiny_export(folder, "float32")
    assert Predictor(folder, precision="float32").path.name == "model.onnx"
    assert Predictor(folder).path.name == "model.int8.ort"


@pytest.mark.parametrize("place", [4, 2000, -100, -5])
def test_an_altered_file_is_refused(tiny_ort, tmp_path, place):
    content = bytearray((tiny_ort / "model.ort").read_bytes())
    content[place] ^= 1
    (tmp_path / "model.ort").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.ort: (truncated or altered|not a model exported)"):
        Predictor(tmp_path / "model.ort")
    (tmp_path / "model.ort").write_bytes(content[:-200])
    with pytest.raises(ModelError, match=r"model\.ort: "):
        Predictor(tmp_path / "model.ort")


def test_the_environment_does_not_change_the_files(tmp_path, monkeypatch):
    monkeypatch.setenv(LEVEL, "basic")
    write_ort(tmp_path, {"model.onnx": tiny_proto().SerializeToString()})
    assert names(tmp_path) == ["model.ort", "required_operators.config"]


def test_what_cannot_be_converted(tmp_path):
    broken = tiny_proto()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match=r"cannot convert the network.*: .*NoSuchOperator"):
        write_ort(tmp_path, {"model.onnx": broken.SerializeToString()})
    assert names(tmp_path) == []


def test_no_such_target(small_run, tmp_path):
    dataset = data.load(small_run.with_suffix(".npz"))
    with pytest.raises(ConfigError, match=r"target='tflite': choose one of onnx, ort"):
        export(Run.open(small_run), dataset, tmp_path / "out", target="tflite", quantization=QuantizeConfig())
    assert run("export", small_run, "--target", "tflite").exit_code == 2
