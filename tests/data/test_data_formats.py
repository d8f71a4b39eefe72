"""Every format gives back what was written, and damage is always a DataError."""

import contextlib
import hashlib
import io
import itertools
import zipfile

import numpy as np
import pytest
from data_checks import same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fertools import data
from fertools.contract import LABELS
from fertools.errors import DataError, WriteError

quick = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def datasets(draw):
    rows = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    high = draw(st.sampled_from([1, 2, 256]))
    return data.Dataset(
        "drawn",
        random.integers(0, high, (rows, 48, 48), dtype=np.uint8),
        random.integers(0, 7, rows, dtype=np.uint8),
        random.integers(0, 3, rows, dtype=np.uint8),
    )


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "folder"])
@quick
@given(dataset=datasets())
def test_round_trip(name, tmp_path, dataset):
    # A folder is only recognised by its train or test images.
    usage = dataset.usage.copy()
    usage[0] = 0
    dataset = data.Dataset("drawn", dataset.images, dataset.labels, usage)
    data.write(dataset, tmp_path / name, overwrite=True)
    again = data.read(tmp_path / name)
    assert same(again, dataset)
    assert again.name == name


def test_csv_to_folder_to_npz_to_csv(small, tmp_path):
    chain = ["1.csv", "folder", "2.npz", "3.csv"]
    data.write(small, tmp_path / chain[0])
    for source, destination in itertools.pairwise(chain):
        data.write(data.read(tmp_path / source), tmp_path / destination)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "3.csv").read_bytes()


def test_same_data_same_npz_bytes(small, tmp_path):
    data.write(small, tmp_path / "a.npz")
    data.write(small, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_written_folder_names_splits_classes_and_rows(small, tmp_path):
    data.write(small, tmp_path / "faces")
    row = 12
    split, name = data.SPLITS[small.usage[row]], LABELS[small.labels[row]]
    with Image.open(tmp_path / "faces" / split / name / "00000012.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), small.images[row])


def test_fer2013_as_csv_is_the_organisers_file(fer2013, tmp_path):
    path = tmp_path / "fer2013.csv"
    data.write(fer2013, path)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "md5").hexdigest() == "f8428a1edbd21e88f42c73edd2a14f95"
    assert path.stat().st_size == 301_072_766
    assert same(data.read(path), fer2013)
    path.unlink()


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "folder"])
def test_writing_never_overwrites_unasked(name, small, tmp_path):
    data.write(small, tmp_path / name)
    with pytest.raises(DataError, match="exists already"):
        data.write(small, tmp_path / name)
    smaller = data.synthetic.generate(7, 0, 7)
    data.write(smaller, tmp_path / name, overwrite=True)
    assert same(data.read(tmp_path / name), smaller)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_of_other_things_is_never_replaced(small, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").touch()
    with pytest.raises(DataError, match="other things"):
        data.write(small, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "letter.txt").exists()


@pytest.mark.parametrize("name", ["faces.npy", "faces.png", "file/inside"])
def test_destinations_that_cannot_be(name, small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises((DataError, WriteError), match=name):
        data.write(small, tmp_path / name)


def stored(name, small):
    content = io.BytesIO()
    if name == "a.npz":
        np.savez_compressed(content, images=small.images[:3], labels=small.labels[:3], usage=small.usage[:3])
        return content.getvalue()
    few = (
        f"{label},{' '.join(map(str, image.ravel()))},Training\n"
        for image, label in zip(small.images[:3], small.labels, strict=False)
    )
    return ("emotion,pixels,Usage\n" + "".join(few)).encode()


@pytest.mark.parametrize("name", ["a.csv", "a.npz"])
@settings(quick, max_examples=150)
@given(damage=st.data())
def test_damaged_files_are_read_or_refused(name, small, save, damage):
    content = bytearray(stored(name, small))
    for _ in range(damage.draw(st.integers(1, 3))):
        place = damage.draw(st.integers(0, len(content) - 1) | st.integers(0, 60))
        piece = damage.draw(
            st.binary(max_size=4) | st.sampled_from([b",", b"-", b" 256 ", b"\n", b"\0", b'"'])
        )
        content[place : place + damage.draw(st.integers(0, 4))] = piece
    content = content[: damage.draw(st.just(None) | st.integers(0, len(content)))]
    path = save(name, bytes(content))
    with contextlib.suppress(DataError):
        assert len(data.read(path)) <= 4


@settings(quick, max_examples=60)
@given(content=st.binary(max_size=300), suffix=st.sampled_from([".csv", ".npz", ".npy", ".txt", ""]))
def test_junk_is_refused(content, suffix, save):
    path = save("junk" + suffix, content)
    with pytest.raises(DataError, match=r"junk|\.npy files"):
        data.read(path)
