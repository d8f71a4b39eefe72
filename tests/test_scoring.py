"""Scoring on this machine; tests/test_scoring_ray.py has the cluster."""

import codecs
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_model import tiny_export, tiny_reference

from fertools.cli import main
from fertools.contract import LABELS
from fertools.data import synthetic, write
from fertools.errors import ConfigError, DataError, WriteError
from fertools.runtime import to_face
from fertools.scoring import Scoring, score
from fertools.scoring import scoring as module
from fertools.scoring import source as sources

pa = pytest.importorskip("pyarrow", reason="needs the extra score")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra score")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_export(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def faces():
    return synthetic.generate(40, 20, 30)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(sources, "PIECE", 16)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(out):
    """All rows, in order, as dictionaries."""
    return [row for part in sorted(out.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def answers(table):
    return np.array([[row[f"p_{label}"] for label in LABELS] for row in table], np.float32)


def run(*arguments):
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


def pictures(folder, count=20):
    """Pictures in folders and one file that is none; what `to_face` makes of them, by path."""
    random = np.random.default_rng(0)
    made = {}
    for number in range(count):
        path = folder / f"camera {number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (60, 50), dtype=np.uint8)).save(path)
        made[str(path)] = to_face(str(path))
    (folder / "camera 1" / "torn.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"not a picture")
    return made


def test_a_data_set(here, model, faces):
    write(faces, "faces.npz")
    summary = score("faces.npz", here / "out.parquet", Scoring(model))
    table = rows(here / "out.parquet")
    assert [row["row"] for row in table] == [*range(90)]
    np.testing.assert_allclose(answers(table), tiny_reference(faces.images), atol=1e-5)
    best = [LABELS[row] for row in tiny_reference(faces.images).argmax(axis=1)]
    assert [row["label"] for row in table] == best
    assert [row["truth"] for row in table] == [LABELS[label] for label in faces.labels]
    assert {row["split"] for row in table} == {"train", "validation", "test"}
    for name, value in (("path", "faces.npz"), ("box", None), ("error", None), ("model", "tiny int8")):
        assert {row[name] for row in table} == {value}
    assert (summary.rows, summary.errors) == (90, 0)
    assert sum(summary.labels.values()) == 90
    right = [row["truth"] == row["label"] for row in table if row["split"] == "test"]
    assert summary.accuracy["test"] == {"rows": 30, "value": sum(right) / 30}


def test_views_and_precision(here, model, faces):
    write(faces, "faces.npz")
    score("faces.npz", here / "out", Scoring(model, views="flip", precision="float32"))
    table = rows(here / "out")
    expected = (tiny_reference(faces.images) + tiny_reference(faces.images[:, :, ::-1])) / 2
    np.testing.assert_allclose(answers(table), expected, atol=1e-5)
    assert {row["model"] for row in table} == {"tiny float32"}


def test_the_folder_reads_as_one_table(here, model, faces):
    """What begins with an underscore or a dot is no part of it for other readers."""
    write(faces, "faces.npz")
    score("faces.npz", here / "out.parquet", Scoring(model))
    (here / "out.parquet" / ".torn.part-00000.parquet").write_bytes(b"left by a killed process")
    assert pq.read_table("out.parquet").num_rows == 90


def test_a_folder_of_pictures(here, model):
    made = pictures(here / "seen")
    summary = score("seen", here / "out", Scoring(model))
    table = rows(here / "out")
    paths = [row["path"] for row in table]
    assert paths == sorted(paths)
    assert {str(here / path) for path in paths} == {*made, str(here / "seen/camera 1/torn.png")}
    good = [row for row in table if row["error"] is None]
    expected = tiny_reference(np.stack([made[str(here / row["path"])] for row in good]))
    np.testing.assert_allclose(answers(good), expected, atol=1e-5)
    (bad,) = [row for row in table if row["error"]]
    assert "not an image file that Pillow can read" in bad["error"]
    assert bad["label"] is None
    assert bad["p_Happy"] is None
    assert (summary.rows, summary.errors, summary.accuracy) == (21, 1, {})


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\0"])
def test_a_list_of_pictures(here, model, separator):
    made = [*pictures(here / "seen")]
    names = [os.path.relpath(path) if number % 2 else path for number, path in enumerate(made)]
    (here / "list.txt").write_text(separator.join([*names, "", "missing.png"]), newline="")
    score("list.txt", here / "out", Scoring(model))
    table = rows(here / "out")
    assert [row["path"] for row in table] == [*names, "missing.png"]
    assert [bool(row["error"]) for row in table] == [False] * 20 + [True]


def test_a_list_from_windows(here, model):
    """A byte order mark is no part of the first path."""
    names = [*pictures(here / "seen")]
    (here / "list.txt").write_text("\n".join(names), encoding="utf-8-sig")
    score("list.txt", here / "out", Scoring(model))
    assert [(row["path"], row["error"]) for row in rows(here / "out")] == [(name, None) for name in names]
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        (here / "list.txt").write_bytes(mark + "\r\n".join(names).encode(encoding))
        with pytest.raises(DataError, match=r"list\.txt: the list is in UTF-16, .*; save it in UTF-8"):
            score("list.txt", here / "other", Scoring(model))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' file names are Unicode")
def test_names_that_are_not_utf8(here, model, faces):
    """Of a picture that can be read, one that cannot, and a data set."""
    folder = os.fsdecode(b"caf\xe9")
    Path(folder).mkdir()
    Image.fromarray(faces.images[0]).save(f"{folder}/a.png")
    Path(folder, os.fsdecode(b"\xe9.png")).write_bytes(b"no picture")
    assert score(folder, here / "out", Scoring(model)).errors == 1
    good, bad = rows(here / "out")
    assert (good["path"], good["error"]) == ("caf\ufffd/a.png", None)
    assert bad["path"] == "caf\ufffd/\ufffd.png"
    assert bad["error"].startswith(f"{here}/caf\ufffd/\ufffd.png: not an image file")
    write(faces, f"{folder}/faces.npz")
    score(f"{folder}/faces.npz", here / "table", Scoring(model))
    assert {row["path"] for row in rows(here / "table")} == {"caf\ufffd/faces.npz"}


def test_a_list_goes_on_only_where_its_paths_begin(here, model, monkeypatch):
    made = [*pictures(here / "seen")]
    (here / "relative.txt").write_text("\n".join([made[0], os.path.relpath(made[1])]))
    (here / "absolute.txt").write_text("\n".join(made[:2]))
    for name in ("relative", "absolute"):
        score(str(here / f"{name}.txt"), here / name, Scoring(model))
    monkeypatch.chdir(here / "seen")
    with pytest.raises(DataError, match="relative: was begun with another source"):
        score(str(here / "relative.txt"), here / "relative", Scoring(model))
    assert score(str(here / "absolute.txt"), here / "absolute", Scoring(model)).rows == 2


def test_a_link_to_nothing_is_a_row_with_its_error(here, model):
    pictures(here / "seen")
    (here / "seen" / "camera 0" / "gone.png").symlink_to("nowhere.png")
    (here / "seen" / "camera 0" / "itself.png").symlink_to("itself.png")
    (here / "seen" / "camera 0" / "gone").symlink_to("nowhere")
    for _ in range(2):  # the second time it must be the same source
        assert score("seen", here / "out", Scoring(model)).errors == 3
    why = {Path(row["path"]).name: row["error"] for row in rows(here / "out") if row["error"]}
    assert why.keys() == {"gone.png", "itself.png", "torn.png"}
    assert why["gone.png"] == f"{here}/seen/camera 0/gone.png: no such file"
    assert "cannot be read: Too many levels of symbolic links" in why["itself.png"]


def test_a_folder_that_cannot_be_read_is_named(here, model):
    """A folder inside itself: where tests run as root, no other folder is unreadable."""
    pictures(here / "seen")
    (here / "seen" / "loop").symlink_to(".")
    with pytest.raises(DataError, match=r"^seen/loop/.*: cannot be read \(Too many levels of symbolic link"):
        score("seen", here / "out", Scoring(model))


def test_a_data_set_beside_pictures_is_an_error(here, model, faces):
    """A table that is no data set does not count."""
    pictures(here / "seen")
    (here / "seen" / "labels.csv").write_text("file,emotion\n000.png,happy\n")
    (here / "seen" / "codes.npy").write_bytes(b"no array")
    assert score("seen", here / "out", Scoring(model)).rows == 21
    for number, name in enumerate(("fer2013.csv", "faces.npz", "a pair of .npy files")):
        folder = here / str(number)
        pictures(folder)
        if name.endswith(("csv", "npz")):
            write(faces, folder / name)
        else:
            np.save(folder / "faces.npy", faces.images)
            np.save(folder / "codes.npy", faces.labels)
        both = rf"^{number}: holds a data set \({name}\) and pictures \(camera 0/000\.png\); name"
        with pytest.raises(DataError, match=both):
            score(str(number), here / "other", Scoring(model))
    assert score("0/fer2013.csv", here / "other", Scoring(model)).rows == 90


def test_a_labelled_folder_tells_the_truth(here, model, faces):
    write(faces, "faces")
    (here / "faces" / "test" / "Happy" / "torn.png").write_bytes(b"")
    summary = score("faces", here / "out", Scoring(model))
    table = [row for row in rows(here / "out") if row["error"] is None]
    for row in table:
        _, split, label, _ = row["path"].split("/")
        assert (row["split"], row["truth"]) == (split, label)
    assert (summary.rows, summary.errors) == (91, 1)
    assert {split: known["rows"] for split, known in summary.accuracy.items()} == {
        "train": 40,
        "validation": 20,
        "test": 30,
    }


def test_folders_of_classes_tell_the_truth(here, model, faces):
    for row, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = here / "faces" / LABELS[label].lower() / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    summary = score("faces", here / "out", Scoring(model))
    table = rows(here / "out")
    for row in table:
        assert (row["split"], row["truth"].lower()) == (None, Path(row["path"]).parent.name)
    right = [row["truth"] == row["label"] for row in table]
    assert summary.accuracy == {"all": {"rows": 90, "value": sum(right) / 90}}


@pytest.mark.parametrize("names", [("happy", "others"), ("1", "2"), ("happy", "2")])
def test_other_folders_tell_no_truth(here, model, faces, names):
    """Numbers may be anything."""
    for name in names:
        (here / "seen" / name).mkdir(parents=True)
        Image.fromarray(faces.images[0]).save(here / "seen" / name / "a.png")
    assert score("seen", here / "out", Scoring(model)).accuracy == {}


def test_parts_without_the_classes_are_not_gone_on_with(here, model, faces, monkeypatch):
    (here / "faces" / "happy").mkdir(parents=True)
    Image.fromarray(faces.images[0]).save(here / "faces" / "happy" / "a.png")
    with monkeypatch.context() as earlier:
        earlier.setattr(sources.image_folder, "has_only_classes", lambda folder: False)
        score("faces", here / "out", Scoring(model))
    with pytest.raises(DataError, match="begun with another source"):
        score("faces", here / "out", Scoring(model))


def encoded(image):
    from io import BytesIO

    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def columns(faces):
    """The forms in which a Parquet file may hold the same images."""
    raw = [image.tobytes() for image in faces.images]
    png = [encoded(image) for image in faces.images]
    return {
        "pixels": pa.array(raw, pa.binary(2304)),
        "list": pa.array([[*each] for each in raw], pa.list_(pa.uint8())),
        "encoded": pa.array(png, pa.binary()),
        "huggingface": pa.array(
            [{"bytes": each, "path": None} for each in png],
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        ),
    }


@pytest.mark.parametrize("form", ["pixels", "list", "encoded", "huggingface"])
@pytest.mark.parametrize("group", [7, 16, 90])
def test_a_parquet_file(here, model, faces, form, group):
    labels = pa.array(faces.labels)
    names = pa.array([f"{row}.png" for row in range(90)], pa.large_string())  # as pandas 3 and polars write
    table = pa.table({"id": [*range(90)], "face": columns(faces)[form], "label": labels, "name": names})
    pq.write_table(table, "faces.parquet", row_group_size=group)
    summary = score("faces.parquet", here / "out", Scoring(model))
    table = rows(here / "out")
    assert [row["row"] for row in table] == [*range(90)]
    np.testing.assert_allclose(answers(table), tiny_reference(faces.images), atol=1e-5)
    assert [row["truth"] for row in table] == [LABELS[label] for label in faces.labels]
    assert summary.accuracy["all"]["rows"] == 90


def test_labels_of_another_column(here, model, faces):
    others = [LABELS[(label + 1) % 7] for label in faces.labels]
    table = {"face": columns(faces)["pixels"], "label": pa.array(faces.labels), "other": others}
    pq.write_table(pa.table(table), "faces.parquet")
    score("faces.parquet", here / "out", Scoring(model, label_column="other"))
    assert [row["truth"] for row in rows(here / "out")] == others


def test_labels_of_a_column_with_gaps(here, model, faces):
    """Of numbers with gaps pandas makes floats."""
    labels = [None if row == 3 else float(label) for row, label in enumerate(faces.labels)]
    labels[4], labels[5] = 0.5, float("nan")
    pq.write_table(pa.table({"face": columns(faces)["pixels"], "label": labels}), "faces.parquet")
    summary = score("faces.parquet", here / "out", Scoring(model))
    expected = [LABELS[label] for label in faces.labels]
    expected[3:6] = [None] * 3
    assert [row["truth"] for row in rows(here / "out")] == expected
    assert summary.accuracy["all"]["rows"] == 87


def test_a_missing_pixel(here, model, faces):
    lists = [[int(pixel) for pixel in image.flat] for image in faces.images[:4]]
    lists[1][7], lists[2][7] = None, 256
    pq.write_table(pa.table({"face": pa.array(lists, pa.list_(pa.int16()))}), "faces.parquet")
    score("faces.parquet", here / "out", Scoring(model))
    why = [row["error"] for row in rows(here / "out")]
    assert (why[0], why[3]) == (None, None)
    assert "pixels of dtype object are not accepted" in why[1]
    assert "pixels of dtype int64 are not accepted" in why[2]


@pytest.mark.parametrize("text", [pa.string(), pa.large_string()], ids=str)
def test_parquet_paths_and_missing_values(here, model, text):
    made = pictures(here / "seen")
    names = [os.path.relpath(path, "seen") for path in made]
    table = pa.table({"file": pa.array([*names, None], text), "who": ["x"] * 21})
    pq.write_table(table, "seen/index.parquet")
    with pytest.raises(DataError, match="no column can hold images, of file, who; name it with --image-col"):
        score("seen/index.parquet", here / "out", Scoring(model))
    score("seen/index.parquet", here / "out", Scoring(model, image_column="file"))
    table = rows(here / "out")
    np.testing.assert_allclose(answers(table[:20]), tiny_reference(np.stack([*made.values()])), atol=1e-5)
    assert table[20]["error"] == "there is no image in the row"


def test_a_folder_of_parquet_files(here, model, faces):
    table = pa.table(
        {"face": columns(faces)["pixels"], "label": [LABELS[label].lower() for label in faces.labels]}
    )
    (here / "faces").mkdir()
    pq.write_table(table[:50], "faces/a.parquet", row_group_size=20)
    pq.write_table(table[50:], "faces/b.parquet")
    summary = score("faces", here / "out", Scoring(model))
    assert [row["row"] for row in rows(here / "out")] == [*range(50), *range(40)]
    np.testing.assert_allclose(answers(rows(here / "out")), tiny_reference(faces.images), atol=1e-5)
    assert summary.accuracy["all"]["rows"] == 90


def test_a_row_a_face(here, model):
    """The astronaut's face is found, and a picture without one is a row that says so."""
    pytest.importorskip("cv2", reason="needs the extra faces")
    images = pytest.importorskip("skimage.data", reason="needs scikit-image")
    from fertools.faces import FaceFinder

    Path("seen").mkdir()
    Image.fromarray(images.astronaut()).save("seen/a.png")
    Image.fromarray(np.zeros((100, 100), np.uint8)).save("seen/b.png")
    result = run("seen", "--out", "out", "--model", model, "--find-faces", "--detector", "haar")
    assert result.exit_code == 0, result.stderr
    (*found, nothing) = rows(here / "out")
    faces = FaceFinder("haar").find("seen/a.png")
    assert len(faces) > 0
    assert [tuple(row["box"]) for row in found] == [face.box for face in faces]
    assert [row["face_confidence"] for row in found] == pytest.approx([face.confidence for face in faces])
    np.testing.assert_allclose(answers(found), tiny_reference(np.stack([f.crop for f in faces])), atol=1e-5)
    assert (nothing["path"], nothing["box"], nothing["error"]) == ("seen/b.png", None, "no face found")
    with pytest.raises(DataError, match="begun with another face finder"):
        score("seen", here / "out", Scoring(model))
    certain = Scoring(model, find_faces=True, detector="haar", min_confidence=1)
    score("seen", here / "certain", certain)
    assert [row["error"] for row in rows(here / "certain")] == ["no face found"] * 2


def test_another_detector_file_is_an_error(here, model, yunet, monkeypatch):
    pytest.importorskip("cv2", reason="needs the extra faces")
    pictures(here / "seen")
    (here / "a.onnx").write_bytes(Path(yunet).read_bytes())
    # Another file of the same network: a protobuf may have a field (here the producer's version) again.
    (here / "b.onnx").write_bytes(Path(yunet).read_bytes() + b"\x1a\x01x")
    how = Scoring(model, find_faces=True, detector="a.onnx")
    score("seen", here / "out", how)
    with pytest.raises(DataError, match="begun with another detector"):
        score("seen", here / "out", Scoring(model, find_faces=True, detector="b.onnx"))
    monkeypatch.setenv("FERTOOLS_DETECTOR", "b.onnx")
    with pytest.raises(DataError, match="begun with another detector"):
        score("seen", here / "out", Scoring(model, find_faces=True))
    assert score("seen", here / "out", how).rows == 21


class KilledError(Exception):
    pass


def stop_after(parts):
    def progress(there, parts_in_all, rows):
        if there >= parts:
            raise KilledError

    return progress


def test_it_goes_on_with_what_is_missing(here, model):
    pictures(here / "seen", 60)
    score("seen", here / "whole", Scoring(model))
    with pytest.raises(KilledError):
        score("seen", here / "out", Scoring(model), progress=stop_after(2))
    assert len([*(here / "out").glob("part-*")]) == 2
    (here / "out" / "part-00000.parquet").unlink()
    half, written_now = (here / "out" / f".{name}.part-00002.parquet" for name in "xy")
    half.write_bytes(b"half")
    os.utime(half, (0, 0))
    written_now.write_bytes(b"of another process")
    kept = (here / "out" / "part-00001.parquet").stat().st_ino
    score("seen", here / "out", Scoring(model))
    assert rows(here / "out") == rows(here / "whole")
    assert (here / "out" / "part-00001.parquet").stat().st_ino == kept
    assert [*(here / "out").glob(".*")] == [written_now]
    again = []
    score("seen", here / "out", Scoring(model), progress=lambda *told: again.append(told))
    assert again == [(4, 4, 0)]


@pytest.mark.parametrize(
    ("fails", "error", "seen"),
    [
        ("write_table", OSError(28, "No space left on device"), WriteError),
        ("write_table", KeyboardInterrupt(), KeyboardInterrupt),
        ("close", OSError(28, "No space left on device"), WriteError),
    ],
)
def test_a_part_whose_end_is_not_written(here, model, monkeypatch, fails, error, seen):
    """It does not appear, and the next scoring writes it."""
    pictures(here / "seen")
    real = getattr(pq.ParquetWriter, fails)

    def failing(self, *given):
        if fails == "close":
            real(self)  # else pyarrow does it later, when nobody expects it
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(pq.ParquetWriter, fails, failing)
        with pytest.raises(seen):
            score("seen", here / "out", Scoring(model))
    assert not [*(here / "out").glob("*part-*")]
    assert score("seen", here / "out", Scoring(model)).rows == 21


KILLED = """
import os, signal, sys
from fertools.scoring import Scoring, score, source
source.PIECE = 16
def progress(there, parts, rows):
    if there == 3:
        os.kill(os.getpid(), signal.SIGKILL)
score("seen", __import__("pathlib").Path("out"), Scoring(sys.argv[1]), progress=progress)
"""


def test_killed_for_real(here, model):
    pictures(here / "seen", 60)
    done = subprocess.run([sys.executable, "-c", KILLED, model])
    assert done.returncode == -signal.SIGKILL
    score("seen", here / "out", Scoring(model))
    paths = [row["path"] for row in rows(here / "out")]
    assert len(paths) == len({*paths}) == 61


def test_another_source_or_model_is_an_error(here, model, faces):
    write(faces, "faces.npz")
    pictures(here / "seen")
    score("seen", here / "out", Scoring(model))
    other = str(tiny_export(here / "other", seed=1))
    for source, how, what in (
        ("faces.npz", Scoring(model), "source"),
        ("seen", Scoring(other), "model"),
        ("seen", Scoring(model, views="flip"), "views"),
    ):
        with pytest.raises(
            DataError, match=f"out: was begun with another {what} .*take the same, or another --out"
        ):
            score(source, here / "out", how)
    with pytest.raises(DataError, match=r"\(tiny int8, sha256 \w{12}, not tiny int8, sha256 \w{12}\)"):
        score("seen", here / "out", Scoring(other))
    pictures(here / "seen", 21)
    with pytest.raises(DataError, match=r"begun with another source \(seen, sha256 \w{12}, not seen, "):
        score("seen", here / "out", Scoring(model))
    assert len(rows(here / "out")) == 21


def test_what_cannot_be_scored(here, model):
    pictures(here / "seen")
    (here / "empty").mkdir()
    (here / "empty.txt").write_text("\n")
    (here / "torn.parquet").write_bytes(b"PAR1")
    for source, message in (
        ("nothing", "nothing: no such file or folder"),
        ("empty", "empty: no data set in this folder"),
        ("empty.txt", "empty.txt: the list is empty"),
        ("torn.parquet", "torn.parquet: not a readable Parquet file"),
    ):
        with pytest.raises(DataError, match=message):
            score(source, here / "out", Scoring(model))
    with pytest.raises(ConfigError, match="seen: not a Parquet file"):
        score("seen", here / "out", Scoring(model, image_column="x"))
    with pytest.raises(DataError, match="seen: holds other things"):
        score("seen", here / "seen", Scoring(model))


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 40), max_size=12))
def test_row_groups_fall_into_pieces_without_loss(counts):
    pieces = [*sources._together(counts)]
    groups = [group for _, held in pieces for group in held]
    held = sum(counts[group] for group in groups)
    assert groups == sorted({*groups})
    assert held == sum(counts)
    assert [first for first, _ in pieces] == [sum(counts[: held[0]]) for _, held in pieces]


@pytest.mark.parametrize(
    ("provider", "gpus"),
    [
        ("auto", 0),
        ("cpu", 0),
        ("openvino", 0),
        ("cuda", 1),
        ("tensorrt", 1),
        ("CPUExecutionProvider", 0),
        ("CUDAExecutionProvider", 1),
        ("TensorrtExecutionProvider", 1),
    ],
)
def test_an_actor_on_a_gpu_reserves_it(monkeypatch, provider, gpus):
    ray = MagicMock()
    ray.cluster_resources.return_value = {"CPU": 2}
    monkeypatch.setattr(module, "connected", lambda address: nullcontext(ray))
    assert [*module._on_ray(MagicMock(), [0], Scoring(provider=provider, engine="ray"))] == []
    assert ray.data.from_items.return_value.map_batches.call_args.kwargs["num_gpus"] == gpus


def test_the_command(here, model):
    pictures(here / "seen")
    result = run("seen", "--out", "out", "--model", model, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["rows"], document["errors"]) == (21, 1)
    assert sum(document["shares"].values()) == pytest.approx(1)
    assert json.loads((here / "out" / "_summary.json").read_text()).items() <= document.items()
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Wrote 21 rows to out/")
    assert lines[1] == "1 rows have no answer; their column error says why."
    next_command = shlex.split(lines[2].removeprefix("Next: "))
    shown = subprocess.run([sys.executable, *next_command[1:]], capture_output=True, text=True, check=True)
    assert "'path': 'seen" in shown.stdout
    text = run("seen", "--out", "out", "--model", model)
    assert text.stdout.splitlines()[0] == "21 rows, 1 without an answer"
    assert text.stderr.splitlines()[0] == "Wrote 0 rows to out/; 21 were there before."


def test_usage(here, model):
    assert run("seen", "--out", "o", "--address", "auto").exit_code == 2
    assert run("seen").exit_code == 2
    assert run("seen", "--out", "o", "--detector", "haar").exit_code == 2
    result = run("nothing", "--out", "o", "--model", model)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: nothing: no such file or folder")


MEMORY = """
import resource, sys
from pathlib import Path
from fertools.scoring import Scoring, score
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
sizes = []
score("faces.parquet", Path("out"), Scoring(sys.argv[1]), progress=lambda *told: sizes.append(resident()))
print(max(sizes[2:5]), max(sizes))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_memory_does_not_grow(here, model):
    """60,000 rows, 140 MB of pixels: benchmarks/score.py does the same with 2,000,000."""
    random = np.random.default_rng(0)
    schema = pa.schema([("face", pa.binary(2304))])
    with pq.ParquetWriter("faces.parquet", schema, compression="none") as file:
        for _ in range(15):
            images = random.integers(0, 256, (4000, 2304), dtype=np.uint8)
            file.write_table(pa.table({"face": pa.array([*map(bytes, images)], pa.binary(2304))}))
    done = subprocess.run([sys.executable, "-c", MEMORY, model], capture_output=True, text=True, check=True)
    early, most = map(float, done.stdout.split())
    assert most < early + 40
