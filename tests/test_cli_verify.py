import json
import shutil

import pytest
from click.testing import CliRunner
from test_verification_verify import change_last_bias, tamper

from fertools.cli import main
from fertools.contract import INT8_FILE, ONNX_FILE
from fertools.data import synthetic


def run(*arguments):
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


@pytest.fixture
def source(small_run):
    return small_run.with_suffix(".npz")


def test_table(small_export, source):
    result = run(small_export, "--data", source)
    assert result.exit_code == 0
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:6]] == ["keras", "onnx", "int8"]
    assert all(line.startswith(("proved ", "not proved ")) for line in lines[7:])
    assert len(lines) == 12


def test_json(small_export, source, monkeypatch):
    monkeypatch.setenv("FERTOOLS_DATA", str(source))
    result = run(small_export, "--json")
    assert result.exit_code == 0
    assert "FERTOOLS_DATA" in result.stderr
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert [row["model"] for row in document["rows"]] == ["keras", "onnx", "int8"]
    assert document["environment"]["processor"]
    assert document["environment"]["timing"].startswith("batch 1, one thread")
    reported = json.loads((small_export / "report.json").read_text())["verification"]
    for row in (*document["rows"], *reported["rows"]):
        row.pop("milliseconds")
    assert document["gates"] == reported["gates"]
    assert document["data"] == reported["data"]
    # The sizes too: the verified bytes are the written ones, with the accuracy inside.
    assert document["rows"] == reported["rows"]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("file", "said"),
    [(ONNX_FILE, "onnx: largest probability difference: "), (INT8_FILE, "int8: top-1 agreement: ")],
)
def test_broken_gate(small_export, source, tmp_path, file, said, as_json):
    folder = shutil.copytree(small_export, tmp_path / "out")
    tamper(folder / file, change_last_bias([50, 0, 0, 0, 0, 0, 0]))
    result = run(folder, "--data", source, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {folder}: 2 gates are broken\n")
    assert said in result.stderr
    if as_json:
        document = json.loads(result.stdout)
        assert document["passed"] is False
        assert [gate["passed"] for gate in document["gates"]].count(False) == 2
    else:
        assert [line.split()[0] for line in result.stdout.splitlines()[7:]].count("BROKEN") == 2


def test_other_data(small_export, source, tmp_path, monkeypatch):
    """Without --data, drawn faces are used; this export was not made from them, so it is an error."""
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    monkeypatch.setattr("fertools.data.load", lambda source: synthetic.generate(70, 35, 35))
    result = run(small_export)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "Error: synthetic: not the data that " in result.stderr
    result = run(small_export, "--other-data")
    assert "synthetic, test split, 35 images (trained on other data: small.npz)" in result.stdout


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_export(source, tmp_path, name):
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / name, "--data", source)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "not an export folder" in result.stderr


def test_no_such_data(small_export, tmp_path):
    result = run(small_export, "--data", tmp_path / "missing.npz")
    assert result.exit_code == 1
    assert "no such file" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["a", "--quantize"]])
def test_usage_errors(arguments):
    assert run(*arguments).exit_code == 2
