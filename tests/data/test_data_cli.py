import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fertools import data
from fertools.cli import main
from fertools.errors import ConfigError, DataError


def run(*arguments):
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture
def odd():
    """A blank image twice, one face in all three splits with two labels, another in test."""
    faces = data.synthetic.generate(2, 0, 0).images
    blank = np.zeros((48, 48), np.uint8)
    images = np.stack([blank, blank, faces[0], faces[0], faces[0], faces[1]])
    labels = np.array([0, 1, 2, 3, 2, 6], np.uint8)
    return data.Dataset("odd", images, labels, np.array([0, 0, 0, 1, 2, 2], np.uint8), ("a note",))


def test_inspect(odd):
    found = data.inspect(odd)
    assert (found.rows, found.distinct, found.blank, found.conflicts) == (6, 3, 2, 1)
    assert found.repeated == {"train": 1, "validation": 0, "test": 0}
    assert found.shared == {"validation in train": 1, "test in train": 1, "test in validation": 1}
    assert found.counts["test"] == dict.fromkeys(("Angry", "Disgust", "Happy", "Sad", "Surprise"), 0) | {
        "Fear": 1,
        "Neutral": 1,
    }
    assert found.fingerprint == odd.fingerprint
    assert "a note" in found.to_text()
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_inspect_fer2013(fer2013):
    found = data.inspect(fer2013)
    assert (found.rows, found.distinct, found.blank, found.conflicts) == (35_887, 34_034, 12, 56)
    assert found.shared == {"validation in train": 280, "test in train": 288, "test in validation": 44}
    assert list(found.counts["train"].values()) == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert len(fer2013.deduplicated("test")) == 3275


def test_info(odd, tmp_path):
    data.write(odd, tmp_path / "odd.npz")
    text = run("info", tmp_path / "odd.npz")
    assert text.exit_code == 0
    assert text.stdout.startswith("odd.npz: 6 images, 3 distinct\n")
    assert odd.fingerprint in text.stdout
    parsed = json.loads(run("info", tmp_path / "odd.npz", "--json").stdout)
    assert parsed["shared"]["test in train"] == 1


def test_preview(tmp_path, small):
    data.write(small, tmp_path / "a.npz")
    result = run(
        "preview", tmp_path / "a.npz", "--plot", tmp_path / "grid.png", "--split", "test", "--per-class", 4
    )
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "fertools data info" in result.stderr
    with Image.open(tmp_path / "grid.png") as grid:
        assert np.array_equal(grid, data.preview(small, "test", 4))


def test_preview_is_a_png(tmp_path, small):
    data.write(small, tmp_path / "a.npz")
    before = (tmp_path / "a.npz").read_bytes()
    result = run("preview", tmp_path / "a.npz", "--plot", tmp_path / "a.npz")
    assert result.exit_code == 2
    assert "the picture is a .png file" in result.stderr
    assert (tmp_path / "a.npz").read_bytes() == before


def test_preview_shows_images_of_the_split(small):
    grid = np.asarray(data.preview(small, "validation", 2))
    shown = [grid[4 + 100 * row : 100 + 100 * row : 2, 72:168:2] for row in range(7)]
    faces = small.split("validation")
    for label, face in enumerate(shown):
        own = faces.images[faces.labels == label]
        assert (own == face).all(axis=(1, 2)).any() if len(own) else (face == 255).all()
    with pytest.raises(ConfigError, match=r"1\.\.100"):
        data.preview(small, per_class=0)


def test_convert(tmp_path, small):
    data.write(small, tmp_path / "a.npz")
    result = run("convert", tmp_path / "a.npz", tmp_path / "b.csv")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "fertools train --data" in result.stderr
    assert data.read(tmp_path / "b.csv").fingerprint == small.fingerprint
    again = run("convert", tmp_path / "a.npz", tmp_path / "b.csv")
    assert again.exit_code == 1
    assert "b.csv: exists already; choose another name, or replace it with --force\n" in again.stderr
    assert run("convert", tmp_path / "a.npz", tmp_path / "b.csv", "--force").exit_code == 0


def test_all_unreadable_images_are_named(tmp_path, small):
    data.write(small, tmp_path / "faces")
    files = sorted((tmp_path / "faces" / "train").rglob("*.png"), key=lambda file: file.stem)
    for file in files[:12]:
        file.write_bytes(b"broken")
    result = run("info", tmp_path / "faces")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    for file in files[:10]:
        assert f"{file}: not an image file" in result.stderr
    assert result.stderr.endswith("; and 2 more; replace or remove these files\n")


def test_faults_are_one_line(tmp_path, small):
    result = run("info", tmp_path / "missing.npz")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/missing.npz: no such file")
    assert result.stderr.count("\n") == 1
    data.write(small, tmp_path / "a.npz")
    blocked = run("preview", tmp_path / "a.npz", "--plot", tmp_path / "a.npz" / "grid.png")
    assert blocked.exit_code == 1
    assert "cannot be written" in blocked.stderr
    assert DataError.__name__ not in blocked.stderr
