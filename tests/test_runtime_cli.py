import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_model import tiny_export, tiny_info

import fertools.runtime.location as location
from fertools import __version__
from fertools.cli import main
from fertools.contract import INT8_FILE, LABELS, ONNX_FILE
from fertools.runtime import Predictor

COMPACT = Path(__file__).resolve().parent.parent / "exported" / "compact"


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """A folder of three images below the current one, with company."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("faces/b.png", "faces/a.JPG", "faces/sub/c.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (60, 50), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "faces" / "notes.txt").write_text("not an image")
    (tmp_path / "faces" / "._b.png").write_text("hidden")
    return ["faces/a.JPG", "faces/b.png", "faces/sub/c.bmp"]


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_folder_as_text(export, faces):
    result = run("predict", "faces", "--model", export)
    assert result.exit_code == 0
    assert result.stderr == ""
    predictions = Predictor(export).predict_batch(faces)
    assert result.stdout.splitlines() == [
        f"{path}\t{item.label}\t{item.confidence:.4f}" for path, item in zip(faces, predictions, strict=True)
    ]


def test_top(export, faces):
    result = run("predict", faces[0], "--model", export, "--top", 3)
    best = Predictor(export).predict(faces[0]).top(3)
    assert result.stdout == "\t".join((faces[0], *(f"{name}\t{value:.4f}" for name, value in best))) + "\n"


def test_flip_views(export, faces):
    result = run("predict", faces[0], "--model", export, "--views", "flip", "--json")
    expected = Predictor(export, views="flip").predict(faces[0])
    assert json.loads(result.stdout) == [{"path": faces[0], **expected.to_dict()}]
    assert expected != Predictor(export).predict(faces[0])


def test_json_in_order_of_the_arguments(export, faces):
    result = run("predict", faces[2], faces[0], "--model", export, "--json")
    assert result.exit_code == 0
    documents = json.loads(result.stdout)
    assert documents == [
        {"path": path, **Predictor(export).predict(path).to_dict()} for path in (faces[2], faces[0])
    ]
    assert list(documents[0]["probabilities"]) == list(LABELS)


def test_unreadable_files_do_not_stop_the_others(export, faces, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.png").write_bytes(b"broken")
    arguments = ("predict", "missing.png", faces[0], "empty", "broken.png", "--model", export)
    errors = [
        "missing.png: no such file",
        "empty: there are no image files in this folder",
        "broken.png: not an image file that Pillow can read",
    ]
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"Error: {error}" for error in errors]
    assert len(result.stdout.splitlines()) == 1
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"path": "missing.png", "error": errors[0]},
        {"path": faces[0], **Predictor(export).predict(faces[0]).to_dict()},
        {"path": "empty", "error": errors[1]},
        {"path": "broken.png", "error": errors[2]},
    ]


def test_a_picture_on_stdin(export, faces):
    result = CliRunner().invoke(
        main, ["predict", "-", faces[0], "--model", str(export), "--json"], input=Path(faces[1]).read_bytes()
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == [
        {"path": name, **Predictor(export).predict(path).to_dict()}
        for name, path in (("-", faces[1]), (faces[0], faces[0]))
    ]
    result = CliRunner().invoke(main, ["predict", "-", "--model", str(export)], input=b"")
    assert (result.exit_code, result.stderr) == (1, "Error: stdin: there is no picture on it\n")


def test_what_is_hidden_in_a_folder_is_left_out(export, faces, tmp_path):
    for name in ("a.png", ".b.png", ".thumbs/c.png", "sub/d.png"):
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).write_bytes(Path(faces[0]).read_bytes())
    result = run("predict", tmp_path / "all", "--model", export, "--json")
    assert [Path(item["path"]).name for item in json.loads(result.stdout)] == ["a.png", "d.png"]


def test_damaged_files_that_pillow_raises_anything_for(export, tmp_path):
    (tmp_path / "a.dds").write_bytes(b"DDS " + (124).to_bytes(4, "little") + bytes(120) + b"junk")
    result = run("predict", tmp_path / "a.dds", "--model", export)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_more_files_than_a_batch(export, faces):
    result = run("predict", *[faces[0], "missing.png"] * 100, "--model", export, "--json")
    documents = json.loads(result.stdout)
    assert [item["path"] for item in documents] == [faces[0], "missing.png"] * 100
    assert len({item["label"] for item in documents[::2]}) == 1


def test_options_reach_the_predictor(export, faces):
    result = run(
        "predict", faces[0], "--model", export, "--provider", "cpu", "--threads", 1, "--precision", "float32"
    )
    assert result.exit_code == 0
    result = run("predict", faces[0], "--model", export / ONNX_FILE, "--precision", "int8")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {export / ONNX_FILE}: its precision is float32, not int8\n"
    result = run("predict", faces[0], "--model", export, "--provider", "gpu")
    assert result.exit_code == 1
    assert "unknown provider 'gpu'" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a.png", "--top", 0),
        ("a.png", "--threads", 0),
        ("a.png", "--json", "--top", 2),
        ("a.png", "--views", "ten"),
        ("a.png", "--frob"),
    ],
)
def test_usage_errors(arguments):
    result = run("predict", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_aligned_for_terminals():
    from fertools.cli.predict import _line

    scores = (("Happy", 0.75), ("Sad", 0.25))
    assert _line("a.png", scores, None) == "a.png\tHappy\t0.7500\tSad\t0.2500"
    assert _line("a.png", scores, 8) == "a.png     Happy     75.0%  Sad       25.0%"


def test_info_as_json(export):
    result = run("info", "--json", "--model", export)
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert list(facts) == [
        *("fertools", "python", "platform", "processor", "int8_features", "cpus", "threads", "packages"),
        *("onnxruntime", "providers", "provider_status", "auto", "devices", "model", "warnings"),
    ]
    assert facts["fertools"] == __version__
    assert facts["packages"]["numpy"] == np.__version__
    assert "CPUExecutionProvider" in facts["providers"]
    info = tiny_info("int8")
    assert facts["model"] == {
        "path": str(export / INT8_FILE),
        "bytes": (export / INT8_FILE).stat().st_size,
        "name": "tiny",
        "precision": "int8",
        "parameters": info.parameters,
        "labels": list(LABELS),
        "accuracy": {"split": "test", "images": 100, "value": 0.5},
        "data": dict(info.data),
        "weights_sha256": info.weights_sha256,
    }


def test_info_as_text(export, tmp_path, monkeypatch):
    monkeypatch.setattr(location, "_PACKAGE", tmp_path / "fertools")
    lines = dict(line.split(maxsplit=1) for line in run("info").stdout.splitlines())
    assert lines["fertools"] == __version__
    assert lines["model"] == "none"
    text = run("info", "--model", export).stdout
    assert "tiny int8, 16,135 parameters" in text
    assert "50.00% (images 100, split test)" in text
    text = run("info", "--model", COMPACT).stdout
    assert "by face size" in text
    assert "% at 24 pixels, " in text


def test_info_warns_of_two_onnxruntimes(tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.23.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.23.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = run("info", "--json")
    facts = json.loads(result.stdout)
    assert facts["onnxruntime"] == {"onnxruntime": "1.23.0", "onnxruntime-gpu": "1.23.0"}
    assert "overwrite each other's files" in facts["warnings"][0]
    assert "Warning: onnxruntime and onnxruntime-gpu" in run("info").stderr


def test_info_survives_a_broken_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr(location, "_PACKAGE", tmp_path / "fertools")
    folder = tiny_export(tmp_path / "exported" / "sequential", "float32")
    (folder / ONNX_FILE).write_bytes(b"broken")
    facts = json.loads(run("info", "--json").stdout)
    assert facts["model"] is None
    assert "not a model exported by fertools" in facts["warnings"][0]
    assert run("info", "--model", folder).exit_code == 1
