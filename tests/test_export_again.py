"""An export as the source of another."""

import json
import shutil

import numpy as np
import pytest
from exporting import one_line, run
from tiny_model import tiny_export

from fertools.runtime import Predictor, location


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture
def here(small_export, tmp_path, monkeypatch):
    """A folder with an export, which may be damaged, in exported/small."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_export, tmp_path / "exported" / "small")
    return tmp_path


@pytest.fixture
def source(small_run):
    return small_run.with_suffix(".npz")


def test_another_format(here, source, small_data):
    before = content(here / "exported" / "small")
    result = run(
        *("exported/small", "--data", source, "--target", "ort"),
        *("--quantize", "--calibration-images", 256),
    )
    assert result.exit_code == 0, result.output
    assert f"Export: exported/small, data: {source}" in result.stderr
    assert "Next: fertools predict IMAGE --model exported/small-ort" in result.stderr
    old, new = here / "exported" / "small", here / "exported" / "small-ort"
    assert content(old) == before
    assert {"model.ort", "model.int8.ort", "model.keras"} < content(new).keys()
    faces = small_data.split("test").images
    for precision in ("float32", "int8"):
        first, second = (Predictor(folder, precision=precision, threads=1) for folder in (old, new))
        np.testing.assert_allclose(first.probabilities(faces), second.probabilities(faces), atol=1e-5)
        assert first.info.weights_sha256 == second.info.weights_sha256
        assert first.info.data == second.info.data


def test_the_record_is_kept_and_no_temperature_comes_twice(here, source):
    """And an export of an export of an export tells the whole way."""
    for name, out in (("small", "second"), ("second", "third")):
        result = run(f"exported/{name}", "--data", source, "--out", f"exported/{out}", "--json")
        assert result.exit_code == 0, result.output
    old, new = report(here / "exported" / "small"), report(here / "exported" / "third")
    assert old["temperature_scaling"]["temperature"] > 1.1
    assert "Calibrating" not in result.stderr
    assert (
        json.loads(result.stdout)["temperature_scaling"]["temperature"]
        == (old["temperature_scaling"]["temperature"])
    )
    eces = [each["temperature_scaling"].pop("test_ece")["keras"] for each in (old, new)]
    assert eces[1] == pytest.approx(eces[0], abs=0.01)
    assert new["temperature_scaling"] == old["temperature_scaling"]
    commands = new["training"].pop("commands")
    sha = old["model"]["weights_sha256"][:8]
    assert commands == [
        *old["training"].pop("commands"),
        f"fertools export small --data SRC --out small  # weights {sha}",
        f"fertools export small --data SRC --out second  # weights {sha}",
    ]
    assert new["training"].pop("export") == "second"
    assert new["training"] == old["training"]
    card = (here / "exported" / "third" / "MODEL_CARD.md").read_text()
    assert f"{commands[-1]}\nfertools export second --data SRC\n" in card


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_export_never_replaces_its_source(here, source, force):
    before = content(here / "exported" / "small")
    (here / "link").symlink_to("exported/small")
    for out in ("exported/small", "exported/../exported/small/", "link"):
        result = run("exported/small", "--data", source, "--out", out, *force)
        assert "would replace what is exported; choose another folder" in one_line(result)
    assert content(here / "exported" / "small") == before


def test_a_shipped_model_by_its_name(here, small_export, monkeypatch):
    monkeypatch.setattr(location, "_PACKAGE", here / "package")
    assert "compact: does not ship with this copy" in one_line(run("compact"))
    shipped = tiny_export(here / "package" / "exported" / "compact", "int8")
    assert "compact: has no model.keras (wheels bring the int8 files" in one_line(run("compact"))
    shutil.rmtree(shipped)
    shutil.copytree(small_export, shipped)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)
    result = run("compact")
    assert result.exit_code == 1
    assert f"Export: {shipped}, data: synthetic" in result.stderr
    assert "compact: it was trained on other data than synthetic; name its training data" in result.stderr


@pytest.mark.parametrize("lacking", ["temperature_scaling", "training", "verification", "model"])
def test_a_damaged_report(here, source, lacking):
    file = here / "exported" / "small" / "report.json"
    document = report(file.parent)
    del document[lacking]
    file.write_text(json.dumps(document))
    said = one_line(run("exported/small", "--data", source))
    assert said.startswith("Error: exported/small/report.json: ")
    assert "export" in said.split(";")[-1]


def test_another_network_than_the_reports(here, source, blank_run):
    shutil.copy(blank_run / "best.keras", here / "exported" / "small" / "model.keras")
    result = run("exported/small", "--data", source)
    assert result.exit_code == 1
    assert "model.keras: not the network that report.json is about" in result.stderr
    assert [path.name for path in (here / "exported").iterdir()] == ["small"]


@pytest.mark.parametrize("name", ["model.keras", "model.onnx"])
def test_a_file_of_an_export_is_not_its_folder(here, name):
    said = one_line(run(f"exported/small/{name}"))
    assert f"{name}: a file; name the folder that it is in" in said
