"""The examples run as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import barred_faces
from tiny_model import tiny_export

from fertools.contract import INT8_FILE, LABELS
from fertools.data import write
from fertools.training import Run

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an export and a face image."""
    path = tmp_path_factory.mktemp("examples")
    tiny_export(path / "export", "float32", "int8")
    noise = np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)
    Image.fromarray(noise).save(path / "face.png")
    return path


def run(name: str, *arguments: str | Path) -> list[str]:
    """The lines that an example prints; it must succeed and say nothing else."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_predict_image(folder: Path) -> None:
    *best, engine = run("predict_image.py", folder / "face.png", folder / "export")
    assert len(best) == 3
    assert all(line.split()[0] in LABELS for line in best)
    assert "int8, CPUExecutionProvider" in engine


def test_predict_image_says_what_is_wrong(folder: Path) -> None:
    command = [sys.executable, EXAMPLES / "predict_image.py", folder / "none.png", folder / "export"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "none.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_plain_onnxruntime(folder: Path) -> None:
    lines = run("plain_onnxruntime.py", folder / "export" / INT8_FILE)
    assert len(lines) == 2
    assert all(line.split()[0] in LABELS for line in lines)


def test_share_among_threads(folder: Path) -> None:
    counts = dict(line.split() for line in run("share_among_threads.py", folder / "export"))
    assert list(counts) == list(LABELS)
    assert sum(map(int, counts.values())) == 64


def test_predict_stream(folder: Path) -> None:
    lines = [line.split() for line in run("predict_stream.py", folder / "export")]
    assert [int(number) for number, *_ in lines] == [*range(20)]
    assert lines[7][1] == "skipped:"
    assert all(line[1] in LABELS for line in lines[:7] + lines[8:])


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


#: Stands for fertools: one epoch leaves close calls, so the last layer is solved for before the export.
DECIDED = """#!{python}
import sys
from pathlib import Path

from fertools.cli import main

if sys.argv[1] == "export":
    from fertools.backend import import_keras

    import_keras()
    from small_run import MOST_WEIGHTS, solve

    from fertools.data import load
    from fertools.export import rounding
    from fertools.models import inference

    rounding.MOST_WEIGHTS = MOST_WEIGHTS

    run, faces = Path(sys.argv[2]), load("faces.npz")
    for path in (*run.glob("best.keras"), *run.glob("seed-*/best.keras")):
        network = inference.load(path)
        solve(network, network.layers[-1], faces.images, faces.labels, 6.0)
        network.save(path)
main()
"""


def run_script(tmp_path: Path, script_name: str) -> None:
    """Run a script on faces.npz, then again, which must keep what is finished."""
    script = tmp_path / "bin" / "fertools"
    script.parent.mkdir()
    script.write_text(DECIDED.format(python=sys.executable))
    script.chmod(0o755)
    environment = os.environ | {
        "PATH": os.pathsep.join([str(script.parent), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join(
            [str(EXAMPLES.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        ),
        "EPOCHS": "1",
        "OUT": "out",
    }
    command = ["bash", EXAMPLES / script_name, "faces.npz", "--batch-size", "16"]
    for again in (False, True):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("Best epoch" in done.stderr, "Verifying" in done.stderr) == (not again, not again)


@pytest.mark.slow
def test_shipped_models(tmp_path: Path) -> None:
    write(barred_faces(64, 14, 14), tmp_path / "faces.npz")
    run_script(tmp_path, "shipped_models.sh")
    out = tmp_path / "out"
    students = {
        "compact-m/seed-2": (["student-10", "compact-k"], 7),
        "student-11": (["student-10", "compact-k"], 6),
        "student-10": (["large-a", "large-b"], 4),
    }
    for name, (teachers, commands) in students.items():
        student = Run.open(out / name)
        assert student.finished
        assert [each["name"] for each in student.facts["distillation"]["teachers"]] == teachers
        assert len(student.facts["commands"]) == commands
    assert all((out / name / INT8_FILE).is_file() for name in ("compact", "sequential"))
