"""Disks without room or rights: one line with the path and the reason, and all goes on once there is room."""

import dataclasses
from pathlib import Path

import pytest
import tiny_training
from click.testing import CliRunner
from hostile import full_disk

from fertools.cli import main
from fertools.data import write
from fertools.errors import WriteError
from fertools.models import NETWORKS
from fertools.training import Run
from fertools.training.sweep import Sweep

#: Folders in which not even root can make a file.
READ_ONLY = "/proc/nothing"
OPTIONS = ["--data", "tiny.npz", "--epochs", "2", "--batch-size", "16"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder with a data set, and a network that trains in a moment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(NETWORKS, "tiny", tiny_training.NETWORK)
    tiny = dataclasses.replace(NETWORKS["sequential"], build=tiny_training.build)
    monkeypatch.setitem(NETWORKS, "sequential", tiny)
    write(tiny_training.dataset(), "tiny.npz")
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def refused(result, path, reason):
    """The outcome is one line that names path and reason."""
    assert result.exit_code == 1, result.exception
    assert isinstance(result.exception, SystemExit)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert errors[0] == result.stderr.splitlines()[-1]
    assert str(path) in errors[0]
    assert reason in errors[0]
    return True


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["train", "--out", f"{READ_ONLY}/run", *OPTIONS], "run"),
        (["train", "--seeds", "2", "--out", f"{READ_ONLY}/run", *OPTIONS], "run/seed-0"),
        (["sweep", "--set", "ema=0.5", "--out", f"{READ_ONLY}/sweep", *OPTIONS], "sweep/sweep.json"),
        (["quickstart", "--out", f"{READ_ONLY}/quick"], "quick/faces.png"),
        (["models", "show", "tiny", "--plot", f"{READ_ONLY}/a.png"], "a.png"),
        (["data", "preview", "tiny.npz", "--plot", f"{READ_ONLY}/a.png"], "a.png"),
        (["data", "convert", "tiny.npz", f"{READ_ONLY}/a.csv"], "a.csv"),
        (["data", "convert", "tiny.npz", f"{READ_ONLY}/folder"], "folder"),
    ],
)
def test_where_nothing_can_be_written(command, place):
    if command[:2] == ["models", "show"]:
        command = [*command[:2], "sequential", *command[3:]]
    assert refused(run(*command), f"{READ_ONLY}/{place}: cannot be written", "No such file or directory")


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "folder"])
def test_a_full_disk_while_data_is_written(here, name):
    with full_disk(1000):
        assert refused(
            run("data", "convert", "tiny.npz", name), f"{name}: cannot be written", "File too large"
        )
    assert [path.name for path in here.iterdir()] == ["tiny.npz"]


def test_a_full_disk_while_a_run_is_made_leaves_none(here):
    assert run("train", *OPTIONS, "--out", "start").exit_code == 0
    words = ["train", *OPTIONS, "--out", "run", "--weights", "start/best.keras"]
    with full_disk(1000):
        assert refused(run(*words), "run: cannot be written", "File too large")
    assert sorted(path.name for path in here.iterdir()) == ["start", "tiny.npz"]
    assert run(*words).exit_code == 0


#: The files that an epoch and the end of a run write.
@pytest.mark.parametrize(
    "name", ["last-0001.npz", "best-0001.keras", "best.keras", "history.png", "metrics.json"]
)
def test_a_full_disk_while_training(here, monkeypatch, name):
    """The run goes on from the last epoch that was saved whole."""
    from fertools import files

    replace = files.os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    result = run("train", *OPTIONS, "--out", "run")
    assert refused(result, f"run/{name}: cannot be written", "No space left on device")
    assert "continue with: fertools train --resume run" in result.stderr.splitlines()[-2]
    monkeypatch.setattr(files.os, "replace", replace)
    assert run("train", "--resume", "run").exit_code == 0
    assert Run(here / "run").finished
    assert not [*(here / "run").glob(".*")]


def test_a_full_disk_under_keras_and_numpy(here):
    """As before, with the error where the libraries meet it."""
    with full_disk(10_000):
        assert refused(run("train", *OPTIONS, "--out", "run"), "run/", "File too large")
    assert run("train", "--resume", "run").exit_code == 0
    assert len(Run(here / "run").history()) == 2


def test_a_full_disk_under_a_sweep(here, monkeypatch):
    """What failed cannot even be noted; that ends the sweep, and the same command continues."""
    from fertools.cli import sweep

    def train_all(jobs, engine):
        for name in jobs:
            with full_disk():
                yield name, "the disk is full"

    monkeypatch.setattr(sweep, "train_all", train_all)
    words = ["sweep", "--set", "ema=0.5", "--out", "s", *OPTIONS, "--device", "cpu"]
    assert refused(run(*words), "s/sweep.json: cannot be written", "File too large")
    assert Sweep(Path("s")).failures == {}


def test_a_full_disk_under_quickstart(here):
    with full_disk(100):
        assert refused(run("quickstart"), "quickstart/faces.png: cannot be written", "File too large")
    assert [*(here / "quickstart").iterdir()] == []


def test_a_folder_tells_of_itself_and_not_of_what_was_to_become_of_it(tmp_path):
    from fertools.files import replacing_folder, write_text

    with full_disk(), pytest.raises(WriteError) as caught, replacing_folder(tmp_path / "a") as folder:
        write_text(folder / "file", "text")
    assert str(caught.value) == (
        f"{tmp_path}/a: cannot be written (File too large); check the disk and the permissions"
    )
