"""Only regular files are read, wherever a file is given to us."""

import numpy as np
import pytest
from click.testing import CliRunner
from hostile import SPECIAL, make_special
from PIL import Image
from tiny_model import tiny_export

from fertools import data
from fertools.cli import main
from fertools.errors import DataError, ImageError, ModelError, RunError
from fertools.export.subject import read_origin
from fertools.reading import open_regular, read_bytes
from fertools.runtime import Predictor, to_face
from fertools.training import Run, TrainConfig
from fertools.training.sweep import Sweep

WHAT = {"fifo": "a FIFO", "device": "a device", "socket": "a socket"}


def test_regular_files_and_links_to_them(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        assert read_bytes(tmp_path / name, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 0 MiB"):
        read_bytes(tmp_path / "a", 4)


def test_what_is_missing_or_a_folder_stays_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_refused_everywhere(kind, tmp_path):
    """Before they are opened: the test would hang, or end for want of memory."""

    def special(name):
        (tmp_path / name).parent.mkdir(parents=True)
        return make_special(kind, tmp_path / name)

    said = f"{WHAT[kind.split()[-1]]}, not a regular file"
    with pytest.raises(ImageError, match=said):
        to_face(special("face/a.png"))
    for suffix in ("csv", "npz", "npy"):
        with pytest.raises(DataError, match=f"{said}|not a data set"):
            data.read(special(f"{suffix}/a.{suffix}"))
    if kind != "device":
        special("folder/train/happy/a.png")
        with pytest.raises(DataError, match=rf"a\.png.*{said};.* replace or remove"):
            data.read(tmp_path / "folder")
    with pytest.raises(ModelError, match="no such model"):
        Predictor(special("model/model.onnx"))
    with pytest.raises(ModelError, match="holds neither"):
        Predictor(tmp_path / "model")
    export = special("export/report.json").parent
    if kind != "device":
        with pytest.raises(ModelError, match="not the report of an export"):
            read_origin(export)


@pytest.mark.parametrize("kind", ["fifo", "link to a device"])
def test_special_files_in_a_run_or_a_sweep(kind, tmp_path):
    facts = {name: {} for name in ("device", "precision", "versions", "commands")}
    facts |= {"data": {"source": "s", "name": "n", "fingerprint": "f"}}
    run = Run.create(tmp_path / "run", TrainConfig(), facts)
    for name, read in (("history.csv", Run.history), ("run.json", lambda run: run.facts)):
        (run.path / name).unlink(missing_ok=True)
        make_special(kind, run.path / name)
        with pytest.raises(RunError, match=f"{name}: .*not a regular file"):
            read(run)
    make_special(kind, tmp_path / "sweep.json")
    with pytest.raises(RunError, match="not a regular file"):
        Sweep(tmp_path).configs  # noqa: B018


@pytest.mark.parametrize("kind", SPECIAL)
def test_predict_names_a_special_file_and_goes_on(kind, tmp_path):
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "face.png")
    special = make_special(kind, tmp_path / "special.png")
    model = tiny_export(tmp_path / "model")
    result = CliRunner().invoke(
        main, ["predict", f"{tmp_path}/face.png", f"{special}", "--model", f"{model}"]
    )
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{tmp_path}/face.png\t")
    assert len(result.stdout.splitlines()) == len(result.stderr.splitlines()) == 1
    assert "not a regular file" in result.stderr
