"""Terminals of any encoding, file names of any bytes and length, and Ctrl-C at any time."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_model import tiny_export

from fertools import data
from fertools.__main__ import interrupted, run
from fertools.cli import main

#: What Latin-1 lacks, and bytes that are no UTF-8 at all.
NAMES = ("☺.png", os.fsdecode(b"\xff\xfe.png"), "a\nb.png")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii", "cp1252"])
@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_file_names_that_the_encoding_lacks(tmp_path, monkeypatch, name, encoding, as_json):
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(file, format="PNG")
    tiny_export(tmp_path / "model")
    words = ["predict", name, f"missing {name}", "--model", "model", *as_json]
    result = CliRunner(charset=encoding).invoke(main, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "no such file" in result.stderr
    assert result.stdout
    if as_json:
        assert [each["path"] for each in json.loads(result.stdout)] == words[1:3]


LONG = "x" * 300


@pytest.mark.parametrize(
    "command",
    [
        ["data", "convert", "synthetic.npz", f"{LONG}.csv"],
        ["data", "convert", "synthetic.npz", LONG],
        ["data", "info", f"{LONG}.csv"],
        ["data", "preview", "synthetic.npz", "--plot", f"{LONG}.png"],
        ["predict", LONG, "--model", "model"],
        ["predict", "face.png", "--model", LONG],
        ["evaluate", LONG],
        ["evaluate", f"{LONG}.keras"],
        ["compare", LONG],
        ["export", LONG],
        ["verify", LONG],
        ["benchmark", LONG],
        ["ensemble", LONG, LONG],
        ["train", "--resume", LONG],
        ["train", "--out", LONG, "--data", "synthetic.npz"],
        ["sweep", "--set", "ema=0.5", "--out", LONG, "--data", "synthetic.npz"],
        ["info", "--model", LONG],
    ],
    ids=lambda command: " ".join(command).replace(LONG, "LONG"),
)
def test_names_that_are_too_long(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    data.write(data.synthetic.generate(14, 7, 7), "synthetic.npz")
    Image.fromarray(np.zeros((48, 48), np.uint8)).save("face.png")
    tiny_export(tmp_path / "model")
    result = CliRunner().invoke(main, command)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "File name too long" in result.stderr.splitlines()[-1]
    assert LONG in result.stderr.splitlines()[-1]


def test_a_name_as_long_as_may_be_is_written(tmp_path):
    name = "y" * 251 + ".csv"
    data.write(data.synthetic.generate(14, 7, 7), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


class Interrupting:
    """Ctrl-C, or what a library makes of it, while ``fertools.cli`` is imported."""

    def __init__(self, *errors):
        self.errors = errors

    def find_spec(self, name, path, target=None):
        if name == "fertools.cli":
            try:
                raise self.errors[0]
            except BaseException as error:
                raise self.errors[-1] from (None if error is self.errors[-1] else error)


@pytest.mark.parametrize("errors", [(KeyboardInterrupt(),), (KeyboardInterrupt(), ImportError("multiarray"))])
def test_an_interrupted_import_ends_with_one_line(monkeypatch, capsys, errors):
    monkeypatch.delitem(sys.modules, "fertools.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(*errors), *sys.meta_path])
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 130
    assert capsys.readouterr() == ("", "Aborted!\n")


def test_an_error_of_an_import_is_not_hidden(monkeypatch):
    monkeypatch.delitem(sys.modules, "fertools.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupting(ImportError("broken")), *sys.meta_path])
    with pytest.raises(ImportError, match="broken"):
        run()
    assert not interrupted(None)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_behind_stdout():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fertools", "models", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")
