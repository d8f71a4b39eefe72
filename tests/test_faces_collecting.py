"""From folders of photos by class to a data set of crops, on a portrait in the public domain."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from fertools import data
from fertools.cli import main
from fertools.errors import DataError
from fertools.faces import FaceFinder
from fertools.faces.collecting import Collection, collect

pytest.importorskip("cv2", reason="OpenCV is not installed (the extra faces)")
skimage_data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")


def boxes(pixels: np.ndarray) -> list[tuple[int, int, int, int]]:
    """A detector that knows the portraits by the blue of their first pixel: so many faces, so large."""
    count, size = divmod(int(pixels[0, 0, 2]), 100)
    return [(20 + 10 * number, 20, size, size) for number in range(count)]


def photo(path: Path, count: int, size: int, shade: int = 100) -> None:
    """A picture in which ``boxes`` finds ``count`` faces, ``size`` pixels across."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((200, 200, 3), shade, np.uint8)
    pixels[20:120, 20:120] = np.random.default_rng(shade).integers(0, 256, (100, 100, 1))
    pixels[0, 0] = (0, 0, 100 * count + size)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    src = tmp_path / "photos"
    for number in range(5):
        photo(src / "happy" / f"{number}.png", 1, 80, 10 + number)
        photo(src / "Anger" / f"{number}.png", 1, 60, 30 + number)
    photo(src / "happy" / "nobody.png", 0, 0, 50)
    photo(src / "happy" / "two.png", 2, 50, 51)
    photo(src / "happy" / "small.png", 1, 20, 52)
    photo(src / "happy" / "again.png", 1, 80, 10)
    (src / "happy" / "notes.txt").write_text("no photo")
    (src / "happy" / ".hidden").write_text("not looked at")
    (src / "LICENCE").write_text("not looked at")
    return src


def test_one_face_a_photo(folder: Path) -> None:
    done: list[tuple[int, int]] = []
    found = collect(folder, FaceFinder(boxes), progress=lambda *numbers: done.append(numbers))
    assert done == [(number, 15) for number in range(1, 16)]
    assert np.bincount(found.dataset.labels).tolist() == [5, 0, 0, 5]
    assert found.dataset.counts == {"train": 8, "validation": 0, "test": 2}
    assert {each.path: each.reason.partition(" (")[0] for each in found.left_out} == {
        "happy/again.png": "duplicate",
        "happy/nobody.png": "no face",
        "happy/notes.txt": "unreadable",
        "happy/small.png": "too small",
        "happy/two.png": "several faces",
    }
    assert sum(found.reasons.values()) == 5
    assert len(collect(folder, FaceFinder(boxes), smallest=10).left_out) == 4


def test_splits_are_kept(tmp_path: Path) -> None:
    for split, shade in (("train", 1), ("valid", 2), ("test", 3)):
        photo(tmp_path / split / "sad" / "a.png", 1, 80, shade)
    found = collect(tmp_path, FaceFinder(boxes))
    assert found.dataset.counts == {"train": 1, "validation": 1, "test": 1}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "no photos in folders named by class"),
        (("cats/a.png",), "its name is no class"),
        (("train/sad/a.png", "happy/a.png"), "holds train/ beside happy/"),
    ],
)
def test_other_folders_are_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        photo(tmp_path / name, 1, 80)
    with pytest.raises(DataError, match=said):
        collect(tmp_path, FaceFinder(boxes))


def test_no_face_at_all_is_an_error(tmp_path: Path) -> None:
    photo(tmp_path / "sad" / "a.png", 0, 0)
    with pytest.raises(DataError, match="none of the 1 photos has one face"):
        collect(tmp_path, FaceFinder(boxes))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the detector that needs no file, on a portrait and its mirror."""
    monkeypatch.delenv("FERTOOLS_DETECTOR", raising=False)
    portrait = Image.fromarray(skimage_data.astronaut())
    src = tmp_path / "src"
    (src / "happy").mkdir(parents=True)
    portrait.save(src / "happy" / "portrait.png")
    ImageOps.mirror(portrait).save(src / "happy" / "mirror.png")
    portrait.save(src / "happy" / "second.png")
    Image.new("RGB", (300, 300)).save(src / "happy" / "black.png")
    done = CliRunner().invoke(main, ["data", "faces", str(src), str(tmp_path / "mine.npz"), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert sum(document["images"].values()) == 2
    assert len(data.read(tmp_path / "mine.npz")) == 2
    assert (tmp_path / "mine-faces.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "mine-left-out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["photo"] for row in rows} == {"happy/black.png", "happy/second.png"}
    assert rows == [{"photo": each["path"], "reason": each["reason"]} for each in document["left_out"]]
    assert "fertools adapt" not in done.stderr
    counts = data.load(tmp_path / "mine.npz").counts
    assert f"it takes {7 - counts['train']} more train images and " in done.stderr
    again = CliRunner().invoke(main, ["data", "faces", str(src), str(tmp_path / "mine.npz")])
    assert again.exit_code == 1
    assert again.stderr == (
        f"Error: {tmp_path / 'mine.npz'}: exists already; choose another name, or replace it with --force\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "photos", "--force"], "photos: would replace photos, which it is made of"),
        (["photos/train", "photos", "--force"], "photos: would replace photos/train, which it is made of"),
        (["photos", "new.npz"], "new-left-out.csv: exists already"),
        (["photos", "new.zip"], "new.zip: cannot write .zip files"),
    ],
)
def test_what_would_be_lost_or_fail_is_told_before_any_work(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fertools.faces.collecting.collect", MagicMock(side_effect=AssertionError))
    (tmp_path / "photos" / "train" / "happy").mkdir(parents=True)
    (tmp_path / "new-left-out.csv").write_text("my notes")
    done = CliRunner().invoke(main, ["data", "faces", *words])
    assert done.exit_code == 1
    assert message in done.stderr


def test_enough_faces_are_for_adapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FERTOOLS_DETECTOR", raising=False)
    monkeypatch.chdir(tmp_path)
    faces = data.synthetic.generate(14, 7, 1)
    monkeypatch.setattr("fertools.faces.collecting.collect", lambda *_, **__: Collection(faces, ()))
    done = CliRunner().invoke(main, ["data", "faces", "src", "my faces.npz"])
    assert done.stderr.splitlines()[-1] == "Next: fertools adapt 'my faces.npz'"
