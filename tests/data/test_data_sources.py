import os
import zipfile

import numpy as np
import pytest
from data_checks import same
from PIL import Image

from fertools import data
from fertools.contract import LABELS
from fertools.errors import DataError


def picture(path, grey, size=(48, 48), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)


def test_class_folders_go_by_name_not_by_place(tmp_path):
    names = {"Angry": 0, "disgusted": 1, "FEARFUL": 2, "happiness": 3, "4": 4, "surprised": 5, "neutral": 6}
    for name, label in names.items():
        picture(tmp_path / "train" / name / "x.png", 10 * label)
    picture(tmp_path / "valid" / "anger" / "x.jpg", 128, (200, 100), "RGB")
    picture(tmp_path / "TEST" / "sad" / "x.png", 200, (20, 30))
    (tmp_path / "README.txt").touch()
    (tmp_path / "train" / ".DS_Store").touch()
    (tmp_path / "train" / "Angry" / "Thumbs.db").touch()
    dataset = data.read(tmp_path)
    assert dataset.labels.tolist() == [0, 1, 2, 3, 4, 5, 6, 0, 4]
    assert dataset.usage.tolist() == [0] * 7 + [1, 2]
    assert dataset.images[:, 0, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 128, 200]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("train/joyful/a.png", "unknown folder name; accepted.*angry.*happiness"),
        ("dev/happy/a.png", "holds train/ beside dev/; .*train, validation"),
        ("sad/a.png", "holds train/ beside sad/; put all classes into splits"),
        ("val/happy/a.png", "same split"),
        ("train/a.png", "unknown folder name"),
        ("train/happy/a.txt", "not an image file"),
        ("train/happy/empty.png", "empty.png: the file is empty"),
    ],
)
def test_folder_faults_are_named(bad, message, tmp_path):
    picture(tmp_path / "train" / "happy" / "fine.png", 1)
    picture(tmp_path / "validation" / "happy" / "fine.png", 1)
    picture((tmp_path / bad).with_suffix(".png"), 1)
    (tmp_path / bad).write_bytes(b"" if "empty" in bad else b"no picture")
    with pytest.raises(DataError, match=message):
        data.read(tmp_path)


def by_class(folder, faces, name="{:03}.png"):
    """Write images into folders named by class, without splits."""
    for row, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        path = folder / LABELS[label].lower() / name.format(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def test_class_folders_without_splits(tmp_path, small):
    by_class(tmp_path / "mine", small)
    (tmp_path / "mine" / "README.txt").touch()
    dataset = data.read(tmp_path / "mine", seed=3)
    pairs = {(image.tobytes(), label) for image, label in zip(small.images, small.labels, strict=True)}
    assert {
        (image.tobytes(), label) for image, label in zip(dataset.images, dataset.labels, strict=True)
    } == pairs
    assert (dataset.name, len(dataset)) == ("mine", len(small))
    drawn = len(dataset.split("test"))
    assert dataset.notes == (f"test: {drawn} of {len(small)} images drawn, stratified, seed 3",)
    assert set(dataset.split("test").labels) == set(range(7))
    assert dataset.fingerprint != data.read(tmp_path / "mine", seed=4).fingerprint
    loaded = data.load(tmp_path / "mine")
    assert len(loaded.notes) == 2
    assert all(len(loaded.split(name)) for name in data.SPLITS)


def test_the_split_of_class_folders_depends_on_the_images_alone(tmp_path, small):
    """Not on the names, dates or order of files, nor on how a class is spelled."""
    by_class(tmp_path / "a", small)
    backwards = data.Dataset("b", small.images[::-1], small.labels[::-1], small.usage[::-1])
    by_class(tmp_path / "b", backwards, "{:08}.bmp")
    (tmp_path / "b" / "happy").rename(tmp_path / "b" / "3")
    for file in (tmp_path / "b" / "sad").iterdir():
        os.utime(file, (0, 0))
    assert same(data.load(tmp_path / "b"), data.load(tmp_path / "a"))


def test_copies_in_class_folders_stay_on_one_side(tmp_path, small):
    """Whatever their classes."""
    other = data.Dataset("other", small.images, (small.labels + 1) % 7, small.usage)
    by_class(tmp_path, small, "a{}.png")
    by_class(tmp_path, small, "b{}.png")
    by_class(tmp_path, other, "c{}.png")
    loaded = data.load(tmp_path)
    assert len(loaded) == 3 * len(small)
    sides = {}
    for image, usage in zip(loaded.images, loaded.usage, strict=True):
        assert sides.setdefault(image.tobytes(), usage) == usage


def test_classes_may_be_missing(tmp_path):
    for row in range(5):
        picture(tmp_path / "happy" / f"{row}.png", row)
        picture(tmp_path / "sad" / f"{row}.png", 100 + row)
    assert np.bincount(data.read(tmp_path).labels, minlength=7).tolist() == [0, 0, 0, 5, 5, 0, 0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("contempt/a.png", r"contempt: unknown folder name; accepted.*angry.*happiness"),
        ("test/happy/a.png", r"holds test/ beside happy/; put all classes into splits"),
        ("valid/happy/a.png", r"holds valid/ beside happy/; put all classes into splits"),
        ("sad/.DS_Store", r"sad: holds no images; put some in, or remove the folder"),
        ("happy/a.txt", r"a\.txt: not an image file"),
        ("happy/more/a.png", r"happy/more: is a folder, not an image file"),
    ],
)
def test_faults_of_class_folders_are_named(bad, message, tmp_path):
    picture(tmp_path / "happy" / "fine.png", 1)
    (tmp_path / bad).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / bad).write_bytes(b"no picture")
    with pytest.raises(DataError, match=message):
        data.read(tmp_path)


@pytest.mark.parametrize("name", ["mine.csv", "mine.npz", "a pair of .npy files"])
def test_a_data_set_beside_class_folders_is_not_guessed_about(name, tmp_path, small):
    by_class(tmp_path, small)
    (tmp_path / "labels.csv").write_text("file,emotion\n000.png,happy\n")  # no data set
    assert len(data.read(tmp_path)) == len(small)
    if name.startswith("mine"):
        data.write(small, tmp_path / name)
    else:
        pair(tmp_path, small.images, small.labels)
    with pytest.raises(DataError, match=rf"holds a data set \({name}\) and folders named by class; name"):
        data.read(tmp_path)


def test_truncated_image_is_named(tmp_path, small):
    data.write(small, tmp_path / "faces")
    victim = next((tmp_path / "faces").rglob("*.png"))
    victim.write_bytes(victim.read_bytes()[:300])
    with pytest.raises(DataError, match=victim.name):
        data.read(tmp_path / "faces")


def test_empty_split_folders(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        data.read(tmp_path)


def pair(folder, images, labels):
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)


@pytest.mark.parametrize("way", ["folder", "x.npy", "y.npy"])
def test_npy_pair(way, tmp_path, small):
    pair(tmp_path, small.images[..., None], np.eye(7, dtype=np.float32)[small.labels])
    dataset = data.read(tmp_path if way == "folder" else tmp_path / way, seed=3)
    assert np.array_equal(dataset.images, small.images)
    assert np.array_equal(dataset.labels, small.labels)
    for label, count in enumerate(np.bincount(small.labels)):
        assert (dataset.split("test").labels == label).sum() == round(0.2 * count)
    assert same(dataset, data.read(tmp_path, seed=3))


@pytest.mark.parametrize("convert", [np.float64, np.int32, lambda images: (images / 255).astype(np.float32)])
def test_npy_dtypes(convert, tmp_path, small):
    pair(tmp_path, convert(small.images), small.labels.astype(np.float32)[:, None])
    assert np.array_equal(data.read(tmp_path).images, small.images)


def with_nan(images):
    images = images.astype(np.float32)
    images[1, 2, 3] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (with_nan, lambda labels: labels, r"x\.npy: pixels must be in 0\.\.255 .*nan"),
        (lambda images: images.astype(int) + 1, lambda labels: labels, "pixels must be in"),
        (lambda images: images - 0.5, lambda labels: labels, "pixels must be in"),
        (lambda images: images / 2, lambda labels: labels, "whole numbers"),
        (lambda images: images > 9, lambda labels: labels, "integers or floats"),
        (lambda images: images[:, :40], lambda labels: labels, "must be .n, 48, 48."),
        (lambda images: images[:9], lambda labels: labels, "9 images but 42"),
        (lambda images: images[:0], lambda labels: labels[:0], "no images"),
        (lambda images: images, lambda labels: labels + 7, r"y\.npy: \[0\] is"),
        (lambda images: images, lambda labels: np.eye(7)[labels] * 2, "one-hot"),
        (lambda images: images, lambda labels: labels.astype(str), "whole numbers"),
        (lambda images: images, lambda labels: labels + 0.5, "not in 0..6"),
        (lambda images: images, lambda labels: labels.astype(object), "pickle"),
        (lambda images: images, lambda labels: images_like(labels), "no pair of images and labels"),
        (lambda images: images[:, 0, 0], lambda labels: labels, "no pair of images and labels"),
    ],
)
def test_npy_faults_are_named(images, labels, message, tmp_path, small):
    ramp = (np.arange(42 * 48 * 48) % 256).astype(np.uint8).reshape(42, 48, 48)
    pair(tmp_path, images(ramp), labels(small.labels))
    with pytest.raises(DataError, match=message) as caught:
        data.read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def images_like(labels):
    return np.zeros((len(labels), 48, 48), np.uint8)


@pytest.mark.parametrize("third", ["images", "labels"])
def test_a_third_npy_file_that_fits_is_not_guessed_about(third, tmp_path, small):
    images = np.zeros((len(small.labels), 48, 48), np.uint8)
    pair(tmp_path, images, small.labels)
    np.save(tmp_path / "third.npy", images if third == "images" else small.labels)
    with pytest.raises(DataError, match=r"several pairs of images and labels .*third\.npy"):
        data.read(tmp_path)


def test_a_single_npy_file(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((2, 48, 48), np.uint8))
    with pytest.raises(DataError, match=r"no pair of images and labels \(x.npy"):
        data.read(tmp_path / "x.npy")


def test_an_npz_file_by_the_name_of_npy(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 48, 48), np.uint8))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"x\.npy: an \.npz file with the arrays images; rename it"):
        data.read(tmp_path / "x.npy")


@pytest.mark.parametrize("seed", range(3))
def test_copies_of_an_image_stay_on_one_side_of_a_drawn_split(tmp_path, small, seed):
    rows = np.random.default_rng(seed).integers(0, len(small), 3 * len(small))
    np.save(tmp_path / "x.npy", small.images[rows])
    np.save(tmp_path / "y.npy", small.labels[rows])
    loaded = data.load(tmp_path, seed=seed)
    sides = {}
    for name in ("train", "validation", "test"):
        for image in loaded.split(name).images:
            assert sides.setdefault(image.tobytes(), name) == name


def test_npz_with_an_entry_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images", b"text")
        archive.writestr("labels", b"text")
    with pytest.raises(DataError, match=r"a\.npz: .*its entry 'images' is not an array"):
        data.read(tmp_path / "a.npz")


def test_npz_without_usage_or_labels(tmp_path, small):
    np.savez(tmp_path / "a.npz", images=small.images, labels=small.labels)
    assert data.read(tmp_path / "a.npz").notes[0].startswith("test: ")
    np.savez(tmp_path / "b.npz", images=small.images)
    with pytest.raises(DataError, match=r"b\.npz: no array named labels .it holds images."):
        data.read(tmp_path / "b.npz")


def test_folder_with_one_data_file(tmp_path, small):
    data.write(small, tmp_path / "any.npz")
    (tmp_path / "README.md").touch()
    assert same(data.read(str(tmp_path)), small)
    data.write(small, tmp_path / "fer2013.csv")
    with pytest.raises(DataError, match=r"several data files \(fer2013.csv, any.npz\)"):
        data.read(tmp_path)


def test_contest_csv_goes_before_other_tables(tmp_path, small, save):
    data.write(small, tmp_path / "icml_face_data.csv")
    save("example_submission.csv", "emotion\n1\n")
    assert same(data.read(tmp_path), small)


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"no such file or folder; give fer2013\.csv"):
        data.read(tmp_path / "missing.csv")
    with pytest.raises(DataError, match=r"no data set in this folder; give fer2013\.csv"):
        data.read(tmp_path)


def test_load_carves_validation_from_train():
    whole = data.synthetic.generate(700, 0, 70)
    sources = data.Dataset("whole", whole.images, whole.labels, whole.usage)
    from fertools.data.partition import with_carved_validation

    carved = with_carved_validation(sources, 4)
    assert np.bincount(carved.split("validation").labels).tolist() == [10] * 7
    assert len(carved.split("train")) == 630
    assert len(carved.split("test")) == 70
    assert carved.notes == ("validation: 70 of 700 train images carved out, stratified, seed 4",)


def test_load_leaves_validation_alone(tmp_path, small):
    data.write(small, tmp_path / "a.npz")
    loaded = data.load(tmp_path / "a.npz")
    assert same(loaded, small)
    assert loaded.notes == ()


def test_load_of_a_pair_has_all_three_splits(tmp_path, small):
    pair(tmp_path, small.images, small.labels)
    loaded = data.load(tmp_path, seed=2)
    assert len(loaded.notes) == 2
    assert all(len(loaded.split(name)) for name in data.SPLITS)
    assert same(loaded, data.load(tmp_path, seed=2))


def test_a_folder_called_synthetic_holds_no_drawn_faces(tmp_path, small):
    """The card tells by the name whose faces they are."""
    by_class(tmp_path / "synthetic", small)
    assert data.read(tmp_path / "synthetic").name == "synthetic/"
