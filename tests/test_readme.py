"""What the README says is so: its generated blocks, its commands, its Python."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from readme import EXPORTED, README, ROOT
from small_run import small_faces, small_network, trained_network, write_run

from fertools.cli import main
from fertools.data import write
from fertools.models import NETWORKS, Network

TEXT = README.read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks in ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_the_generated_blocks_are_current() -> None:
    # In a process of its own: click keeps the help option that a command was first called with.
    code = "from readme import README, current; text = README.read_text(); assert current(text) == text"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert done.returncode == 0, "run python tests/readme.py"


def test_continuous_integration_runs_both_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    first, second = (block.strip() for block in blocks("sh")[1:3])
    assert second in script.splitlines()
    assert first.rpartition("&& ")[2] in script


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README names: data, a finished run and a face."""
    path = tmp_path_factory.mktemp("readme")
    faces = small_faces()
    write(faces, path / "fer2013.csv")
    write_run(path / "runs" / "mine", trained_network(faces), faces)
    Image.fromarray(faces.split("test").images[0]).save(path / "face.png")
    (path / "exported").mkdir()
    for shipped in EXPORTED.iterdir():
        (path / "exported" / shipped.name).symlink_to(shipped)
    return path


def test_every_command_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, on small data; training is cut short, and the run that later commands want is at hand."""
    monkeypatch.chdir(folder)
    small = Network(name="small", text="", build=small_network, parameters=20_167, multiply_adds=0)
    monkeypatch.setitem(NETWORKS, "small", small)  # so that it may be a teacher
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("fertools ")]
    assert len(lines) >= 9
    for line in lines:
        arguments = shlex.split(line)[1:]
        if arguments[0] in ("train", "distill"):
            arguments = [*arguments, "--epochs", "1"]
        if arguments[0] == "train":
            arguments[arguments.index("runs/mine")] = "runs/trained-here"
        if arguments[0] == "verify" and arguments[1] in ("exported/sequential", "exported/compact"):
            continue  # they know real faces: tests/test_shipped_model.py verifies them on those
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, f"{line}: {result.output}"


def test_the_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "CPUExecutionProvider" in capsys.readouterr().out


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_readme_names_no_number_without_its_source() -> None:
    """Accuracies stand in the generated tables alone."""
    outside = re.sub(r"<!-- begin (result|peers) -->.*?<!-- end \1 -->", "", TEXT, flags=re.DOTALL)
    assert not re.findall(r"\d\d\.\d+ ?%", outside)
    assert np.all([name in TEXT for name in ("PrivateTest", "de-duplicated")])
