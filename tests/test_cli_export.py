import json
import os
import shutil
import subprocess
import sys

import pytest
from exporting import one_line, run

FILES = [
    *("MODEL_CARD.md", "confusion.png", "model.int8.onnx", "model.json", "model.keras", "model.onnx"),
    "report.json",
]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_defaults(small_run, tmp_path, monkeypatch):
    """No arguments but --quantize: the last finished run goes to exported/MODEL."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_run, tmp_path / "runs" / "sequential-001")
    (tmp_path / "runs" / "sequential-002").mkdir()  # not finished
    result = run("--quantize")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "exported" / "sequential") == FILES
    assert names(tmp_path / "exported") == ["sequential"]
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["keras", "onnx", "int8"]
    assert "Run: runs/sequential-001" in result.stderr
    assert "calibrated on 512 training images" in result.stderr
    assert "Next: fertools predict IMAGE --model exported/sequential" in result.stderr


def test_streams(small_run, tmp_path):
    """In a real process stdout has only JSON and stderr only our lines, although calibration logs a lot."""
    command = [sys.executable, "-c", "from fertools.cli import main; main()", "export", str(small_run)]
    options = ["--out", "out", "--quantize", "--calibration-method", "percentile", "--amx", "--json"]
    environment = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["folder"] == "out"
    assert document["verification"]["passed"] is True
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == [
        "Run:", "Calibrating", "Converting", "Quantizing,", "Measuring", "Verifying",
        "Temperature", "Wrote", "Next:"
    ]  # fmt: skip
    assert names(tmp_path) == ["out"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    scaling = {**report["temperature_scaling"]}
    assert set(scaling.pop("test_ece")) == {"keras", "onnx", "int8"}
    assert document["temperature_scaling"] == scaling
    assert f"ECE {scaling['ece_before']:.2%} on the validation split" in done.stderr
    quantization = report["quantization"]
    assert (quantization["method"], quantization["images"], quantization["amx"]) == ("percentile", 256, True)


def test_a_gate_that_breaks_on_the_test_split_shows_the_table(small_run, tmp_path, monkeypatch):
    """Set a limit of 0, which every conversion exceeds."""
    monkeypatch.setattr("fertools.verification.gates.FLOAT_DIFFERENCE", 0.0)
    result = run(small_run, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    rows = [line.split()[0] for line in result.stderr.splitlines() if "%  " in line]
    assert rows == ["keras", "onnx"]
    assert f"Error: nothing written to {tmp_path / 'out'}: a gate is broken\n" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_broken_gate_keeps_the_earlier_export(blank_run, small_export, tmp_path, monkeypatch):
    monkeypatch.setattr("fertools.export.quantization.MOST", 0)  # no second try
    folder = shutil.copytree(small_export, tmp_path / "out")
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    result = run(blank_run, "--out", folder, "--quantize", "--calibration-images", 1, "--force")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"Error: nothing written to {folder}: on the validation split " in result.stderr
    assert "int8: top-1 agreement: " in result.stderr
    assert "(at least 0.985; 95% interval " in result.stderr
    assert "calibrate on more images (--calibration-images)" in result.stderr
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert names(tmp_path) == ["out"]


def test_other_data(blank_run, small_export, tmp_path):
    folder = shutil.copytree(small_export, tmp_path / "my export")
    result = run(blank_run, "--out", folder)
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {folder}: holds an export made from small.npz, not blank.npz;"
        " replace it with --force, or choose another folder with --out\n"
    )
    result = run(blank_run, "--out", folder, "--force")
    assert result.exit_code == 0, result.output
    assert f"Next: fertools predict IMAGE --model '{folder}'\n" in result.stderr
    assert names(folder) == [name for name in FILES if "int8" not in name]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--calibration-images", "5"], "go with --quantize"),
        (["--calibration-method", "minmax"], "go with --quantize"),
        (["--amx"], "go with --quantize"),
        (["--quantize", "--calibration-images", "0"], "not in the range"),
        (["--quantize", "--calibration-method", "best"], "not one of"),
        (
            ["--quantize", "--calibration-method", "percentile", "--calibration-images", "300"],
            "at most 256 images",
        ),
        (["--precision", "int8"], "No such option"),
    ],
)
def test_usage_errors(small_run, tmp_path, options, said):
    result = run(small_run, "--out", tmp_path / "out", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert names(tmp_path) == []


def test_nothing_to_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no finished run under runs/" in one_line(run())
    assert "not a run folder" in one_line(run("missing"))


def test_unfinished_run(small_run, tmp_path):
    unfinished = shutil.copytree(small_run, tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    assert "not finished; continue with" in one_line(run(unfinished, "--out", tmp_path / "out"))


def test_folder_in_the_way(small_run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other things than an export" in one_line(run(small_run, "--out", tmp_path, "--force"))
    assert names(tmp_path) == ["notes.txt"]


def test_other_backend(small_run, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert "not jax: unset KERAS_BACKEND" in one_line(run(small_run, "--out", tmp_path / "out"))


def test_other_data_than_the_runs(small_run, blank_run, tmp_path):
    result = run(small_run, "--out", tmp_path / "out", "--data", blank_run.with_suffix(".npz"))
    assert result.exit_code == 1
    assert "was trained on other data than blank.npz" in result.stderr
    assert not (tmp_path / "out").exists()
