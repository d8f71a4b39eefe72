import json
import os
import shutil
from pathlib import Path

import pytest
import tiny_training
from click.testing import CliRunner
from tiny_model import tiny_export

from fertools.backend import import_keras
from fertools.cli import main
from fertools.contract import ONNX_FILE
from fertools.data import Dataset, write
from fertools.evaluation import measure, open_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a finished run, an export and the data that the run was made with."""
    root = tmp_path_factory.mktemp("evaluate")
    import_keras()
    from fertools.training.trainer import train

    dataset = tiny_training.dataset()
    write(dataset, root / "tiny.npz")
    run = tiny_training.create(root / "run", tiny_training.config(epochs=1), dataset)
    facts = run.facts
    facts["data"]["source"] = str(root / "tiny.npz")
    (run.path / "run.json").write_text(json.dumps(facts))
    train(run, dataset)
    tiny_export(root / "export", data={"name": "tiny.npz", "fingerprint": dataset.fingerprint})
    return root


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("FERTOOLS_DATA", raising=False)


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.mark.parametrize(
    ("path", "split"), [("run", "validation"), ("export", "test"), (f"export/{ONNX_FILE}", "test")]
)
def test_models(path, split):
    """The test split is the default only for exports: for a run, something may still be chosen."""
    expected = measure(open_network(Path(path)), tiny_training.dataset(), split)
    result = run(path, "--data", "tiny.npz")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == f"tiny.npz, {split} split, views: single"
    assert expected.official.to_text() in result.stdout
    assert expected.deduplicated.headline() in result.stdout
    document = json.loads(run(path, "--data", "tiny.npz", "--json").stdout)
    assert document["model"] == path
    assert document["fingerprint"] == expected.fingerprint
    assert (document["data"], document["split"], document["views"]) == ("tiny.npz", split, "single")
    assert document["official"]["accuracy"] == expected.official.accuracy
    assert document["official"]["ece"] == pytest.approx(expected.official.ece)
    assert document["deduplicated"]["images"] == expected.deduplicated.images


@pytest.mark.parametrize("path", ["run", "run/best.keras", "export", f"export/{ONNX_FILE}"])
def test_flip_views(path):
    dataset = tiny_training.dataset()
    network = open_network(Path(path))
    split = "validation" if "run" in path else "test"
    expected = measure(network, dataset, split, "flip").official
    assert expected != measure(network, dataset, split).official
    result = run(path, "--data", "tiny.npz", "--views", "flip")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"tiny.npz, {split} split, views: flip\n")
    assert expected.headline() in result.stdout
    document = json.loads(run(path, "--data", "tiny.npz", "--views", "flip", "--json").stdout)
    assert document["views"] == "flip"
    assert document["official"]["log_loss"] == pytest.approx(expected.log_loss)


def test_other_split():
    document = json.loads(run("run", "--split", "test", "--json").stdout)
    assert document["split"] == "test"
    assert document["official"]["images"] == 14


def test_plot(tmp_path):
    result = run("export", "--data", "tiny.npz", "--plot", tmp_path / "new" / "plot.png")
    assert result.stderr == f"Wrote {tmp_path / 'new' / 'plot.png'}.\n"
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["cost$1_$2.npz", "frac$\\frac$.npz", os.fsdecode(b"n\xff.npz")])
def test_plot_of_data_with_an_odd_name(tmp_path, name):
    """Neither mathematics to matplotlib, nor an error where a name is not UTF-8."""
    shutil.copy("tiny.npz", tmp_path / name)
    result = run("export", "--data", tmp_path / name, "--plot", tmp_path / "plot.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_plot_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    result = run("export", "--data", "tiny.npz", "--plot", tmp_path / "file" / "plot.png")
    assert result.exit_code == 1
    assert "plot.png: cannot be written" in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "stress"])
def test_data_of_the_run(command):
    result = CliRunner().invoke(main, [command, "run"])
    assert result.stderr == f"No --data: {Path.cwd() / 'tiny.npz'}, as in training.\n"


@pytest.mark.parametrize("command", ["evaluate", "stress"])
@pytest.mark.parametrize(("model", "name"), [("run", "synthetic"), ("export", "tiny.npz")])
def test_other_data_is_told(command, model, name, monkeypatch):
    write(tiny_training.dataset(seed=1), "other.npz", overwrite=True)
    monkeypatch.setenv("FERTOOLS_DATA", "other.npz")
    result = CliRunner().invoke(main, [command, model])
    assert result.stderr.splitlines() == [
        "No --data: other.npz, from the environment variable FERTOOLS_DATA.",
        f"{model} was trained on other data: {name}.",
    ]


def test_data_by_default(monkeypatch):
    monkeypatch.setattr("fertools.data.load", lambda source: tiny_training.dataset())
    result = run("export")
    assert result.stderr == "No --data and no FERTOOLS_DATA in the environment: synthetic, drawn faces.\n"


def test_an_empty_split(tmp_path):
    whole = tiny_training.dataset()
    kept = whole.usage != 2
    write(Dataset("two", whole.images[kept], whole.labels[kept], whole.usage[kept]), tmp_path / "two.npz")
    result = run("export", "--data", tmp_path / "two.npz")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: two.npz: no test images")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "Missing argument 'MODEL'"),
        (("run", "--split", "private"), 2, "'private' is not one of"),
        (("run", "--views", "ten"), 2, "'ten' is not one of 'single', 'flip'"),
        (("run", "--precision", "int8"), 1, "Error: run: a run has no int8 network"),
        (("run/best.keras", "--precision", "int8"), 1, "a Keras file has no int8 network"),
        (("nothing",), 1, "Error: nothing"),
        (("nothing.keras",), 1, "Error: nothing.keras: no such file"),
        (("export", "--data", "nothing"), 1, "Error: nothing: no such file or folder"),
    ],
)
def test_errors(arguments, code, message):
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == ""
